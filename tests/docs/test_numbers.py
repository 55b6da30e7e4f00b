"""Numbers in the texts are those that the code beside them printed.

Results are written in digits. Each must stand in a saved output next to the text,
rounded as the text writes it (``37 %`` is ``37%`` or ``0.37``). Numbers that are no
results (settings, shapes, definitions) are listed here as the words around them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from captum_pse._statistics import MIN_PAIRS, MIN_UNITS, POWER, STRATUM
from captum_pse.studies.findings import (
    ALPHA,
    LEAST_CORRELATION,
    LEAST_DIFFERENCE,
    MIN_FRACTION,
)
from captum_pse.studies.stages import TESTED_FRACTION
from captum_pse.units.masking_test import RANDOM_SETS

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
GUIDE, README = ROOT / "docs/guide.md", ROOT / "README.md"

#: No results anywhere: code, tables, links, shapes, bits, parts of a colour's range.
NEVER = re.compile(
    r"```.*?```|^\|[^\n]*|`[^`]*`|\]\([^)]*\)|\d+ x \d+|\d+ bits|\d+/255", re.S | re.M
)

#: By the file's name, words whose numbers are no results of the code beside them.
NO_RESULTS = {
    "1_getting_started.ipynb": [
        "scenes of 12 classes", "here 5 pixels", "a factor of 2", "at -1 and 1",
        "more than 0.001 logits", "shows 0 to 1", "all 8 attacks", "the 8 pairs",
    ],
    "2_adversarial_cam.ipynb": [
        "With 8 pairs", "from 0 to 1", "is 0.5", "The 64 tokens", "5 MB",
    ],
    "3_dissection_sensitivity.ipynb": [
        "et al. 2017", "0.5 % of all positions", "IoU is above 0.04", "first 14 units",
        "on 24 scenes", "of the 96 units", "95 % confidence", "with 12 of them",
        "12 pairs", "the given units is 0",
    ],
    "4_other_attribution_methods.ipynb": [
        "the 20 strongest", "the 10 strongest", "at most 0.002",
    ],
    "5_your_own_attack.ipynb": [
        "more than 0.001 logits", "4 to 6 pairs", "ICLR 2019", "grey is 0",
    ],
    "6_existing_captum_workflow.ipynb": ["to 0 to 1"],
    "guide.md": [
        # Measured elsewhere: by the study, on real images, and by tests/benchmarks.
        "24 pairs of each attack, 196 groups", "89 to 92 % of the groups",
        "28 % (iterated FGSM), 48 % (Carlini and Wagner) and 63 % (elastic net)",
        "224 px, 196 groups",
        # The bars of tests/calibration.
        "92 to 98 % of the simulations", "p < 0.05 in at most 7 %",
        # What the code sets.
        f"strata of {STRATUM} units", f"at least {MIN_UNITS} units",
        f"p-value is below {ALPHA}", f"from {MIN_PAIRS} pairs on",
        f"at least {LEAST_CORRELATION} for a rank correlation",
        f"{LEAST_DIFFERENCE} for a difference of two fractions",
        f"intervals are above {MIN_FRACTION}", f"a probability of {POWER:.0%}"[:-1],
        f"{TESTED_FRACTION:.0%}"[:-1] + " % of a layer", f"{RANDOM_SETS} if nothing",
        "95 % interval",
        # Definitions.
        "and the mean is 0.5", "compared with 0.5", "at most 0.", "near 0",
        "`p` = 0.99", "fewer than 40", "torch 2.6", "grey with 16",
        "`(N, K, ...)`, -1 for",
    ],
}  # fmt: skip

NUMBER = re.compile(r"(?<![\w.,/-])(-?\d+(?:\.\d+)?)(?![\w/]|\.\d)(\s?%)?")


def numbers(text: str) -> list[tuple[str, bool]]:
    """Each number as it is written, and whether it is a percentage."""
    return [(found[1], bool(found[2])) for found in NUMBER.finditer(text)]


def states(output: str, number: str, is_percentage: bool) -> bool:
    """Whether a number stands in an output, rounded as ``number`` is written."""
    decimals = len(number.partition(".")[2])
    # "fell by 6.5" is -6.5 in a table; a sign that is written must be there.
    signs = (1,) if number.startswith("-") else (1, -1)
    return any(
        f"{sign * scale * float(value):.{decimals}f}" == number
        for value, percent in numbers(output)
        for scale in ((1,) if percent == is_percentage else (100,) * is_percentage)
        for sign in signs
    )


def results(name: str, text: str) -> list[tuple[str, bool]]:
    """The numbers of a text that are to be results."""
    for words in NO_RESULTS.get(name, []):
        text = re.sub(re.escape(words).replace(r"\ ", r"\s+"), " ", text)
    return numbers(NEVER.sub(" ", text))


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Each text of a file, and the outputs of the code next to it."""
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
        yield text, "\n".join(re.findall(r"```text\n(.*?)```", text, re.DOTALL))
        return
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    words = [i for i, cell in enumerate(cells) if cell["cell_type"] == "markdown"]
    bounds = [-1, *words, len(cells)]
    for before, i, after in zip(bounds, words, bounds[2:], strict=False):
        outputs = [
            "".join(output.get("text") or output["data"].get("text/plain", ""))
            for cell in cells[before + 1 : after]
            for output in cell.get("outputs", [])
        ]
        yield "".join(cells[i]["source"]), "\n".join(outputs)


@pytest.mark.parametrize("path", [*NOTEBOOKS, GUIDE], ids=lambda path: path.name)
def test_results_are_printed(path: Path) -> None:
    unknown = [
        (number + " %" * is_percentage, text[:60])
        for text, output in texts(path)
        for number, is_percentage in results(path.name, text)
        if not states(output, number, is_percentage)
    ]
    assert unknown == []


@pytest.mark.parametrize("name", NO_RESULTS)
def test_listed_words_are_there(name: str) -> None:
    (path,) = [p for p in (*NOTEBOOKS, GUIDE) if p.name == name]
    whole = re.sub(r"\s+", " ", "\n".join(text for text, _ in texts(path)))
    assert [words for words in NO_RESULTS[name] if words not in whole] == []


def test_readme_states_the_speed_of_the_guide() -> None:
    (row,) = re.findall(r"^\| SqueezeNet .*\n.*\n(.*)$", GUIDE.read_text("utf-8"), re.M)
    factors = sorted(float(number) for number, _ in numbers(row))
    assert f"{factors[0]} to {factors[-1]} times faster" in README.read_text("utf-8")


@pytest.mark.parametrize(
    ("output", "number", "is_percentage", "wanted"),
    [
        ("rho -0.301", "-0.30", False, True),
        ("rho 0.301", "-0.30", False, False),
        ("true score -6.54", "6.5", False, True),
        ("share 0.371", "37", True, True),
        ("37% of 12", "37", True, True),
        ("37% of 12", "37", False, False),
        ("37% of 12", "38", True, False),
        ("(15, 38, 57)", "38", False, True),
        ("6/255 and conv5", "5", False, False),
    ],
)
def test_rounding(output: str, number: str, is_percentage: bool, wanted: bool) -> None:
    assert states(output, number, is_percentage) == wanted
