"""How often the tests of ``relate`` and ``study`` find something where there is
nothing, and how often their intervals contain the mean.

Not part of the usual run, which takes the numbers for granted::

    pytest tests/calibration -s

Every row of the printed table is a simulation. Of data without an effect, the share
with p < 0.05 is to be in [0.02, 0.07]; less where the code says why. The share of 95 %
intervals that contain the mean is to be in [0.92, 0.98].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch.nn.functional import interpolate

from captum_pse import UnitSensitivity, interpretability_score
from captum_pse._statistics import (
    enrichment,
    mean_test,
    partial_rank_correlation_test,
    rank_correlation,
    rank_correlation_test,
    sequential_test,
    wilson,
)
from captum_pse.demo import load_model, make_pairs
from captum_pse.units.masked_accuracy import OUTCOMES, MaskedAccuracy

Rng = np.random.Generator
PAIRS = (12, 24, 40)


def row(of: str, n: object, name: str, value: float, low: float, high: float) -> None:
    """One row of the table, and the bar."""
    print(f"{of:58} {n!s:>10}  {name:8} {value:.3f}")
    assert low <= value <= high


def alarms(of: str, n: object, found: list[bool], low: float = 0.02) -> None:
    row(of, n, "p < 0.05", float(np.mean(found)), low, 0.07)


def coverage(of: str, n: object, share: float) -> None:
    row(of, n, "covers", share, 0.92, 0.98)


#: Distributions of one value for each pair, and their means.
VALUES: dict[str, tuple[Callable[[Rng, int], np.ndarray], float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0),
    "uniform": (lambda rng, n: rng.uniform(size=n), 0.5),
    "shares near 0 (beta 0.5, 3)": (lambda rng, n: rng.beta(0.5, 3, n), 0.5 / 3.5),
    "shares near 1 (beta 5, 0.8)": (lambda rng, n: rng.beta(5, 0.8, n), 5 / 5.8),
    "shares, a third of them 0": (
        lambda rng, n: rng.beta(2, 5, n) * (rng.random(n) < 2 / 3), 4 / 21
    ),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1),
    "t with 3 degrees of freedom": (lambda rng, n: rng.standard_t(3, n), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("n", [6, *PAIRS])
def test_means(name, n, runs):
    draw, mean = VALUES[name]
    rng = np.random.default_rng(0)
    tests = [mean_test(draw(rng, n) - mean) for _ in range(2 * runs)]
    # Equal values, such as six times 0, have no interval.
    found = [f for f in tests if f.low is not None]
    assert len(found) > 0.99 * len(tests)
    share = np.mean([f.low <= 0 <= f.high for f in found])
    coverage(f"mean, {name}", n, share)
    alarms(f"test of the mean, {name}", n, [f.p < 0.05 for f in found])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("n", PAIRS)
def test_fractions_of_pairs(share, n):
    """All outcomes, not a simulation."""
    covers = [
        low <= share <= high for low, high in (wilson(k, n) for k in range(n + 1))
    ]
    chances = binom.pmf(range(n + 1), n, share)
    of = f"fraction of pairs, {share}"
    # Discrete: 12 pairs can cover more.
    row(of, n, "covers", float(chances @ covers), 0.92, 0.985)


@pytest.mark.parametrize("n", PAIRS)
def test_sensitivities(n, runs):
    """Of norms of normal changes, by Student's interval."""
    changes = np.random.default_rng(0).normal(size=(4, n, runs))
    norms = torch.tensor(np.linalg.norm(changes, axis=0))
    unknown = torch.zeros(runs)
    sensitivity = UnitSensitivity(
        "layer", "l2", n, norms.mean(0), norms.std(0), unknown, unknown
    )
    low, high = sensitivity.interval()
    mean = 1.8799712  # of chi with 4 degrees of freedom
    coverage(
        "sensitivity of a unit",
        n,
        float(((low <= mean) & (mean <= high)).double().mean()),
    )


