"""The commands, one module each, in the order of the help.

Importing this package registers them, see :func:`captum_pse.cli.registry.command`.
"""

# isort: off
from captum_pse.cli.commands import demo as demo
from captum_pse.cli.commands import explain as explain
from captum_pse.cli.commands import refine as refine
from captum_pse.cli.commands import study as study
from captum_pse.cli.commands import dissect as dissect
