"""Means with patients as clusters, Welch, TOST, effect size and power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.weightstats import ttest_ind, ttost_ind

from fastgan_aug.quality.statistics.means import (
    bootstrap_weights,
    hedges_g,
    mean_of,
    tost_difference,
    tost_power,
    tost_power_at,
    tost_ratio,
    welch,
)

DRAWS = 2000
# Of a share that is 0.05, over 2,000 draws: three standard deviations.
NOISE = 3 * (0.05 * 0.95 / DRAWS) ** 0.5


@pytest.fixture
def sides() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(0.52, 0.05, 37), random.normal(0.51, 0.08, 52)


def clustered(random: np.random.Generator, patients: int, slices: int) -> np.ndarray:
    """(patients * slices,) of mean 0 and variance 1, half of it between patients."""
    own = np.repeat(random.normal(0, 0.5**0.5, patients), slices)
    return own + random.normal(0, 0.5**0.5, len(own))


# -- against other implementations -----------------------------------------------------------------


def test_mean_is_the_usual_one_and_the_clustered_error_statsmodels(sides):
    x = sides[1]
    mean = mean_of(x)
    assert (mean.n, mean.clusters, mean.df) == (52, 52, 51)
    assert mean.mean == pytest.approx(x.mean())
    assert mean.se == pytest.approx(x.std(ddof=1) / 52**0.5)
    assert mean.effective_n == pytest.approx(52)
    owner = np.arange(52) // 4
    fit = OLS(x, np.ones(52)).fit(
        cov_type="cluster", cov_kwds={"groups": owner, "use_correction": False}
    )
    wanted = fit.bse[0] * (13 / 12) ** 0.5
    assert mean_of(x, owner).se == pytest.approx(wanted, rel=1e-9)
    # Whatever the patients' names and the slices' order.
    order = np.random.default_rng(1).permutation(52)
    named = np.char.add("p", owner.astype(str))[order]
    assert mean_of(x[order], named).se == pytest.approx(wanted, rel=1e-9)


def test_welch_is_scipys(sides):
    got = welch(mean_of(sides[0]), mean_of(sides[1]))
    wanted = stats.ttest_ind(*sides, equal_var=False)
    interval = wanted.confidence_interval(0.95)
    assert (got.t, got.p, got.df) == pytest.approx((wanted.statistic, wanted.pvalue, wanted.df))
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("margin", [(-0.02, 0.02), (-0.05, 0.03), (0.0, 0.1)])
def test_tost_of_a_difference_is_statsmodels(sides, margin: tuple[float, float]):
    got = tost_difference(mean_of(sides[0]), mean_of(sides[1]), margin)
    p, _, _ = ttost_ind(*sides, *margin, usevar="unequal")
    assert got.p == pytest.approx(p)
    inside = margin[0] < got.low and got.high < margin[1]
    assert got.passes == inside == (p < 0.05)


@pytest.mark.parametrize("margin", [(0.95, 1.05), (0.9, 1.1), (0.99, 1.2)])
def test_tost_of_a_ratio_is_statsmodels_on_scaled_sides(sides, margin: tuple[float, float]):
    one, other = sides
    got = tost_ratio(mean_of(one), mean_of(other), margin)
    above = ttest_ind(one, margin[0] * other, alternative="larger", usevar="unequal")[1]
    below = ttest_ind(one, margin[1] * other, alternative="smaller", usevar="unequal")[1]
    assert got.p == pytest.approx(max(above, below))
    assert got.estimate == pytest.approx(one.mean() / other.mean())
    assert got.low < got.estimate < got.high


def test_the_ratios_interval_ends_where_the_test_turns(sides):
    one, other = mean_of(sides[0]), mean_of(sides[1])
    found = tost_ratio(one, other, (0.95, 1.05))
    for margin in ((found.low, 2.0), (0.5, found.high)):
        # Fieller's interval takes the df at ratio 1, the test at its margin: nearly the same.
        assert tost_ratio(one, other, margin).p == pytest.approx(0.05, abs=0.002)


def test_hedges_g_by_hand(sides):
    one, other = sides
    got = hedges_g(mean_of(one), mean_of(other))
    pooled = ((36 * one.var(ddof=1) + 51 * other.var(ddof=1)) / 87) ** 0.5
    g = (1 - 3 / (4 * 87 - 1)) * (one.mean() - other.mean()) / pooled
    error = (1 / 37 + 1 / 52 + g**2 / (2 * 89)) ** 0.5
    half = 1.959964 * error
    assert (got.g, got.low, got.high) == pytest.approx((g, g - half, g + half))
    wide = hedges_g(mean_of(one), mean_of(np.repeat(other, 4), np.repeat(np.arange(52), 4)))
    assert wide.high - wide.low == pytest.approx(got.high - got.low, rel=0.03)


# -- what they promise -----------------------------------------------------------------------------


def test_type_one_error_of_independent_values():
    random = np.random.default_rng(1)
    a, b = random.normal(1, 0.1, (DRAWS, 44)), random.normal(1, 0.2, (DRAWS, 66))
    means = [(mean_of(x), mean_of(y)) for x, y in zip(a, b, strict=True)]
    assert np.mean([welch(*m).p < 0.05 for m in means]) == pytest.approx(0.05, abs=NOISE)
    # The means lie on the margin itself: not equivalent.
    assert np.mean([tost_difference(*m, (-0.3, 0.0)).passes for m in means]) <= 0.05 + NOISE
    assert np.mean([tost_ratio(*m, (0.7, 1.0)).passes for m in means]) <= 0.05 + NOISE


def test_type_one_error_of_slices_in_patients():
    """The naive test exceeds its level: the paper's case. The clustered one keeps it."""
    random = np.random.default_rng(2)
    owner = np.repeat(np.arange(40), 4)
    naive = {"welch": [], "tost": []}
    robust = {"welch": [], "tost": []}
    for _ in range(DRAWS):
        real, made = clustered(random, 40, 4), random.normal(0, 1, 160)
        for found, clusters in ((naive, None), (robust, owner)):
            sides = mean_of(made), mean_of(real, clusters)
            found["welch"].append(welch(*sides).p < 0.05)
            found["tost"].append(tost_difference(*sides, (-0.6, 0.0)).passes)
    assert np.mean(naive["welch"]) > 0.10
    assert np.mean(naive["tost"]) > 0.08
    # Cluster-robust errors of 40 patients are a little small: 1 point is allowed.
    assert np.mean(robust["welch"]) <= 0.06 + NOISE
    assert np.mean(robust["tost"]) <= 0.06 + NOISE


