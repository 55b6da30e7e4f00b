"""The paper's analysis over sets of pairs, behind ``captum-pse study``.

- ``of_pair``: what is measured on one pair
- ``statistics``: intervals and tests over pairs
- ``tables``: from records of pairs to tables
- ``findings``: what the paper found, and whether the tables say so
- ``tasks``: work in pieces that are shared among processes and kept
- ``stages``: what is done after what
- ``run``: all of it, into one folder
- ``result``: what comes back, and is read from such a folder
"""

from captum_pse.studies.result import Study
from captum_pse.studies.run import study

__all__ = ["Study", "study"]
