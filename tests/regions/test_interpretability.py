"""The interpretability score compared with a literal loop and its expectation."""

from __future__ import annotations

import itertools

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
        scores = shifted_scores(mask[None], delta[n].numpy())
        assert float(result.expected[n]) == pytest.approx(scores.mean(), rel=1e-5)
        lift = (inside / whole) ** 0.5 / scores.mean()
        assert float(result.lift[n]) == pytest.approx(lift, rel=1e-5)
        assert float(result.rank[n]) == pytest.approx(rank(scores))


def shifted_scores(mask, delta):
    """The score of every cyclic shift of a mask ``(1 or C, ...)``, that of no shift
    first."""
    size = mask.shape[1:]
    shifts = itertools.product(*map(range, size))
    axes = tuple(range(1, mask.ndim))
    energy = [((np.roll(mask, s, axes) * delta) ** 2).sum() for s in shifts]
    return np.sqrt(np.array(energy) / (delta**2).sum())


def rank(scores, same=1e-6):
    difference = scores - scores[0]
    return (difference < -same).mean() + 0.5 * (np.abs(difference) <= same).mean()


#: Shapes of maps and perturbations.
SHAPES = {
    "features": ((2, 7), (2, 7)),
    "sequences": ((2, 1, 9), (2, 3, 9)),
    "embeddings": ((2, 9, 1), (2, 9, 3)),
    "attributions of images": ((2, 3, 4, 5), (2, 3, 4, 5)),
    "volumes": ((2, 1, 3, 4, 2), (2, 2, 3, 4, 2)),
}


@pytest.mark.parametrize(("maps", "delta"), SHAPES.values(), ids=SHAPES)
def test_shifts_of_other_shapes(maps, delta):
    maps, delta = torch.randn(maps), torch.randn(delta)
    result = interpretability_score(maps, delta)
    for n in range(2):
        mask, change = map(np.atleast_2d, (result.mask[n].numpy(), delta[n].numpy()))
        if mask.shape[-1] == 1:
            mask, change = mask.T, change.T
        scores = shifted_scores(mask, change)
        assert float(result.score[n]) == pytest.approx(scores[0], rel=1e-5)
        assert float(result.expected[n]) == pytest.approx(scores.mean(), rel=1e-5)
        assert float(result.rank[n]) == pytest.approx(rank(scores))


def test_a_perturbation_inside_the_mask_ranks_first():
    maps, delta = torch.zeros(1, 1, 16, 16), torch.zeros(1, 3, 16, 16)
    maps[..., 4:9, 4:9] = 1
    maps += 1e-3 * torch.rand_like(maps)
    delta[..., 5:8, 5:8] = torch.randn(3, 3, 3)
    result = interpretability_score(maps, delta, percentile=90)
    assert float(result.score) == 1
    # The 3 x 3 positions lie in the 5 x 5 region for 9 of 256 shifts.
    assert float(result.rank) == pytest.approx(1 - 4.5 / 256)
    assert float(result.lift) > 2


def test_a_constant_perturbation_is_no_evidence():
    """FGSM: rounding of the images makes |delta| vary by one part in 60000."""
    natural = torch.rand(4, 3, 32, 32)
    adversarial = natural + torch.randn_like(natural).sign() / 255
    result = interpretability_score(torch.rand(4, 1, 32, 32), adversarial - natural)
    assert result.rank.tolist() == [0.5] * 4
    assert result.lift.tolist() == pytest.approx([1] * 4, rel=1e-5)


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
    assert float(result.score) == 0
    assert result.lift.isnan().all()
    assert result.rank.isnan().all()


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