@pytest.mark.parametrize(("n", "known"), [(44, 0.52), (52, 0.63), (66, 0.78)])
def test_power_at_the_papers_counts(n: int, known: float):
    """Half a standard deviation as margin; 200 draws, three standard deviations."""
    random = np.random.default_rng(n)
    a, b = random.normal(0, 1, (2, 200, n))
    passed = np.mean(
        [tost_difference(mean_of(x), mean_of(y), (-0.5, 0.5)).passes
         for x, y in zip(a, b, strict=True)]
    )  # fmt: skip
    power = tost_power_at(n, 1.0, 0.5)
    assert power == pytest.approx(known, abs=0.02)
    assert passed == pytest.approx(power, abs=3 * (0.25 / 200) ** 0.5)


@pytest.mark.parametrize(
    ("n", "sd", "margin"), [(44, 0.3, 0.02), (248, 0.1, 0.02), (2000, 0.1, 0.02)]
)
def test_two_percent_never_passes_at_a_clinics_counts(n: int, sd: float, margin: float):
    power = tost_power_at(n, sd, margin)
    assert power > 0.99 if n == 2000 else power < 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("n", "difference"), [(8, 0.0), (20, 0.1), (100, 0.2)])
def test_analytic_power_is_the_simulated_one(n: int, difference: float):
    random, draws = np.random.default_rng(n), 40_000
    a, b = random.normal(difference, 1, (draws, n)), random.normal(0, 1, (draws, n))
    se = np.sqrt((a.var(axis=1, ddof=1) + b.var(axis=1, ddof=1)) / n)
    reach = stats.t.ppf(0.95, 2 * n - 2) * se
    apart = a.mean(axis=1) - b.mean(axis=1)
    simulated = np.mean((apart - reach > -0.7) & (apart + reach < 0.7))
    power = tost_power((2 / n) ** 0.5, 2 * n - 2, (-0.7, 0.7), difference)
    assert power == pytest.approx(simulated, abs=0.01)


def test_power_grows_with_everything_that_helps():
    assert tost_power_at(20, 1, 0.5) < tost_power_at(40, 1, 0.5) < tost_power_at(40, 1, 0.8)
    assert tost_power(0.1, 30, (-0.5, 0.5)) > tost_power(0.1, 30, (-0.5, 0.5), 0.4)
    assert tost_power(0.1, 30, (-0.5, 0.5), 0.5) == pytest.approx(0.05, abs=1e-4)
    assert tost_power(0.1, 30, (-0.5, 0.5), 9.0) == pytest.approx(0)


# -- the poor cases --------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 2.0], [np.nan, np.inf]])
def test_too_few_values_pass_nothing(values: list[float]):
    few, many = mean_of(np.asarray(values)), mean_of(np.arange(9.0))
    assert not few.known
    assert np.isnan(welch(few, many).p)
    for pair in ((few, many), (many, few)):
        for test in (tost_difference(*pair, (-9, 9)), tost_ratio(*pair, (0.1, 9))):
            assert np.isnan(test.p)
            assert not test.passes
        assert np.isnan(hedges_g(*pair).g)
    assert np.isnan(tost_power_at(1, 1.0, 1.0))


def test_one_patient_has_no_error_and_nans_are_left_out():
    assert not mean_of(np.arange(5.0), np.zeros(5)).known
    with_nan = mean_of(np.asarray([1, np.nan, 3, 4]), np.asarray(["a", "a", "b", "c"]))
    assert with_nan == mean_of(np.asarray([1.0, 3, 4]))


def test_nothing_varies():
    one, same, other = (mean_of(np.full(4, v)) for v in (1.0, 1.0, 2.0))
    assert tost_difference(one, same, (-0.1, 0.1)).p == 0
    assert tost_ratio(one, same, (0.9, 1.1)).passes
    assert tost_difference(one, other, (-0.1, 0.1)).p == 1
    assert (welch(one, same).p, welch(one, other).p) == (1, 0)
    assert (hedges_g(one, same).g, hedges_g(one, other).g) == (0, -np.inf)


def test_a_mean_that_may_be_zero_has_no_ratio():
    around_zero = mean_of(np.asarray([-1.0, 1.1, 0.2, -0.2]))
    found = tost_ratio(mean_of(np.arange(1.0, 5)), around_zero, (0.9, 1.1))
    assert not found.passes
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert np.isnan(tost_ratio(mean_of(np.arange(4.0)), mean_of(-np.arange(4.0)), (0.9, 1.1)).p)


def test_bootstrap_draws_as_many_patients_as_there_are():
    weights = bootstrap_weights(np.asarray(["a", "b", "b", "c"]), 50, seed=1)
    assert weights.shape == (50, 3)
    assert (weights.sum(axis=1) == 3).all()
    assert np.array_equal(weights, bootstrap_weights(np.asarray([0, 1, 1, 2]), 50, seed=1))
