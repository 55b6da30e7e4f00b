"""The interpretability score compared with a literal loop and its expectation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_pse import interpretability_score


@pytest.mark.parametrize("percentile", [0, 25, 70, 99.5, 100])
def test_equals_literal_definition(percentile):
    maps = torch.randn(3, 1, 5, 7).round(decimals=1)
    delta = torch.randn(3, 2, 5, 7)
    result = interpretability_score(maps, delta, percentile)
    for n in range(3):
        values = maps[n, 0].numpy()
        mask = values >= np.percentile(values, percentile)
        inside = sum(
            float(delta[n, c, i, j]) ** 2
            for c in range(2)
            for i in range(5)
            for j in range(7)
            if mask[i, j]
        )
        whole = float((delta[n] ** 2).sum())
        assert result.mask[n, 0].numpy().tolist() == mask.tolist()
        assert float(result.score[n]) == pytest.approx(
            (inside / whole) ** 0.5, rel=1e-5
        )
        assert float(result.area[n]) == pytest.approx(mask.mean())
        assert float(result.expected[n]) == pytest.approx(mask.mean() ** 0.5)
        lift = (inside / whole / mask.mean()) ** 0.5
        assert float(result.lift[n]) == pytest.approx(lift, rel=1e-5)


#: Maps of four positions, the percentile, and the mask. Equal values are all inside or
#: all outside.
MASKS = {
    "no ties": ([1.0, 2.0, 3.0, 4.0], 50, [0, 0, 1, 1]),
    "a tie at the threshold": ([0.0, 2.0, 2.0, 4.0], 50, [0, 1, 1, 1]),
    "mostly zero": ([0.0, 0.0, 0.0, 1.0], 50, [1, 1, 1, 1]),
    "all zero": ([0.0, 0.0, 0.0, 0.0], 70, [1, 1, 1, 1]),
    "the largest only": ([1.0, 2.0, 3.0, 4.0], 100, [0, 0, 0, 1]),
    "negative": ([-4.0, -3.0, -2.0, -1.0], 70, [0, 0, 0, 1]),
}


@pytest.mark.parametrize(("values", "percentile", "mask"), MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_masks(values, percentile, mask, dtype):
    maps = torch.tensor(values, dtype=dtype).reshape(1, 1, 2, 2)
    result = interpretability_score(maps, torch.ones_like(maps), percentile)
    assert result.mask.flatten().tolist() == [bool(m) for m in mask]
    assert float(result.lift) == pytest.approx(1)


def test_no_perturbation_scores_zero():
    result = interpretability_score(torch.rand(1, 1, 4, 4), torch.zeros(1, 3, 4, 4))
    assert (float(result.score), float(result.lift)) == (0, 0)


def test_random_masks_have_the_expected_score():
    delta = torch.randn(1, 3, 16, 16).expand(2000, -1, -1, -1)
    result = interpretability_score(torch.rand(2000, 1, 16, 16), delta)
    squared = float((result.score**2).mean())
    assert squared == pytest.approx(float(result.expected[0] ** 2), rel=0.01)


BAD = {
    "percentile": (
        (1, 1, 4, 4),
        (1, 3, 4, 4),
        {"percentile": 101},
        "percentile: got 101",
    ),
    "percentile NaN": (
        (1, 1, 4, 4),
        (1, 3, 4, 4),
        {"percentile": float("nan")},
        "percentile: got nan",
    ),
    "size": ((1, 1, 4, 4), (1, 3, 8, 8), {}, r"maps: got shape \(1, 1, 4, 4\)"),
    "channels": ((1, 2, 4, 4), (1, 3, 4, 4), {}, r"maps: got shape \(1, 2, 4, 4\)"),
    "examples": ((2, 1, 4, 4), (1, 3, 4, 4), {}, r"maps: got shape \(2, 1, 4, 4\)"),
    "flat": ((2, 1), (2, 3), {}, r"maps: got shape \(2, 1\)"),
}


@pytest.mark.parametrize(("maps", "delta", "options", "message"), BAD.values(), ids=BAD)
def test_bad_input(maps, delta, options, message):
    with pytest.raises(ValueError, match=message):
        interpretability_score(torch.zeros(maps), torch.zeros(delta), **options)


def test_values_are_finite():
    with pytest.raises(ValueError, match="maps: got NaN"):
        interpretability_score(
            torch.full((1, 1, 2, 2), torch.nan), torch.ones(1, 1, 2, 2)
        )
