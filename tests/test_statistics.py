"""The statistics, compared with scipy, with their formulas, and by hand. How often they
are wrong on data without an effect is measured in tests/calibration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, rankdata, spearmanr, t, ttest_1samp

from captum_pse._statistics import (
    MIN_UNITS,
    centred_ranks,
    enrichment,
    mean_test,
    pairs_needed,
    partial_rank_correlation_test,
    rank_correlation,
    rank_correlation_test,
    sequential_test,
    share_interval,
    units_needed,
    without_rounding,
)

# Means


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], (None, None, None, 0)),
        ([None, math.nan], (None, None, None, 0)),
        ([2.0, None], (2.0, None, None, 1)),
        ([1.0, 2.0, 3.0, 4.0, 5.0, math.nan], (3.0, None, None, 5)),
        ([0.0] * 6, (0.0, None, None, 6)),
    ],
)
def test_means_without_an_interval(values, wanted):
    found = mean_test(values)
    mean, low, high, pairs = found.columns().values()
    assert (low, high, pairs) == wanted[1:]
    assert mean == (wanted[0] and pytest.approx(wanted[0]))
    assert found.p is None


def test_values_without_skewness_have_students_interval_and_test():
    values = np.array([-2.0, -1.0, -0.5, 0.5, 1.0, 2.0]) + 0.7
    found, wanted = mean_test(values), ttest_1samp(values, 0)
    interval = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.1, 0.1, 0.2, 0.3, 0.4, 0.9, 2.5],
        [0.0] * 7 + [0.1, 0.3],
        [0.0] * 9 + [1.0],
    ],
)
def test_skewed_values_by_the_formula(values, sign):
    values = sign * np.array(values)
    n, s = len(values), values.std(ddof=1)
    centred = values - values.mean()
    skewness = (centred**3).mean() / (centred**2).mean() ** 1.5
    skewness *= math.sqrt(n * (n - 1)) / (n - 2)

    def p(mean: float) -> float:
        """The p-value of a mean; the interval holds the means whose p is above 0.05."""
        x, a = (values.mean() - mean) / s * math.sqrt(n), skewness / math.sqrt(n)
        value = x + a * x**2 / 3 + a**2 * x**3 / 27 + a / 6
        return max(2 * t.sf(abs(v), n - 1) for v in (x, value))

    found = mean_test(values)
    assert found.p == pytest.approx(p(0))
    ends = [
        brentq(lambda mean: p(mean) - 0.05, *sorted((found.mean, found.mean + reach)))
        for reach in (-20, 20)
    ]
    assert (found.low, found.high) == pytest.approx(tuple(ends))
    assert found.low < found.mean < found.high


def test_an_interval_excludes_0_where_p_is_below_5_percent():
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = mean_test(rng.gamma(0.5, size=8) - 0.3)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_the_interval_is_cut_to_the_possible_values():
    values = [0.0] * 7 + [0.1, 0.3]
    free, cut = mean_test(values), mean_test(values, (0, 0.1))
    assert free.low < 0
    assert free.high > 0.1
    assert (cut.low, cut.high, cut.p) == (0, 0.1, free.p)


@pytest.mark.parametrize(
    "values", [[0.4] * 8, [-0.4] * 8, [1 - 2.5e-7, *[1.0] * 7]], ids=str
)
def test_equal_values_have_the_sign_test(values):
    found = mean_test(values)
    assert found.p == 2 / 2**8
    assert (found.low, found.high) == (None, None)


def test_share_interval():
    """Wilson's, by its formula; pairs that all agree have one, too."""
    for k, n in ((6, 6), (3, 10)):
        found = share_interval([1.0] * k + [0.0] * (n - k))
        z, share = norm.ppf(0.975), k / n
        centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        reach = (
            z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / 4 / n**2)
        )
        assert found["mean"] == share
        assert found["low"] == pytest.approx(centre - reach)
        assert found["high"] == pytest.approx(centre + reach)
    assert share_interval([1.0])["low"] is None


def test_pairs_needed_have_the_power():
    """By simulation: of 2000 samples of this size, 80 % are significant."""
    n = pairs_needed(0.5, 1.0, 0.05)
    assert n == 34  # as tables of sample sizes have it
    samples = np.random.default_rng(0).normal(0.5, size=(2000, n))
    power = (ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)


def test_units_needed_have_the_power():
    n = units_needed(-0.3, 0.05)
    assert n == units_needed(0.3, 0.05) == 85
    rng = np.random.default_rng(0)
    # Of Spearman's rho 0.3, for normal values.
    r = 2 * math.sin(math.pi / 6 * 0.3)
    samples = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], size=(400, n))
    found = [spearmanr(*sample.T).pvalue < 0.05 for sample in samples]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


