"""Intervals, tests and correlations, computed with scipy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Smallest number of pairs for an interval or a test.
MIN_PAIRS = 6
#: The confidence level of every interval.
LEVEL = 0.95
#: The power at which :func:`pairs_needed` wants an effect to be found.
POWER = 0.8
#: Values that differ by less than this part of the largest are the same: the rest is
#: rounding.
SAME = 1e-6
#: Number of units of similar scale in a stratum, and of units that a layer needs for
#: strata.
STRATUM, MIN_UNITS = 12, 64

#: Values as extreme as the one tested, after which drawing stops.
_TAIL = 5
_TIE = 1e-12
#: Permutations in one array.
_BATCH = 1000


def known(values: Iterable[float | None]) -> Array:
    """The values that are neither None nor NaN."""
    return np.array([v for v in values if v is not None and not math.isnan(v)])


class MeanTest(NamedTuple):
    """The result of :func:`mean_test`.

    Attributes:
        mean (float or None): The mean over pairs; None without pairs.
        low, high (float or None): The ends of its 95 % interval; None for fewer than 6
            pairs, or if all have the same value.
        p (float or None): Two-sided p-value of the mean against 0; None for fewer than
            6 pairs, or if all are 0. It is below 0.05 if and only if
            the interval excludes 0.
        pairs (int): Number of pairs with a value.
        deviation (float): The standard deviation over pairs; NaN for fewer than 2.
    """

    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    pairs: int
    deviation: float

    def columns(self) -> dict[str, Any]:
        """``mean``, ``low``, ``high`` and ``pairs``, for a row of a table."""
        return {"mean": self.mean, "low": self.low, "high": self.high,
                "pairs": self.pairs}  # fmt: skip


def mean_test(
    values: Iterable[float | None], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> MeanTest:
    r"""The mean of one value for each pair, its interval and its test against 0.

    Two tests are combined: Student's, and the same corrected for the skewness
    :math:`\hat\gamma` of the values,

    .. math::
        t = \frac{\bar x - \mu}{s / \sqrt n}, \qquad a = \hat\gamma / \sqrt n, \qquad
        T = t + \frac{a t^2}{3} + \frac{a^2 t^3}{27} + \frac a 6,

    both compared with Student's distribution of :math:`n - 1` degrees of freedom. Few
    skewed values make the first one find too much, values with many ties the second.
    So p is the larger of both, and the interval covers both. If all values are the same
    and not 0, p is that of the sign test. ``tests/calibration`` shows how often the
    interval contains the mean.

    Source: Hall, "On the removal of skewness by transformation", Journal of the Royal
    Statistical Society B, 1992.

    Args:
        values (iterable of float or None): One value for each pair. None and NaN are
            left out and not counted.
        bounds (tuple[float, float], optional): The range of possible values, to which
            the interval is cut. Default: no bounds
    """
    from scipy.stats import skew, t

    present = known(values)
    n = len(present)
    mean = float(present.mean()) if n else None
    deviation = float(present.std(ddof=1)) if n > 1 else math.nan
    if mean is None or n < MIN_PAIRS:
        return MeanTest(mean, None, None, None, n, deviation)
    if is_constant(present):
        return MeanTest(mean, None, None, 2.0 ** (1 - n) if mean else None, n, 0.0)
    error = deviation / math.sqrt(n)
    a = float(skew(present, bias=False)) / math.sqrt(n)
    reach = float(t.ppf((1 + LEVEL) / 2, n - 1))
    low = mean - error * max(reach, _of_transformed(reach, a))
    high = mean - error * min(-reach, _of_transformed(-reach, a))
    of_mean = mean / error
    least = min(abs(of_mean), abs(_transformed(of_mean, a)))
    p = 2 * float(t.sf(least, n - 1))
    return MeanTest(mean, max(low, bounds[0]), min(high, bounds[1]), p, n, deviation)


def _transformed(t: float, a: float) -> float:
    """Hall's monotone cubic of a t statistic; see :func:`mean_test`."""
    return t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6


