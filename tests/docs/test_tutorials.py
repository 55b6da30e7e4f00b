"""The notebooks run from top to bottom, and what is committed of them is sound."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is missing: extra test")
nbclient = pytest.importorskip("nbclient", reason="nbclient is missing: extra test")
pytest.importorskip("ipykernel", reason="ipykernel is missing: extra test")

FOLDER = Path(__file__).parents[2] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: Names whose calls may reach the network.
DOWNLOADS = {
    "get_state_dict",
    "hf_hub_download",
    "load_state_dict_from_url",
    "urlopen",
    "urlretrieve",
}
#: Where nothing listens, so that downloads fail at once, whatever the machine has.
NO_PROXY_THERE = "http://127.0.0.1:9"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_of(notebook: Any) -> list[str]:
    return [
        "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def downloads(tree: ast.AST) -> list[int]:
    """Lines of calls that download, outside of any ``try`` with a handler."""
    safe = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and node.handlers
        for statement in node.body
        for inside in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in safe:
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        asked = {
            keyword.arg: ast.unparse(keyword.value)
            for keyword in node.keywords
            if keyword.arg is not None
        }
        if (
            name in DOWNLOADS
            or asked.get("weights", "None") != "None"
            or asked.get("pretrained", "False") != "False"
            or asked.get("download", "False") != "False"
        ):
            found.append(node.lineno)
    return found


def test_all_are_there() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{i}_" for i in range(1, 7)]


@each_notebook
def test_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_PROXY_THERE)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    work = tmp_path / "work"
    work.mkdir()
    nbclient.NotebookClient(
        read(path),
        timeout=170,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
    ).execute()
    assert not list(work.iterdir()), "the notebook left files behind"


@each_notebook
def test_is_a_tutorial(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("markdown") >= 5
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_committed_outputs(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    texts = [
        o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs
    ]
    for text in texts:
        for place in ("/home/", "/root/", "/tmp/", "/Users/", "site-packages"):
            assert place not in text
    assert path.stat().st_size < 1_500_000


@each_notebook
def test_downloads_nothing_without_a_fallback(path: Path) -> None:
    for source in code_of(read(path)):
        assert not downloads(ast.parse(source))
        strings = [
            token.string
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.STRING
        ]
        assert not [string for string in strings if "://" in string]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("resnet18(weights='DEFAULT')", [1]),
        ("x = 1\nweights.get_state_dict(progress=False)", [2]),
        ("resnet18(weights=None)", []),
        ("try:\n    VOC(download=True)\nexcept OSError:\n    pass", []),
        ("try:\n    pass\nexcept OSError:\n    VOC(download=True)", [4]),
    ],
)
def test_finds_downloads(source: str, lines: list[int]) -> None:
    assert downloads(ast.parse(source)) == lines
