"""The rule of imports: rooms import down one list only.

Reads the imports of every module with ``ast``; nothing is imported or run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "captum_pse"

#: From the top to the bottom: a room imports itself and what is below it.
ROOMS = (
    *("__init__", "visualization"),
    *("cli", "reports", "studies", "comparison", "units", "demo", "pixels", "regions"),
    *("dissection", "_drawing", "pairs", "attacks", "_engine", "groups"),
    *("_io", "_model", "_statistics"),
)
#: The public faces, which nothing in the package imports.
FACES = {"captum_pse", "captum_pse.visualization"}


class Import(NamedTuple):
    """One imported module, from where, and whether only for the type checker."""

    module: str
    target: str
    typing_only: bool


def imports(module: str, source: str, known: set[str]) -> Iterator[Import]:
    """The modules that a source imports, at any depth of the code."""

    def walk(node: ast.AST, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, typing_only)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")[: -node.level]
                base = ".".join([*parts, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield Import(module, whole if whole in known else base, typing_only)
        is_typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, typing_only or is_typing)

    yield from walk(ast.parse(source), False)


def room_of(module: str) -> str:
    """The room of a module of the package; that of the package's own is __init__."""
    return [*module.split("."), "__init__"][1]


def violations(sources: Mapping[str, str]) -> list[str]:
    """What the modules, source by name, do against the rule."""
    known = set(sources)
    found = []
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        for item in imports(module, source, known):
            if item.target.split(".")[0] == "matplotlib":
                draws = room_of(module) == "_drawing" or module.endswith(".figure")
                if not draws and not item.typing_only:
                    found.append(f"{module} imports matplotlib")
            if item.target.split(".")[0] != "captum_pse":
                continue
            if item.target in FACES and module not in FACES:
                found.append(f"{module} imports the public face {item.target}")
                continue
            here, there = (ROOMS.index(room_of(m)) for m in (module, item.target))
            if there < here:
                found.append(f"{module} imports up, {item.target}")
            if room_of(item.target) == "demo" and room_of(module) not in (
                "cli",
                "demo",
            ):
                found.append(f"{module} imports demo")
            if not item.typing_only and item.target != module:
                graph[module].add(item.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("circle: " + " -> ".join(reversed(error.args[1])))
    return found


def package_sources() -> dict[str, str]:
    """The source of every module of the package, by its name."""
    sources = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        sources[name] = path.read_text(encoding="utf-8")
    return sources


def test_the_package_keeps_the_rule() -> None:
    assert violations(package_sources()) == []


def test_a_newcomer_sees_at_most_twenty_entries() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(entries) <= 20
    names = {entry.removesuffix(".py") for entry in entries} - {"py.typed"}
    assert names == set(ROOMS)


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        (
            "captum_pse.pairs.pair",
            "from captum_pse.pixels.result import PixelDecomposition",
            "captum_pse.pairs.pair imports up, captum_pse.pixels.result",
        ),
        (
            "captum_pse._io.text",
            "def f():\n    from captum_pse.cli.commands import main",
            "captum_pse._io.text imports up, captum_pse.cli.commands",
        ),
        (
            "captum_pse.reports.explain",
            "from captum_pse.demo import load_model",
            "captum_pse.reports.explain imports demo",
        ),
        (
            "captum_pse.cli.commands",
            "from captum_pse import AdversarialPair",
            "captum_pse.cli.commands imports the public face captum_pse",
        ),
        (
            "captum_pse.units.figure",
            "from captum_pse import visualization",
            "captum_pse.units.figure imports the public face captum_pse.visualization",
        ),
        (
            "captum_pse.pixels.result",
            "import matplotlib.pyplot",
            "captum_pse.pixels.result imports matplotlib",
        ),
        (
            "captum_pse.pixels.figure",
            "from captum_pse.pixels.result import PixelDecomposition",
            "circle: ",
        ),
        (
            "captum_pse._model.forward",
            "from ..pairs import pair",
            "captum_pse._model.forward imports up, captum_pse.pairs.pair",
        ),
    ],
)
def test_a_bad_import_is_found(module: str, line: str, wrong: str) -> None:
    sources = package_sources()
    sources[module] += f"\n{line}\n"
    assert any(found.startswith(wrong) for found in violations(sources))
