"""The page: what stands on it, and how the templates make it one file."""

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
from captum_pse.reports.page.colours import gradients
from captum_pse.reports.page.groups import GroupValues
from captum_pse.reports.page.pictures import Picture
from captum_pse.reports.page.tables import Cell, Fact, Table

_SCRIPTS = ("table.js", "viewer.js", "groups.js")


@dataclass(frozen=True)
class Figure:
    """A figure of matplotlib.

    Attributes:
        title (str): What it shows.
        path (str): Where it is, from the page; the page links to it.
        uri (str): The figure itself, where it stands in the page too.
    """

    title: str
    path: str
    uri: str = ""


@dataclass(frozen=True)
class PairEntry:
    """What the page shows of one pair.

    Attributes:
        number (int): Its place in the set.
        name (str): As the user calls it.
        cells (dict[str, Cell]): Its line in the table of pairs, by column.
        pictures (list[Picture]): The first is shown first; the natural and the
            adversarial one are among them.
        chosen (str): The key of the picture that is the table's third thumbnail, and
            that is shown first.
        groups (GroupValues, optional): What pointing at the pictures says.
            Default: None
        figures (list[Figure]): Linked, or shown below.
        tables (list[Table]): Shown below.
    """

    number: int
    name: str
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
        pairs (list[PairEntry]): At least one.
        facts (list[Fact]): The summary in numbers.
        manifest (mapping): Versions and settings.
        files (list[str]): The other results, from the page; it links to them.
        kinds (tuple): How many groups are of each type. Default: ()
        figures (list[Figure]), tables (list[Table]): Of the whole set.
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
    """Writes the page as one file of HTML, the same for the same content."""
    path.write_text(render(page), encoding="utf-8", newline="\n")


def render(page: Page) -> str:
    """The page as HTML. Every text in it is escaped, those of the user among them."""
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
        style=Markup(style),  # noqa: S704 - ours, without a word of the user's
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - likewise
        style_hash=_hash(style),
        script_hashes=[_hash(script) for script in scripts],
    )


def _data(page: Page) -> dict[str, Any]:
    """What the script reads: the values of groups, and each set of places once."""
    places: list[dict[str, Any]] = []
    pairs = {}
    for pair in page.pairs:
        if pair.groups is None:
            continue
        if pair.groups.places not in places:
            places.append(pair.groups.places)
        which = places.index(pair.groups.places)
        columns = {column.name: column.values for column in pair.groups.columns}
        pairs[str(pair.number)] = {"places": which, "columns": columns}
    data: dict[str, Any] = plain({"places": places, "pairs": pairs})
    return data


def _hash(text: str) -> str:
    """By which the page's security policy knows its own script and style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
