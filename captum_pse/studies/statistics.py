"""Means over pairs with their intervals, and tests, by scipy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: Below it no test can tell anything: with five pairs, even if all agree, the signed
#: rank test has p = 0.06. Nor are there intervals that deserve the name.
MIN_PAIRS = 6
RESAMPLES = 9999
LEVEL = 0.95


def known(values: Iterable[float | None]) -> npt.NDArray[np.float64]:
    """The values that exist: neither None nor NaN."""
    return np.array([v for v in values if v is not None and not math.isnan(v)])


def mean_interval(values: Iterable[float | None], seed: int) -> dict[str, Any]:
    """The mean over pairs and its 95 % bootstrap interval.

    Args:
        values (iterable of float or None): One a pair; None and NaN are left out, and
            not counted.
        seed (int): Of the resampling, of which there are 9999; percentiles are taken.

    Returns:
        *dict*: ``mean``, ``low``, ``high``, ``pairs``; None stands for a number that
        does not exist: a mean of no pairs, an interval of fewer than
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
    """As :func:`mean_interval`, of values that are 0 or 1: Wilson's interval, since
    pairs that all agree leave a bootstrap nothing to vary."""
    from scipy.stats import binomtest

    there = known(values)
    n, k = len(there), int(there.sum())
    low = high = None
    if n >= MIN_PAIRS:
        found = binomtest(k, n).proportion_ci(LEVEL, method="wilson")
        low, high = float(found.low), float(found.high)
    return {"mean": k / n if n else None, "low": low, "high": high, "pairs": n}


class SignedRank(NamedTuple):
    """Attributes:
    p (float or None): Two-sided; None where there are too few values.
    direction (int): 1 where the ranks lie above 0, -1 below, 0 for neither.
    """

    p: float | None
    direction: int


def signed_rank(values: Iterable[float | None], seed: int) -> SignedRank:
    """Wilcoxon's test that values, one a pair, lie around 0; by permutation, of all
    signs for up to 13 values that are not 0, else of 9999 at random.

    The direction is that of the ranks, which a mean may contradict. None, and no
    direction, where there are fewer than :data:`MIN_PAIRS` values.
    """
    from scipy.stats import PermutationMethod, rankdata, wilcoxon

    there = known(values)
    if len(there) < MIN_PAIRS:
        return SignedRank(None, 0)
    moved = there[there != 0]
    if len(moved) < 2:
        # Of one value, both signs are as likely; scipy takes two or more.
        return SignedRank(1.0, int(np.sign(moved.sum())))
    method = PermutationMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(seed))
    p = float(wilcoxon(moved, method=method).pvalue)
    balance = float((np.sign(moved) * rankdata(np.abs(moved))).sum())
    return SignedRank(p, int(np.sign(balance)))
