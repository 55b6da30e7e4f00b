"""The contents of the page, and how the templates render it as one file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from captum_pse._io.files import plain
from captum_pse._io.text import printable
from captum_pse._model.score import ScoreKind
from captum_pse.reports.page.colours import gradients
from captum_pse.reports.page.groups import GroupValues
from captum_pse.reports.page.pictures import Picture
from captum_pse.reports.page.tables import Cell, Fact, Table

_SCRIPTS = ("table.js", "viewer.js", "groups.js")


@dataclass(frozen=True)
class Figure:
    """A figure of matplotlib.

    Attributes:
        title (str): What the figure shows.
        path (str): Its file, relative to the page, which links to it.
        uri (str): The figure as a data URI, if the page shows it. Default: ""
    """

    title: str
    path: str
    uri: str = ""


@dataclass(frozen=True)
class PairEntry:
    """What the page shows of one pair.

    Attributes:
        number (int): Index of the pair in the set.
        name (str): The user's name for the pair.
        score (ScoreKind): What the scores of the pair are.
        cells (dict[str, Cell]): The row in the table of pairs, by column.
        pictures (list[Picture]): The natural image, the adversarial image and others.
        chosen (str): The key of the picture that is shown first, and that is the third
            thumbnail in the table.
        groups (GroupValues, optional): The values of the group under the pointer.
            Default: None
        figures (list[Figure]): Figures to link to, or to show below. Default: []
        tables (list[Table]): Tables to show below. Default: []
    """

    number: int
    name: str
    score: ScoreKind
    cells: dict[str, Cell]
    pictures: list[Picture]
    chosen: str
    groups: GroupValues | None = None
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """What the page shows of a set of pairs.

    Attributes:
        level (str): ``"pixel"``, ``"image"`` or ``"network"``.
        pairs (list[PairEntry]): The pairs, at least one.
        facts (list[Fact]): The summary in numbers.
        manifest (mapping): Versions and settings.
        files (list[str]): The other results, relative to the page, which links to them.
        kinds (tuple): The types of groups, with their counts. Default: ()
        figures (list[Figure]): Figures of the whole set. Default: []
        tables (list[Table]): Tables of the whole set. Default: []
    """

    level: str
    pairs: list[PairEntry]
    facts: list[Fact]
    manifest: Mapping[str, Any]
    files: list[str]
    kinds: tuple[tuple[str, int], ...] = ()
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def write_page(path: Path, page: Page) -> None:
    """Writes the page as one HTML file. The same content gives the same bytes."""
    path.write_text(render(page), encoding="utf-8", newline="\n")


def render(page: Page) -> str:
    """The page as HTML, with every text escaped."""
    environment = Environment(
        loader=PackageLoader("captum_pse.reports.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    style = environment.get_template("report.css").render(gradients=gradients())
    scripts = [environment.get_template(name).render() for name in _SCRIPTS]
    return environment.get_template("index.html").render(
        page=page,
        data=_data(page),
        style=Markup(style),  # noqa: S704 - holds no text of the user
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - as the style
        style_hash=_hash(style),
        script_hashes=[_hash(script) for script in scripts],
    )


def _data(page: Page) -> dict[str, Any]:
    """The data of the scripts: the values of groups, and each distinct layout once."""
    layouts: list[dict[str, Any]] = []
    pairs = {}
    for pair in page.pairs:
        if pair.groups is None:
            continue
        if pair.groups.layout not in layouts:
            layouts.append(pair.groups.layout)
        columns = {column.name: column.values for column in pair.groups.columns}
        pairs[str(pair.number)] = {
            "layout": layouts.index(pair.groups.layout),
            "columns": columns,
        }
    data: dict[str, Any] = plain({"layouts": layouts, "pairs": pairs})
    return data


def _hash(text: str) -> str:
    """The hash by which the security policy of the page allows a script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