# Correlations

X = np.array([3.0, 1.0, 2.0, 2.0, 5.0])
Y = np.array([1.0, 2.0, 2.0, 4.0, 5.0])


def test_rank_correlation_is_spearmans():
    assert rank_correlation(X, Y) == pytest.approx(spearmanr(X, Y).statistic)


@pytest.mark.parametrize(
    "constant",
    [np.zeros(5), np.full(5, 0.1), 0.1 + 1e-9 * np.arange(5.0)],
    ids=["zero", "equal", "equal but for rounding"],
)
def test_correlations_that_do_not_exist(constant):
    assert math.isnan(rank_correlation(constant, Y))
    assert math.isnan(rank_correlation_test(Y, constant, 9, np.random.default_rng()).p)


def test_values_that_differ_by_rounding_are_ties():
    eps = 8 / 255
    sizes = np.array([eps, eps + 3e-8, 0.5 * eps, eps - 3e-8])
    ranks = centred_ranks(without_rounding(sizes, 2.4e-7))
    assert ranks.tolist() == [0.5, 0.5, -1.5, 0.5]


def test_permutations_give_the_exact_p():
    """All 120 orders by hand."""
    rho = spearmanr(X, Y).statistic
    ranks = rankdata(Y)
    drawn = np.array(
        [
            np.corrcoef(order, ranks)[0, 1]
            for order in itertools.permutations(rankdata(X))
        ]
    )
    exact = 2 * min((drawn >= rho - 1e-9).mean(), (drawn <= rho + 1e-9).mean())
    found = rank_correlation_test(X, Y, 20000, np.random.default_rng(0))
    assert found.rho == pytest.approx(rho)
    assert found.p == pytest.approx(min(exact, 1), abs=0.02)


def test_partial_correlation_by_least_squares():
    rng = np.random.default_rng(0)
    n = 96
    given = rng.normal(size=n)
    x, y = (given + rng.normal(size=n) for _ in range(2))
    order, strata = np.argsort(given), np.zeros((n, 8))
    for k in range(8):
        strata[order[12 * k : 12 * (k + 1)], k] = 1
    held = np.column_stack([strata, rankdata(given)])
    left = [
        rankdata(v) - held @ np.linalg.lstsq(held, rankdata(v), rcond=None)[0]
        for v in (x, y)
    ]
    found = partial_rank_correlation_test(x, y, given, 999, rng)
    assert found.rho == pytest.approx(np.corrcoef(*left)[0, 1])
    assert found.p > 0.05
    related = partial_rank_correlation_test(x, x + 0.1 * y, given, 999, rng)
    assert related.p == pytest.approx(2 / 1000)


def test_a_shared_floor_is_no_partial_correlation():
    """Both are flat where the scale is small: a regression on its ranks alone leaves a
    correlation of them."""
    rng = np.random.default_rng(1)
    given = rng.normal(size=512)
    x, y = (np.exp(1.5 * given) + rng.normal(size=512) for _ in range(2))
    found = partial_rank_correlation_test(x, y, given, 999, rng)
    assert found.p > 0.05


def test_small_layers_have_no_partial_correlation():
    n = MIN_UNITS - 1
    values = np.random.default_rng(0).normal(size=(3, n))
    found = partial_rank_correlation_test(*values, 9, np.random.default_rng(0))
    assert math.isnan(found.rho)
    assert math.isnan(found.p)


def test_enrichment_by_counting():
    """The chosen 3 of 6 items, 2 of them special: all 20 choices by hand."""
    choices = list(itertools.combinations(range(6), 3))
    wanted = sum(len({0, 1} & set(c)) >= 2 for c in choices) / len(choices)
    assert enrichment(2, 3, 2, 6) == pytest.approx(wanted)
    assert math.isnan(enrichment(0, 3, 0, 6))


# Random sets


@pytest.mark.parametrize(
    ("value", "draws", "p", "drawn"),
    [
        # More extreme than all: (0 + 1) / (19 + 1), twice.
        (20.0, range(19), 0.1, 19),
        (-1.0, range(19), 0.1, 19),
        # In the middle: stops when both tails hold 5.
        (0.0, [1.0, -1.0] * 50, 1.0, 10),
        # All equal: one half each.
        (0.0, [0.0] * 50, 1.0, 10),
        # 5 of 25 in the upper tail; the lower one is full before.
        (0.0, [-1.0, -1.0, -1.0, -1.0, 1.0] * 20, 2 * 5 / 25, 25),
    ],
)
def test_sequential_test(value, draws, p, drawn):
    found = sequential_test(value, map(float, draws))
    assert found.p == pytest.approx(p)
    assert len(found.drawn) == drawn
