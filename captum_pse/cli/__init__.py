"""The command line: ``captum-pse``, or ``python -m captum_pse.cli``.

- ``arguments``: what each command takes
- ``commands``: what each command does
- ``models``: models by name
- ``printing``: what is printed
"""

from captum_pse.cli.commands import main as main