def _of_transformed(value: float, a: float) -> float:
    """The inverse of :func:`_transformed`."""
    if abs(a) < 1e-6:
        return value - a / 6
    return 3 / a * (float(np.cbrt(1 + a * (value - a / 6))) - 1)


def is_constant(values: Array) -> bool:
    """Whether the values are the same but for rounding; see :data:`SAME`."""
    return len(values) < 2 or bool(np.ptp(values) <= SAME * np.abs(values).max())


def pairs_needed(effect: float, deviation: float, level: float) -> int:
    r"""The number of pairs at which a test finds a mean with a power of 80 %.

    It is :math:`(z_{1 - \alpha/2} + z_{0.8})^2 s^2 / m^2 + z_{1 - \alpha/2}^2 / 2`.

    Source: Guenther, "Sample size formulas for normal theory t tests", The American
    Statistician, 1981.

    Args:
        effect (float): The mean m.
        deviation (float): The standard deviation s over pairs.
        level (float): The significance level :math:`\alpha`.
    """
    from scipy.stats import norm

    z = float(norm.isf(level / 2))
    needed = ((z + float(norm.ppf(POWER))) * deviation / effect) ** 2 + z**2 / 2
    return max(math.ceil(needed), MIN_PAIRS)


def units_needed(rho: float, level: float) -> int:
    """The number of units at which a test finds a rank correlation with a power of
    80 %, by Fisher's transformation."""
    from scipy.stats import norm

    z = float(norm.isf(level / 2)) + float(norm.ppf(POWER))
    return math.ceil((z / math.atanh(min(abs(rho), 0.999))) ** 2 + 3)


def share_interval(values: Iterable[float | None]) -> dict[str, Any]:
    """The mean of values that are 0 or 1, one for each pair, with Wilson's interval,
    which equal values have as well; None for fewer than :data:`MIN_PAIRS` pairs."""
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


