"""README and guide: code runs, commands are understood, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from captum_pse.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", ROOT / "docs/guide.md"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def code_and_output(text: str) -> list[tuple[str, str]]:
    """Each block of Python, and the block of text that follows it."""
    return re.findall(
        r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?",
        text,
        re.DOTALL | re.MULTILINE,
    )


def commands() -> list[list[str]]:
    lines = [
        part.strip()
        for path in TEXTS
        for block in blocks(path.read_text(encoding="utf-8"), "sh")
        for line in block.replace("\\\n", " ").splitlines()
        for part in line.split("&&")
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith("captum-pse ")]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_code_prints_what_the_text_states(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    text = path.read_text(encoding="utf-8")
    found = code_and_output(text)
    assert found
    assert sum(bool(output) for _, output in found) == len(blocks(text, "text"))
    for code, output in found:
        capsys.readouterr()
        exec(compile(code, path.name, "exec"), names)
        assert capsys.readouterr().out == output


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_are_understood(arguments):
    assert build_parser().parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            slugs = [
                re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles
            ]
            assert anchor in slugs, link
