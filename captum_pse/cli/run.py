"""Runs one command line: parses it, calls the command, returns the exit code."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from captum_pse.cli.parser import build_parser
from captum_pse.cli.registry import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv (sequence of str, optional): The words after ``captum-pse``. None means
            those of the process. Default: None

    Returns:
        *int*: The exit code: 0, 2 for wrong input, 130 for an interrupted run.
    """
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names that the terminal cannot show must not end a run after the work.
        sys.stdout.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            COMMANDS[args.command].run(args)
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"captum-pse: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"captum-pse: interrupted, {_what_is_left(args)}", file=sys.stderr)
        return 130
    return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Prints a warning as one line, between the progress bars."""
    tqdm.write(f"captum-pse: warning: {message}", file=sys.stderr)


def _what_is_left(args: argparse.Namespace) -> str:
    """What an interrupted command has written."""
    partial = COMMANDS[args.command].partial
    if partial is None or not (args.out / partial).is_dir():
        return "no results were written"
    return (
        f"partial results are in {args.out / partial}; repeat the same command to "
        "resume"
    )
