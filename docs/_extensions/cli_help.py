"""The directive ``cli-help``: the help texts of the command line, from its parser."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from captum_pse.cli import parser as _parser


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


class CliHelp(SphinxDirective):
    """A section for the command and for each of its commands."""

    def run(self) -> list[nodes.Node]:
        for path in Path(_parser.__file__).parent.rglob("*.py"):
            self.env.note_dependency(str(path))
        parser = _parser.build_parser()
        return [self._section(p) for p in (parser, *commands(parser))]

    def _section(self, parser: argparse.ArgumentParser) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(parser.prog)])
        # Of one width and without colours, wherever the documentation is built.
        with mock.patch.dict(os.environ, COLUMNS="88", NO_COLOR="1"):
            text = parser.format_help()
        section += nodes.title(text=parser.prog)
        section += nodes.literal_block(text, text, language="text")
        self.state.document.note_implicit_target(section, section)
        return section


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("cli-help", CliHelp)
    return {"parallel_read_safe": True}
