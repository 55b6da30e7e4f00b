"""The parser of the command line, built from the registered commands."""

from __future__ import annotations

import argparse

from captum_pse._io.manifest import package_version
from captum_pse.cli import commands as _commands  # noqa: F401 - registers them
from captum_pse.cli.registry import COMMANDS, Command

_RESUMES = """
An interrupted run resumes when the same command is repeated (partial results in
DIR/{partial}).
"""

_EXIT_CODES = """
exit codes:
  0    done
  2    wrong input; the message states what is wanted; no results were written
  130  interrupted (Ctrl-C); no results were written; study and dissect resume when the
       same command is repeated
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``captum-pse``, with one subparser for each command."""
    parser = argparse.ArgumentParser(
        prog="captum-pse",
        description="Shows what adversarial perturbations promote and suppress.",
        epilog=_main_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=package_version())
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        subparser = subparsers.add_parser(
            command.name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=_epilog(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for add_arguments in command.arguments:
            add_arguments(subparser)
    return parser


def _main_epilog() -> str:
    firsts = [
        command.examples.strip("\n").split("\n  captum-pse")[0]
        for command in COMMANDS.values()
    ]
    more = "captum-pse COMMAND --help explains a command, with more examples"
    return "\n".join(["examples:", *firsts, "", more, _EXIT_CODES])


def _epilog(command: Command) -> str:
    resumes = _RESUMES.format(partial=command.partial) if command.partial else ""
    return f"examples:{command.examples}{command.note}{resumes}"