@pytest.mark.parametrize("n", PAIRS)
def test_effect_and_perturbation(n, runs):
    """49 groups, whose effect has nothing to do with |delta|."""
    rng = np.random.default_rng(0)

    def study() -> bool:
        rhos = [
            rank_correlation(rng.exponential(size=49), rng.exponential(size=49))
            for _ in range(n)
        ]
        return mean_test(rhos).p < 0.05

    alarms("correlation of effect and |delta|", n, [study() for _ in range(runs // 2)])


@pytest.mark.parametrize("n", PAIRS)
def test_fractions_needed(n, runs):
    """Two rankings that need as many groups on average."""
    rng = np.random.default_rng(0)
    for on, grid in (("a line", lambda x: x), ("tenths", lambda x: x.round(1))):
        tests = [
            mean_test(grid(rng.beta(0.5, 8, n)) - grid(rng.beta(0.5, 8, n)))
            for _ in range(runs)
        ]
        found = [(test.p or 1) < 0.05 for test in tests]
        alarms(f"fractions of groups needed, on {on}", n, found)


def smooth_maps(n: int) -> torch.Tensor:
    """As class maps are: 8 x 8 values, interpolated."""
    coarse = torch.rand(n, 1, 8, 8) ** 3
    return interpolate(coarse, (64, 64), mode="bilinear", align_corners=False)


def patches(n: int) -> torch.Tensor:
    delta = torch.zeros(n, 3, 64, 64)
    for one, (i, j) in zip(delta, torch.randint(0, 57, (n, 2)).tolist(), strict=True):
        one[:, i : i + 8, j : j + 8] = torch.randn(3, 8, 8)
    return delta


PERTURBATIONS = {
    "noise": lambda n: torch.randn(n, 3, 64, 64),
    "a patch of 8 x 8": patches,
    "smooth noise": lambda n: interpolate(torch.randn(n, 3, 8, 8), (64, 64)),
}


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("n", PAIRS)
def test_interpretability_scores(name, n, runs):
    torch.manual_seed(0)
    pool = 4 * runs
    found = torch.cat(
        [
            interpretability_score(smooth_maps(200), PERTURBATIONS[name](200)).rank
            for _ in range(max(pool // 200, 1))
        ]
    ).numpy()
    rng = np.random.default_rng(0)
    ps = [mean_test(2 * rng.choice(found, n) - 1).p for _ in range(runs)]
    # Of 12 ranks that are equally likely, the stricter of two tests finds little.
    low = 0.005 if n == 12 else 0.02
    of = f"rank of the interpretability score, {name}"
    alarms(of, n, [p < 0.05 for p in ps], low)


def test_constant_perturbations_have_no_test():
    """FGSM: the score of every shift is the same but for rounding."""
    torch.manual_seed(0)
    natural = torch.rand(24, 3, 64, 64)
    adversarial = natural + 8 / 255 * torch.randn_like(natural).sign()
    found = interpretability_score(smooth_maps(24), adversarial - natural)
    assert (found.rank == 0.5).all()
    assert mean_test((2 * found.rank - 1).tolist()).p is None


@pytest.mark.parametrize("layer", ["features.conv1", "features.conv4"])
@pytest.mark.parametrize("n", PAIRS)
def test_masked_units(layer, n, runs):
    """A random set in place of the sensitive units: sets are drawn from 400."""
    accuracy = MaskedAccuracy(load_model(), make_pairs(n), layer)
    units = max(1, round(0.1 * accuracy.n_units))
    rng = np.random.default_rng(0)
    pool = [
        float(accuracy.outcomes(rng.permutation(accuracy.n_units)[:units].tolist())[1].mean())
        for _ in range(400)
    ]  # fmt: skip
    assert OUTCOMES[1] == "adversarial"
    found = []
    for _ in range(runs):
        value, *others = rng.choice(pool, 200, replace=False)
        found.append(sequential_test(value, others).p < 0.05)
    of = f"masked units of {layer}, {len(set(pool))} different accuracies"
    alarms(of, n, found, low=0.0 if len(set(pool)) < 10 else 0.02)


#: How sensitivity and IoU follow the scale; given the scale, they are independent.
SCALES: dict[str, Callable[[Rng, np.ndarray], np.ndarray]] = {
    "not at all": lambda rng, z: rng.normal(size=len(z)),
    "linearly": lambda rng, z: z + rng.normal(size=len(z)),
    "closely": lambda rng, z: z + 0.3 * rng.normal(size=len(z)),
    "above a floor": lambda rng, z: np.exp(1.5 * z) + rng.normal(size=len(z)),
    "by a factor": lambda rng, z: np.exp(z) * rng.gamma(4, size=len(z)),
}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("units", [64, 256, 512])
def test_units_of_similar_scale(name, units, runs):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(runs // 2):
        scale = rng.normal(size=units)
        x, y = (SCALES[name](rng, scale) for _ in range(2))
        found.append(partial_rank_correlation_test(x, y, scale, 199, rng).p < 0.05)
    alarms(f"partial correlation, follow the scale {name}", f"{units} units", found)


@pytest.mark.parametrize("units", [12, 64, 256])
def test_sensitive_units_are_interpretable(units, runs):
    rng = np.random.default_rng(0)
    found = [
        rank_correlation_test(*rng.exponential(size=(2, units)), 199, rng).p < 0.05
        for _ in range(runs)
    ]
    alarms("correlation of sensitivity and IoU", f"{units} units", found)


@pytest.mark.parametrize(
    ("units", "detectors", "top"),
    [(64, 8, 10), (96, 20, 10), (96, 30, 20), (256, 40, 20), (512, 100, 50)],
)
def test_enrichment(units, detectors, top, runs):
    rng = np.random.default_rng(0)
    counts = rng.hypergeometric(detectors, units - detectors, top, 10 * runs)
    found = [
        enrichment(count, top, detectors, units) < 0.05 for count in counts.tolist()
    ]
    of = f"enrichment, {detectors} detectors in {units}"
    alarms(of, f"top {top}", found, low=0.01)
