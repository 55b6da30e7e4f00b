"""Files that were saved before the package was laid out in rooms still load.

``before_the_rooms`` holds a result of each kind, written by that version on one small
model, with some of its numbers in ``expected.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import captum_pse as pse

FOLDER = Path(__file__).parent / "before_the_rooms"

#: By the file, its class, and from the result what ``expected.json`` has by that name.
FILES: dict[str, tuple[Any, dict[str, Callable[[Any], Any]]]] = {
    "pixels": (
        pse.PixelDecomposition,
        {
            "effect": lambda r: r.effect.tolist(),
            "attack_class": lambda r: r.labels.adversarial_class.tolist(),
        },
    ),
    "refinement": (
        pse.Refinement,
        {
            "reaches": lambda r: r.reaches.tolist(),
            "smallest": lambda r: [str(v) for v in r.smallest_fraction.tolist()],
        },
    ),
    "regions": (
        pse.RegionDecomposition,
        {"natural_true": lambda r: r.natural_true.tolist()},
    ),
    "units": (pse.UnitDecomposition, {"change": lambda r: r.change.tolist()}),
    "sensitivity": (pse.UnitSensitivity, {"mean": lambda r: r.mean.tolist()}),
    "masking": (
        pse.MaskingCurves,
        {"fresh": lambda r: [row["adaptive"] for row in r.table()]},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_results(name: str) -> None:
    kind, values = FILES[name]
    found = kind.load(FOLDER / f"{name}.safetensors")
    expected = json.loads((FOLDER / "expected.json").read_text())
    for key, value in values.items():
        assert value(found) == expected[key]
    if hasattr(found, "pair"):
        assert not found.pair.is_tuple
        assert len(found.inputs[0]) == len(found) == 2


def test_saved_again_is_the_same(tmp_path: Path) -> None:
    found = pse.MaskingCurves.load(FOLDER / "masking.safetensors")
    found.save(tmp_path / "again.safetensors")
    again = pse.MaskingCurves.load(tmp_path / "again.safetensors")
    # NaN, which is not equal to itself, stands for the interval of one seed.
    assert repr(again.table()) == repr(found.table())
    assert again.outcomes == found.outcomes
    assert any(math.isnan(row["adaptive_low"]) for row in found.table())


def test_a_study() -> None:
    old = json.loads((FOLDER / "study" / "study.json").read_text())
    found = pse.Study.load(FOLDER / "study")
    assert found.manifest["adaptive_eps"] == old["manifest"]["fresh_eps"]
    assert found.manifest["batch_size"] == old["manifest"]["batch"]
    assert found.tables["smallest_fraction"] == old["tables"]["smallest"]
    row, before = (
        study["interpretability"][0] for study in (found.tables, old["tables"])
    )
    assert row["expected_low"] == before["baseline_low"]
    assert row["expected"] == before["baseline"]
    row, before = (study["pairs"][0] for study in (found.tables, old["tables"]))
    assert row["smallest_fraction_by_effect"] == before["smallest_by_effect"]
    row, before = (study["masking"][0] for study in (found.tables, old["tables"]))
    assert row["adaptive"] == before["fresh"]
    assert found.plot("interpretability").axes


def test_names_of_attacks_are_not_those_of_columns(tmp_path: Path) -> None:
    study = json.loads((FOLDER / "study" / "study.json").read_text())
    digests = {"baseline": "1", "fresh": "2", "expected": "3"}
    study["manifest"]["digests"] = digests
    (tmp_path / "study.json").write_text(json.dumps(study))
    assert pse.Study.load(tmp_path).manifest["digests"] == digests
