"""Laws of the tests over folds: scipy's where it has them, and sizes by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from downstream.statistics.paired import (
    LEAST_OVERLAP,
    detectable,
    holm,
    over_folds,
    paired_test,
    power,
    stated_power,
    within_fold,
)


def judged(differences: np.ndarray, ratio: float | None):  # type: ignore[no-untyped-def,type-arg]
    precision = over_folds(differences[:, None], ratio)
    return paired_test(
        float(differences.mean()), float(precision.covariance[0, 0] ** 0.5), precision.df[0]
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_independent_replicates_take_the_t_test(seed: int, n: int) -> None:
    differences = np.random.default_rng(seed).normal(0.02, 0.03, n)
    found, known = judged(differences, None), stats.ttest_1samp(differences, 0)
    interval = known.confidence_interval()
    assert found.p == pytest.approx(known.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_overlapping_folds_take_the_corrected_one() -> None:
    """Nadeau and Bengio 2003: t = mean / sqrt((1 / J + n2 / n1) s^2), J - 1 degrees of freedom."""
    differences = np.asarray([0.01, 0.05, 0.03, 0.02, 0.06])
    t = differences.mean() / np.sqrt((1 / 5 + 0.6) * differences.var(ddof=1))
    assert judged(differences, 0.6).p == pytest.approx(2 * stats.t.sf(t, 4))
    assert judged(differences, 0.25).p > judged(differences, None).p
    assert judged(differences, 0.25) == judged(differences, LEAST_OVERLAP), "never less"


def test_nothing_varied_is_nothing_shown() -> None:
    found = paired_test(0.1, 0.0, 2.0)
    assert (found.p, found.low, found.high) == (1.0, 0.1, 0.1)
    assert detectable(0.0, 2.0, 1) is None
    assert power(0.1, 0.0, 2.0, 1) == 0


def test_many_arms_are_counted() -> None:
    """Holm 1979, by hand: 3 x 0.01, 2 x 0.02, 1 x 0.03, none below the one before."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([]) == []


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1].tolist())


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_power_is_statsmodels(n: int) -> None:
    known = TTestPower().power(0.8, n, 0.05, alternative="two-sided")
    # statsmodels counts rejections on the wrong side too.
    assert power(0.8, 1 / np.sqrt(n), n - 1, 1) == pytest.approx(known, abs=0.004)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 0.1), st.floats(1.0, 40), st.integers(1, 20))
def test_the_detectable_gain_has_a_power_of_four_in_five(se: float, df: float, m: int) -> None:
    gain = detectable(se, df, m)
    assert gain is not None
    assert stated_power(gain, se, df, m) == pytest.approx(0.8, abs=1e-6)
    assert gain >= (detectable(se, df, 1) or 0) - 1e-9, "more arms never see more"


@pytest.mark.parametrize("df", [4, 9, 20])
def test_the_stated_power_is_the_true_one_on_average(df: int) -> None:
    estimated = np.sqrt(np.random.default_rng(0).chisquare(df, 300) / df)
    stated = np.mean([stated_power(2.5, float(se), df, 1) for se in estimated])
    assert stated == pytest.approx(power(2.5, 1.0, df, 1), abs=0.06)


def test_within_one_fold_patients_and_seeds_count() -> None:
    """True parts: patients 0.03, seeds 0.04, and 0.02 that each seed does to the slices."""
    random, found, runs = np.random.default_rng(0), [], 200
    for _ in range(runs):
        own, left = random.normal(0, 0.04, (5, 1)), random.normal(0, 0.02, (5, 1))
        drawn = random.normal(0, 0.03, (300, 1, 1)) + random.normal(0, 0.02, (300, 5, 1))
        found.append(within_fold(own + left, drawn, 40).covariance[0, 0])
    assert np.mean(found) == pytest.approx(0.03**2 + (0.04**2 + 0.02**2) / 5, rel=0.1)


def test_one_seed_leaves_the_patients() -> None:
    drawn = np.random.default_rng(0).normal(0, 0.03, (4000, 1, 2))
    found = within_fold(np.zeros((1, 2)), drawn, 12)
    assert found.covariance[0, 0] == pytest.approx(0.03**2, rel=0.1)
    assert found.df[0] == 11


def test_seeds_that_are_alike_leave_the_patients() -> None:
    drawn = np.random.default_rng(0).normal(0, 0.03, (4000, 1, 2)).repeat(4, axis=1)
    found = within_fold(np.zeros((4, 2)), drawn, 12)
    assert found.covariance[0, 0] == pytest.approx(0.03**2, rel=0.1)
    assert found.df[0] == pytest.approx(11)
