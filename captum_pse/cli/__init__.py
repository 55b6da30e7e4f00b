"""The command line: ``captum-pse``, or ``python -m captum_pse.cli``.

- ``commands``: the commands, one module each
- ``registry``: how a command registers itself
- ``arguments``: arguments that several commands share
- ``inputs``: the model, the pairs and the concepts that arguments name
- ``levels``: pairs explained at one of three levels
- ``parser``: the parser, built from the registered commands
- ``run``: parses a command line, runs the command, returns the exit code
- ``models``: models by name
- ``printing``: the table of explained pairs
"""

from captum_pse.cli.run import main as main
