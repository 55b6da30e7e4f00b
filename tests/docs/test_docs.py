"""Every public name stands on one page of the documentation; every page is linked."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import captum_pse
from captum_pse._io.saved import SavedResult

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.glob("*.rst"), *DOCS.glob("*.md"), *DOCS.glob("api/*.rst")])
#: Makes the page that ``explain`` writes; not for callers, whatever it exports inside.
INTERNAL = {"captum_pse.reports.page"}
DIRECTIVE = re.compile(
    r"^\.\. (?:auto(?:class|function|data)|py:data):: (?P<name>[\w.]+)$"
    r"(?:\n   :module: (?P<module>[\w.]+)$)?",
    re.MULTILINE,
)

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not here")


def public_modules() -> list[Any]:
    names = [
        info.name
        for info in pkgutil.walk_packages(captum_pse.__path__, "captum_pse.")
        if not any(part.startswith("_") for part in info.name.split("."))
        and info.name not in INTERNAL
    ]
    modules = [captum_pse, *map(importlib.import_module, names)]
    return [module for module in modules if hasattr(module, "__all__")]


def documented(page: Path) -> list[str]:
    return [
        ".".join(filter(None, (found["module"], found["name"])))
        for found in DIRECTIVE.finditer(page.read_text(encoding="utf-8"))
    ]


def value(name: str) -> Any:
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def test_public_modules() -> None:
    assert {module.__name__ for module in public_modules()} == {
        "captum_pse",
        "captum_pse.attacks",
        "captum_pse.demo",
        "captum_pse.dissection",
        "captum_pse.studies",
        "captum_pse.visualization",
    }


def test_every_public_name_stands_on_one_page() -> None:
    # By identity: StructuredAttack, say, is exported twice.
    places = Counter(id(value(name)) for page in PAGES for name in documented(page))
    public = {
        f"{module.__name__}.{name}": places[id(getattr(module, name))]
        for module in public_modules()
        for name in module.__all__
    }
    assert {name: n for name, n in public.items() if n != 1} == {}


def test_what_is_saved_shows_how_to_load_it() -> None:
    shown = {
        value(found["name"])
        for page in PAGES
        for found in re.finditer(
            r"autoclass:: (?P<name>[\w.]+)\n(?:   .*\n)*?   :inherited-members:",
            page.read_text(encoding="utf-8"),
        )
    }
    classes, found = [SavedResult], set()
    while classes:
        below = classes.pop().__subclasses__()
        found |= {made for made in below if not made.__abstractmethods__}
        classes += below
    assert len(found) >= 7
    assert found <= shown


def test_shown_by_its_public_name() -> None:
    exported = {
        id(getattr(module, name)): f"{module.__name__}.{name}"
        for module in reversed(public_modules())
        for name in module.__all__
    }
    for page in PAGES:
        for name in documented(page):
            assert exported.get(id(value(name)), name) == name


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^[\w/]+$", index, re.MULTILINE))
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES}
    assert listed == pages - {"index"}
