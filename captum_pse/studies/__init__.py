"""The paper's analysis over sets of pairs, behind ``captum-pse study``.

- ``run``: the whole study, written into one folder
- ``result``: the result, and how it is read from such a folder
- ``settings``: the settings of a study
- ``stages``: the stages, each of which keeps its partial results
- ``digests``: digests of the inputs, which identify a run
- ``pair_record``: the measurements on one pair
- ``tables``: tables of means over the pairs of an attack
- ``findings``: the paper's findings, tested on the pairs
- ``figure``: figures of the tables
"""

from captum_pse.studies.result import Study
from captum_pse.studies.run import study

__all__ = ["Study", "study"]
