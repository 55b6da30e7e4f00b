"""Intervals, tests and correlations, computed with scipy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Smallest number of pairs for a test. With five pairs, the p-value of the signed-rank
#: test is at least 0.06, even if all of them have the same sign.
MIN_PAIRS = 6
#: Number of resamples of the bootstrap and of the signed-rank test.
RESAMPLES = 9999
#: The confidence level of every interval.
LEVEL = 0.95


def known(values: Iterable[float | None]) -> Array:
    """The values that are neither None nor NaN."""
    return np.array([v for v in values if v is not None and not math.isnan(v)])


def mean_interval(values: Iterable[float | None], seed: int) -> dict[str, Any]:
    """The mean over pairs and its 95 % bootstrap interval.

    Args:
        values (iterable of float or None): One value for each pair. None and NaN are
            left out and not counted.
        seed (int): Seed of the 9999 resamples. The interval is bounded by percentiles
            of their means.

    Returns:
        *dict*: ``mean``, ``low``, ``high`` and ``pairs``. ``mean`` is None without
        pairs; ``low`` and ``high`` are None for fewer than :data:`MIN_PAIRS`.
    """
    from scipy.stats import bootstrap

    present = known(values)
    n = len(present)
    mean = float(present.mean()) if n else None
    low = high = None
    if n >= MIN_PAIRS:
        found = bootstrap(
            (present,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return {"mean": mean, "low": low, "high": high, "pairs": n}


def share_interval(values: Iterable[float | None]) -> dict[str, Any]:
    """As :func:`mean_interval` for values that are 0 or 1, with Wilson's interval. The
    bootstrap interval of equal values has width 0."""
    present = known(values)
    n, k = len(present), int(present.sum())
    low, high = wilson(k, n) if n >= MIN_PAIRS else (None, None)
    return {"mean": k / n if n else None, "low": low, "high": high, "pairs": n}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the fraction ``successes / n``."""
    from scipy.stats import binomtest

    found = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def student_reach(deviation: float, n: int, level: float = LEVEL) -> float:
    """Half the width of Student's interval of a mean of ``n`` values.

    Args:
        deviation (float): Their standard deviation, with ``n - 1`` in the denominator.
        n (int): Number of values. For fewer than 2, the width is NaN.
        level (float, optional): Confidence level, in (0, 1). Default: 0.95
    """
    from scipy.stats import t

    if n < 2:
        return math.nan
    return deviation * float(t.ppf((1 + level) / 2, n - 1)) / math.sqrt(n)


class SignedRank(NamedTuple):
    """The result of :func:`signed_rank`.

    Attributes:
        p (float or None): Two-sided p-value; None for too few values.
        direction (int): Sign of the sum of the signed ranks: 1, -1 or 0.
    """

    p: float | None
    direction: int


def signed_rank(values: Iterable[float | None], seed: int) -> SignedRank:
    """Wilcoxon's signed-rank test of values, one for each pair, against 0.

    A permutation test over the signs of the values that are not 0: all sign patterns
    for up to 13 of them, else 9999 random ones. The direction is that of the ranks,
    whose sign may differ from the mean's. For fewer than :data:`MIN_PAIRS` values,
    ``p`` is None and ``direction`` 0.
    """
    from scipy.stats import permutation_test, rankdata

    present = known(values)
    if len(present) < MIN_PAIRS:
        return SignedRank(None, 0)
    nonzero = present[present != 0]
    if len(nonzero) < 2:
        # One value: both signs are equally likely. scipy requires at least two.
        return SignedRank(1.0, int(np.sign(nonzero.sum())))
    ranks = np.sign(nonzero) * rankdata(np.abs(nonzero))

    def positive_rank_sum(values: Array, axis: int) -> Array:
        """Wilcoxon's statistic. ``scipy.stats.wilcoxon`` gives the same p, but ranks
        the values again for every permutation and takes 100 times as long."""
        sums: Array = np.maximum(values, 0).sum(axis=axis)
        return sums

    result = permutation_test(
        (ranks,),
        positive_rank_sum,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return SignedRank(float(result.pvalue), int(np.sign(ranks.sum())))


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's rho of two arrays ``(n,)``; NaN if one of them is constant."""
    return _pearson(centred_ranks(x), centred_ranks(y))


class CorrelationTest(NamedTuple):
    """A correlation and its two-sided permutation p-value; NaN if undefined."""

    rho: float
    p: float


def rank_correlation_test(
    x: Array,
    y: Array,
    permutations: int,
    rng: np.random.Generator,
    *,
    given: Array | None = None,
) -> CorrelationTest:
    """Spearman's rho of two arrays ``(n,)``, tested by permuting ``x``.

    Args:
        x (Array): The first values.
        y (Array): The second values.
        permutations (int): Number of permutations.
        rng (numpy.random.Generator): Generator of the permutations.
        given (Array, optional): A third array to control for: rho is then the
            correlation of the residuals of the ranks of ``x`` and ``y`` after
            regressing out the ranks of ``given``. Default: None
    """
    from scipy.stats import permutation_test

    x, y = centred_ranks(x), centred_ranks(y)
    if given is not None:
        z = centred_ranks(given)
        x, y = _residuals(x, z), _residuals(y, z)
    size = _size(x, y)
    if size == 0:
        return CorrelationTest(math.nan, math.nan)

    def correlation(values: Array, axis: int) -> Array:
        rho: Array = values @ y / size
        return rho

    result = permutation_test(
        (x,),
        correlation,
        permutation_type="pairings",
        n_resamples=permutations,
        vectorized=True,
        batch=1000,
        rng=rng,
    )
    return CorrelationTest(float(result.statistic), float(result.pvalue))


def enrichment(found: int, chosen: int, special: int, n: int) -> float:
    """The one-sided hypergeometric p-value of an overlap.

    It is the probability that ``chosen`` items, drawn at random from ``n`` items with
    ``special`` special ones, contain at least ``found`` of the special ones; NaN if
    ``special`` is 0.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.sf(found - 1, n, special, chosen)) if special else math.nan


def adjusted(ps: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted by Benjamini and Hochberg's method. None and NaN are kept and
    not counted as tests."""
    from scipy.stats import false_discovery_control

    values = list(ps)
    tested = [i for i, p in enumerate(values) if p is not None and not math.isnan(p)]
    if tested:
        corrected = false_discovery_control([values[i] for i in tested]).tolist()
        for i, p in zip(tested, corrected, strict=True):
            values[i] = p
    return values


def centred_ranks(values: Array) -> Array:
    """Ranks minus their mean; ties get the mean of their ranks."""
    from scipy.stats import rankdata

    ranks: Array = rankdata(values)
    return ranks - ranks.mean()


def _pearson(x: Array, y: Array) -> float:
    size = _size(x, y)
    return float(x @ y / size) if size else math.nan


def _size(x: Array, y: Array) -> float:
    """The product of the norms; 0 if one of them is 0 up to rounding."""
    size = float(np.sqrt((x @ x) * (y @ y)))
    return size if size > 1e-9 * len(x) else 0.0


def _residuals(values: Array, other: Array) -> Array:
    """The residuals of a linear regression on ``other``; both arrays are centred."""
    size = float(other @ other)
    if size == 0:
        return values
    residuals: Array = values - other * (values @ other / size)
    return residuals
