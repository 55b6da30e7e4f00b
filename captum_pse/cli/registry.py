"""The commands of ``captum-pse``. Each one is a function that registers itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

#: Adds arguments to the parser of a command.
AddArguments: TypeAlias = Callable[[argparse.ArgumentParser], object]
#: Runs a command on its parsed arguments.
Run: TypeAlias = Callable[[argparse.Namespace], None]


@dataclass(frozen=True)
class Command:
    """A command, with all that its help shows.

    Attributes:
        name (str): The word after ``captum-pse``.
        help (str): What the command does, in one line.
        arguments (sequence of callable): Add its arguments, in the order of its help.
        examples (str): Command lines; the help of ``captum-pse`` shows the first.
        run (callable): Runs the command on its parsed arguments.
        note (str): A paragraph below the examples. Default: ""
        partial (str, optional): The folder of partial results, inside ``--out``, from
            which an interrupted run resumes. None if a run cannot be resumed.
            Default: None
    """

    name: str
    help: str
    arguments: Sequence[AddArguments]
    examples: str
    run: Run
    note: str = ""
    partial: str | None = None


#: The commands by name, in the order of the help.
COMMANDS: dict[str, Command] = {}


def command(
    name: str,
    help: str,
    *,
    arguments: Sequence[AddArguments],
    examples: str,
    note: str = "",
    partial: str | None = None,
) -> Callable[[Run], Run]:
    """Registers the decorated function as a command; see :class:`Command`."""

    def register(run: Run) -> Run:
        COMMANDS[name] = Command(name, help, arguments, examples, run, note, partial)
        return run

    return register