def without_rounding(values: Array, resolution: float) -> Array:
    """The values in steps of ``resolution`` below the largest, so that values which
    differ only by rounding are ties."""
    steps: Array = np.rint((values.max() - values) / resolution)
    return -steps


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's rho of two arrays ``(n,)``; NaN if one of them is constant, up to
    rounding."""
    return _pearson(centred_ranks(x), centred_ranks(y))


class CorrelationTest(NamedTuple):
    """A correlation and its two-sided permutation p-value; NaN if undefined."""

    rho: float
    p: float


def rank_correlation_test(
    x: Array, y: Array, permutations: int, rng: np.random.Generator
) -> CorrelationTest:
    """Spearman's rho of two arrays ``(n,)``, tested by permuting ``x``.

    Args:
        x (Array): The first values.
        y (Array): The second values.
        permutations (int): Number of permutations.
        rng (numpy.random.Generator): Generator of the permutations.
    """
    x, y = centred_ranks(x), centred_ranks(y)
    return _permuted(x, y, [np.arange(len(x))], permutations, rng)


def partial_rank_correlation_test(
    x: Array, y: Array, given: Array, permutations: int, rng: np.random.Generator
) -> CorrelationTest:
    """The rank correlation of units whose values of a third array are similar.

    The units are divided by ``given`` into strata of about :data:`STRATUM` units. rho
    is the correlation of the residuals of the ranks of ``x`` and ``y``, after a linear
    regression on the ranks of ``given`` and on the strata. Its test permutes the
    residuals of ``x`` within the strata. A regression on the ranks alone leaves much of
    a relation that is not linear, and finds correlations where there are none.

    Args:
        x (Array): The first values, ``(n,)``.
        y (Array): The second values.
        given (Array): The values to hold fixed.
        permutations (int): Number of permutations.
        rng (numpy.random.Generator): Generator of the permutations.

    Returns:
        *CorrelationTest*: NaN for fewer than :data:`MIN_UNITS` units, whose strata
        would be too wide, and if a value is not finite.
    """
    n = len(x)
    if n < MIN_UNITS or not np.isfinite([x, y, given]).all():
        return CorrelationTest(math.nan, math.nan)
    # Equal values have no order; drawn by lot, it has nothing to do with x or y.
    order = np.lexsort((rng.random(n), given))
    strata = np.array_split(order, 1 if is_constant(given) else n // STRATUM)
    held = np.zeros((n, len(strata) + 1))
    held[:, 0] = centred_ranks(given)
    for k, stratum in enumerate(strata):
        held[stratum, k + 1] = 1
    x, y = (_residuals(centred_ranks(values), held) for values in (x, y))
    return _permuted(x, y, strata, permutations, rng)


def _permuted(
    x: Array,
    y: Array,
    strata: Sequence[npt.NDArray[np.intp]],
    permutations: int,
    rng: np.random.Generator,
) -> CorrelationTest:
    """The correlation of centred values, tested by permuting ``x`` within strata."""
    size = _size(x, y)
    if size == 0:
        return CorrelationTest(math.nan, math.nan)
    rho = float(x @ y) / size
    higher = lower = 1
    for first in range(0, permutations, _BATCH):
        rows = np.tile(x, (min(_BATCH, permutations - first), 1))
        for stratum in strata:
            rows[:, stratum] = rng.permuted(rows[:, stratum], axis=1)
        drawn = rows @ y / size
        higher += int((drawn >= rho - _TIE).sum())
        lower += int((drawn <= rho + _TIE).sum())
    p = 2 * min(higher, lower) / (permutations + 1)
    return CorrelationTest(rho, min(p, 1.0))


class SequentialTest(NamedTuple):
    """The result of :func:`sequential_test`.

    Attributes:
        p (float): Two-sided p-value.
        drawn (list[float]): The values that were drawn.
    """

    p: float
    drawn: list[float]


def sequential_test(value: float, draws: Iterable[float]) -> SequentialTest:
    """Ranks a value among random ones, and stops when there are enough of them.

    A tail's p-value is ``5 / n`` if ``n`` draws were needed for 5 values as extreme,
    else ``(k + 1) / (n + 1)`` with the ``k`` found in all ``n`` draws. Drawing stops
    when both tails hold 5. Equal values count one half in each. The two-sided p-value
    is twice the smaller one.

    Source: Besag and Clifford, "Sequential Monte Carlo p-values", Biometrika, 1991.

    Args:
        value (float): The value to rank.
        draws (iterable of float): Random values, drawn when they are needed.
    """
    drawn: list[float] = []
    counts = {1: 0.0, -1: 0.0}
    stopped: dict[int, float] = {}
    for draw in draws:
        drawn.append(draw)
        for side in counts:
            difference = side * (draw - value)
            counts[side] += 0.5 if abs(difference) < _TIE else difference > 0
            if side not in stopped and counts[side] >= _TAIL:
                stopped[side] = counts[side] / len(drawn)
        if len(stopped) == len(counts):
            break
    ps = [stopped.get(s, (k + 1) / (len(drawn) + 1)) for s, k in counts.items()]
    return SequentialTest(min(1.0, 2 * min(ps)), drawn)


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
    """Ranks minus their mean; ties get the mean of their ranks. Values that are the
    same but for rounding have no ranks: all are 0."""
    from scipy.stats import rankdata

    ranks: Array = np.zeros(len(values)) if is_constant(values) else rankdata(values)
    return ranks - ranks.mean()


def _pearson(x: Array, y: Array) -> float:
    size = _size(x, y)
    return float(x @ y / size) if size else math.nan


def _size(x: Array, y: Array) -> float:
    """The product of the norms; 0 if one of them is 0 up to rounding."""
    size = float(np.sqrt((x @ x) * (y @ y)))
    return size if size > 1e-9 * len(x) else 0.0


def _residuals(values: Array, held: Array) -> Array:
    """The residuals of a linear regression on the columns of ``held``."""
    fitted: Array = held @ np.linalg.lstsq(held, values, rcond=None)[0]
    return values - fitted
