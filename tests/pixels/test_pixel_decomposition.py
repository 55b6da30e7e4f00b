"""PixelDecomposition on changes chosen by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captum_pse import PixelDecomposition, PredictionWarning, PromotionSuppression
from captum_pse._io.files import atomic_path, atomic_results

#: Signed changes of promotion and suppression, and the effect, ratio, type and inactive
#: that follow for eps 1/8 and threshold 1.
GROUPS = [
    (4.0, 1.0, 5.0, 2.0, "promotion", False),
    (1.0, 4.0, 5.0, -2.0, "suppression", False),
    (2.0, 1.0, 3.0, 1.0, "balanced", False),  # exactly twice is balanced
    (1.0, 2.0, 3.0, -1.0, "balanced", False),
    (3.0, -7.0, 3.0, math.log2(3 * 8), "promotion", False),
    (-2.0, 0.5, 0.5, -2.0, "suppression", False),
    (0.125, 0.0, 0.125, 0.0, "balanced", True),  # exactly eps is inactive
    (-1.0, -1.0, 0.0, 0.0, "balanced", True),
]


@pytest.fixture
def result() -> PixelDecomposition:
    """A linear model: each feature's change is its weight where delta is 1."""
    promotion, suppression = (torch.tensor([g[k] for g in GROUPS]) for k in (0, 1))
    weight = torch.stack([torch.zeros(8), promotion, -suppression])
    natural = torch.zeros(1, 8)
    method = PromotionSuppression(
        lambda x: x @ weight.T + torch.tensor([0.0, 0.0, 3.0]), eps=0.125
    )
    return method.decompose(natural + 1, natural, 1, 2)


def test_components_follow_from_the_changes(result):
    rows = result.table()
    assert [row["group"] for row in rows] == list(range(8))
    for row, (change, other, effect, ratio, kind, inactive) in zip(
        rows, GROUPS, strict=True
    ):
        assert row["promotion_change"] == pytest.approx(change, abs=1e-6)
        assert row["suppression_change"] == pytest.approx(other, abs=1e-6)
        assert row["promotion"] == pytest.approx(max(change, 0), abs=1e-6)
        assert row["suppression"] == pytest.approx(max(other, 0), abs=1e-6)
        assert row["effect"] == pytest.approx(effect, abs=1e-6)
        assert row["ratio"] == pytest.approx(ratio, abs=1e-5)
        assert (row["type"], row["inactive"]) == (kind, inactive)


def test_types_depend_on_the_threshold(result):
    wide = dataclasses.replace(result, threshold=2.5)
    assert [row["type"] for row in wide.table()] == [
        *("balanced",) * 4,
        "promotion",
        *("balanced",) * 3,
    ]


def test_attributions_are_the_components(result):
    for component in ("effect", "promotion", "suppression", "ratio", "type"):
        expected = getattr(result, component)
        assert torch.equal(result.attribution(component), expected), component
    with pytest.raises(ValueError, match="component: got 'sum', want one of effect"):
        result.attribution("sum")


def test_summary_counts_inactive_groups_separately(result):
    (record,) = result.summary()
    assert record == {
        "example": 0,
        "true_label": 2,
        "attack_label": 1,
        "natural_prediction": 2,
        "adversarial_prediction": 1,
        "natural_agrees": True,
        "attack_holds": True,
        "attack_score_gain": pytest.approx(sum(g[0] for g in GROUPS)),
        "true_score_loss": pytest.approx(sum(g[1] for g in GROUPS)),
        "score": "logit",
        "promotion": pytest.approx(sum(max(g[0], 0) for g in GROUPS)),
        "suppression": pytest.approx(sum(max(g[1], 0) for g in GROUPS)),
        "groups": 8,
        "inactive": 2,
        "suppression_dominated": 2,
        "balanced": 2,
        "promotion_dominated": 2,
    }


def test_saved_results_load_back(result, tmp_path):
    path = tmp_path / "new" / "result.safetensors"
    result.save(path)
    loaded = PixelDecomposition.load(path)
    assert loaded.table() == result.table()
    assert loaded.summary() == result.summary()
    assert torch.equal(loaded.inputs[0], result.inputs[0])
    assert (loaded.eps, loaded.pair.is_tuple) == (0.125, False)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_tuples_and_shared_naturals_load_back(tmp_path):
    x = (torch.rand(3, 4), torch.rand(3, 2))
    x0 = (torch.rand(1, 4), torch.rand(1, 2))
    method = PromotionSuppression(lambda a, b: torch.cat([a, b], 1) * 2)
    with pytest.warns(PredictionWarning):
        result = method.decompose(x, x0, [0, 1, 2], 5)
    result.save(tmp_path / "r.safetensors")
    loaded = PixelDecomposition.load(tmp_path / "r.safetensors")
    for got, expected in zip(loaded.attribution(), result.attribution(), strict=True):
        assert torch.equal(got, expected)


def write_bytes(path: Path) -> None:
    path.write_bytes(b"not safetensors at all")


def write_other(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, path)


def write_format(version: int) -> Callable[[Path], None]:
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        manifest = {"format": f"captum_pse.PixelDecomposition/{version}"}
        manifest["captum_pse"] = "9.1"
        save_file({"x": torch.zeros(1)}, path, {"manifest": json.dumps(manifest)})

    return write


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, "r.safetensors"),
        (write_bytes, ValueError, "path: .* was not written by save"),
        (write_other, ValueError, "path: .* was not written by captum_pse"),
        (
            write_format(99),
            ValueError,
            "path: .* has the format captum_pse.PixelDecomposition/99, written by "
            "captum_pse 9.1, want captum_pse.PixelDecomposition/2",
        ),
        (write_format(2), ValueError, "path: .* lacks 'labels.target'"),
    ],
)
def test_files_that_do_not_load(tmp_path, write, error, message):
    path = tmp_path / "r.safetensors"
    write(path)
    with pytest.raises(error, match=message):
        PixelDecomposition.load(path)


def test_a_file_is_complete_or_unchanged(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")

    def fail() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]  # noqa: PTH208
    with atomic_path(path) as partial:
        partial.write_text("after")
    assert path.read_text() == "after"


@pytest.mark.parametrize("n_moved", [0, 1])
def test_interrupted_while_results_are_moved(n_moved, tmp_path, monkeypatch):
    real, calls = Path.replace, []

    def replace(self, target):
        if len(calls) == n_moved:
            raise KeyboardInterrupt
        calls.append(target)
        return real(self, target)

    out = tmp_path / "out"

    def write() -> None:
        with atomic_results(out) as folder:
            (folder / "a.txt").write_text("a")
            (folder / "b.txt").write_text("b")
            monkeypatch.setattr(Path, "replace", replace)

    with pytest.raises(KeyboardInterrupt):
        write()
    left = [path.name for path in out.iterdir()] if out.exists() else []
    assert left == ["a.txt"][:n_moved]
    assert out.exists() == bool(n_moved)
