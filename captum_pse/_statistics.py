"""Every interval, test and correlation of the package, by scipy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: The fewest pairs that are tested. With five pairs the signed rank test cannot get
#: below p = 0.06, even if all of them agree.
MIN_PAIRS = 6
#: Resamples of the bootstrap and of the permutation tests over pairs.
RESAMPLES = 9999
#: The confidence level of every interval.
LEVEL = 0.95


def known(values: Iterable[float | None]) -> Array:
    """The values that exist: neither None nor NaN."""
    return np.array([v for v in values if v is not None and not math.isnan(v)])


def mean_interval(values: Iterable[float | None], seed: int) -> dict[str, Any]:
    """The mean over pairs and its 95 % bootstrap interval.

    Args:
        values (iterable of float or None): One a pair. None and NaN are left out and
            not counted.
        seed (int): Seed of the 9999 resamples. The interval takes their percentiles.

    Returns:
        *dict*: ``mean``, ``low``, ``high``, ``pairs``. None stands for a number that
        does not exist: the mean of no pairs, or the interval of fewer than
        :data:`MIN_PAIRS`.
    """
    from scipy.stats import bootstrap

    there = known(values)
    n = len(there)
    mean = float(there.mean()) if n else None
    low = high = None
    if n >= MIN_PAIRS:
        found = bootstrap(
            (there,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return {"mean": mean, "low": low, "high": high, "pairs": n}


def share_interval(values: Iterable[float | None]) -> dict[str, Any]:
    """As :func:`mean_interval`, of values that are 0 or 1, with Wilson's interval: the
    bootstrap of pairs that all agree has no width."""
    there = known(values)
    n, k = len(there), int(there.sum())
    low, high = wilson(k, n) if n >= MIN_PAIRS else (None, None)
    return {"mean": k / n if n else None, "low": low, "high": high, "pairs": n}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share: ``successes`` of ``n``."""
    from scipy.stats import binomtest

    found = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def student_reach(deviation: float, n: int, level: float = LEVEL) -> float:
    """Half the width of Student's interval of a mean of ``n`` values.

    Args:
        deviation (float): Their standard deviation, with ``n - 1`` in the denominator.
        n (int): How many; for fewer than 2 the width is NaN.
        level (float, optional): The confidence level, in (0, 1). Default: 0.95
    """
    from scipy.stats import t

    if n < 2:
        return math.nan
    return deviation * float(t.ppf((1 + level) / 2, n - 1)) / math.sqrt(n)


class SignedRank(NamedTuple):
    """What :func:`signed_rank` returns.

    Attributes:
        p (float or None): Two-sided; None where there are too few values.
        direction (int): 1 where the ranks lie above 0, -1 below, 0 for neither.
    """

    p: float | None
    direction: int


def signed_rank(values: Iterable[float | None], seed: int) -> SignedRank:
    """Wilcoxon's signed rank test that values, one a pair, lie around 0.

    By permutation: of all signs for up to 13 values that are not 0, else of 9999 at
    random. The direction is that of the ranks, which the mean may contradict. There is
    no p and no direction for fewer than :data:`MIN_PAIRS` values.
    """
    from scipy.stats import PermutationMethod, rankdata, wilcoxon

    there = known(values)
    if len(there) < MIN_PAIRS:
        return SignedRank(None, 0)
    changed = there[there != 0]
    if len(changed) < 2:
        # One value: both signs are equally likely. scipy takes two or more.
        return SignedRank(1.0, int(np.sign(changed.sum())))
    method = PermutationMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(seed))
    p = float(wilcoxon(changed, method=method).pvalue)
    balance = float((np.sign(changed) * rankdata(np.abs(changed))).sum())
    return SignedRank(p, int(np.sign(balance)))


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's rho of two arrays ``(n,)``; NaN where one of them is constant."""
    return _pearson(centred_ranks(x), centred_ranks(y))


class CorrelationTest(NamedTuple):
    """A correlation and its two-sided permutation p; both NaN where undefined."""

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
    """Spearman's rho of ``(n,)`` and ``(n,)``, tested by permuting the first.

    Args:
        x (Array): The first values.
        y (Array): The second ones.
        permutations (int): How many.
        rng (numpy.random.Generator): Draws the permutations.
        given (Array, optional): Held fixed: rho is the correlation of the residuals of
            the ranks of ``x`` and ``y`` after regressing out those of ``given``.
            Default: None
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
        found: Array = values @ y / size
        return found

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
    """The one-sided hypergeometric p of ``found`` or more special ones among ``chosen``
    of ``n``, of which ``special`` are special; NaN where none is."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(found - 1, n, special, chosen)) if special else math.nan


def adjusted(ps: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted after Benjamini and Hochberg; None and NaN stay as they are and
    are not counted."""
    from scipy.stats import false_discovery_control

    values = list(ps)
    tested = [i for i, p in enumerate(values) if p is not None and not math.isnan(p)]
    if tested:
        found = false_discovery_control([values[i] for i in tested]).tolist()
        for i, p in zip(tested, found, strict=True):
            values[i] = p
    return values


def centred_ranks(values: Array) -> Array:
    """Ranks less their mean; ties share the mean of their ranks."""
    from scipy.stats import rankdata

    ranks: Array = rankdata(values)
    return ranks - ranks.mean()


def _pearson(x: Array, y: Array) -> float:
    size = _size(x, y)
    return float(x @ y / size) if size else math.nan


def _size(x: Array, y: Array) -> float:
    """The product of the norms; 0 where rounding is all that is left of one of them."""
    size = float(np.sqrt((x @ x) * (y @ y)))
    return size if size > 1e-9 * len(x) else 0.0


def _residuals(values: Array, other: Array) -> Array:
    """What a linear regression on ``other`` leaves; both centred."""
    size = float(other @ other)
    if size == 0:
        return values
    rest: Array = values - other * (values @ other / size)
    return rest
