"""What a caller wants written down stands beside what a result says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captum_pse import study
from captum_pse.demo import SceneConcepts, load_model, make_pairs
from captum_pse.reports.dissection import dissect_layers
from captum_pse.reports.explain import explain
from captum_pse.reports.refinement import refine_pairs
from captum_pse.reports.units import explain_units

LAYER = "features.conv5"

#: By their name, how they are called, their file, and a setting of their own.
WRITERS = {
    "explain": (
        lambda out, more: explain(load_model(), make_pairs(1), out, cell=32, **more),
        "summary.json",
        "threshold",
    ),
    "explain_units": (
        lambda out, more: explain_units(load_model(), make_pairs(1), out, **more),
        "summary.json",
        "layers",
    ),
    "refine_pairs": (
        lambda out, more: refine_pairs(load_model(), make_pairs(1), out, **more),
        "refinement.json",
        "cell",
    ),
    "study": (
        lambda out, more: study(
            load_model(),
            {"pgd": make_pairs(1)},
            out,
            cell=32,
            adaptive_steps=1,
            random_sets=3,
            **more,
        ),
        "study.json",
        "format",
    ),
    "dissect_layers": (
        lambda out, more: dissect_layers(
            load_model(), SceneConcepts(2), [LAYER], out, **more
        ),
        "dissection.json",
        "quantile",
    ),
}


@pytest.mark.parametrize(("write", "name", "own"), WRITERS.values(), ids=WRITERS)
def test_settings_are_written_down(write, name, own, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=f"settings: got '{own}', want other names"):
        write(out, {"settings": {own: 1}})
    assert not out.exists()
    write(out, {"settings": {"where": Path("here"), "eps of the attack": 0.1}})
    manifest = json.loads((out / name).read_text())["manifest"]
    assert (manifest["where"], manifest["eps of the attack"]) == ("here", 0.1)
    assert own in manifest
