"""Means over pairs with their intervals, and tests, by scipy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

#: Below it no test can tell anything: with five pairs, even if all agree, the signed
#: rank test has p = 0.06.
MIN_PAIRS = 6
RESAMPLES = 9999
LEVEL = 0.95


def mean_interval(values: Iterable[float | None], seed: int) -> dict[str, Any]:
    """The mean over pairs and its 95 % bootstrap interval.

    Args:
        values (iterable of float or None): One a pair; None is left out, and not
            counted.
        seed (int): Of the resampling, of which there are 9999; percentiles are taken.

    Returns:
        *dict*: ``mean``, ``low``, ``high``, ``pairs``; None stands for a number that
        does not exist: a mean of no pairs, an interval of one.
    """
    from scipy.stats import bootstrap

    known = np.array([value for value in values if value is not None], dtype=float)
    n = len(known)
    mean = float(known.mean()) if n else None
    low = high = None
    if n > 1:
        found = bootstrap(
            (known,),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
    return {"mean": mean, "low": low, "high": high, "pairs": n}


def signed_rank_p(values: Iterable[float | None]) -> float | None:
    """Wilcoxon's two-sided p that values, one a pair, lie around 0; None where there
    are fewer than :data:`MIN_PAIRS`."""
    from scipy.stats import wilcoxon

    known = np.array([value for value in values if value is not None], dtype=float)
    if len(known) < MIN_PAIRS:
        return None
    if not known.any():
        return 1.0
    # By chance the same for the same values: exact for few, else a normal law.
    method = "exact" if len(known) <= 50 and _distinct(known) else "asymptotic"
    return float(wilcoxon(known, method=method).pvalue)


def fisher_p(first: float, second: float, pairs: int) -> float | None:
    """Fisher's exact two-sided p that two shares of so many pairs are the same; None
    where there are fewer than :data:`MIN_PAIRS`."""
    from scipy.stats import fisher_exact

    if pairs < MIN_PAIRS:
        return None
    a, b = round(first * pairs), round(second * pairs)
    return float(fisher_exact([[a, pairs - a], [b, pairs - b]]).pvalue)


def _distinct(values: np.ndarray[Any, Any]) -> bool:
    sizes = np.abs(values)
    return bool(sizes.all()) and len(np.unique(sizes)) == len(sizes)
