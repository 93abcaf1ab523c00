"""Laws of the ratio's interval: it covers, and is undefined where the denominator may be 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from downstream.statistics.fieller import fieller


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1, 1), st.floats(-1, 1), st.integers(2, 30))
def test_defined_exactly_where_the_denominators_interval_leaves_0_out_above(
    seed: int, top: float, bottom: float, df: int
) -> None:
    root = np.random.default_rng(seed).normal(0, 0.2, (2, 2))
    covariance = root @ root.T + 1e-9 * np.eye(2)
    found = fieller(top, bottom, covariance, df)
    low = bottom - stats.t.ppf(0.975, df) * np.sqrt(covariance[1, 1])
    assert (found.value is not None) == (low > 0)
    if found.value is None:
        assert found.reason
        assert found.low is found.high is None
    else:
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
        assert found.value == pytest.approx(top / bottom)


def test_its_ends_are_where_the_test_of_the_ratio_turns() -> None:
    covariance, df = np.asarray([[4e-4, 1e-4], [1e-4, 3e-4]]), 4
    found = fieller(0.05, 0.1, covariance, df)
    for end in (found.low, found.high):
        assert end is not None
        weights = np.asarray([1, -end])
        t = (0.05 - end * 0.1) / np.sqrt(weights @ covariance @ weights)
        assert abs(t) == pytest.approx(stats.t.ppf(0.975, df))


def test_covers_the_true_ratio() -> None:
    random, held, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        pairs = random.multivariate_normal([0.05, 0.1], [[4e-4, 2e-4], [2e-4, 3e-4]], 6)
        found = fieller(*pairs.mean(axis=0), np.cov(pairs.T) / 6, 5)
        held += found.low is not None and found.low <= 0.5 <= (found.high or 0)
    assert 0.92 <= held / runs <= 0.98


def test_nothing_varied_is_undefined() -> None:
    assert "vary" in fieller(0.1, 0.2, np.zeros((2, 2)), 4).reason
    assert "below 0" in fieller(0.1, -0.9, 1e-4 * np.eye(2), 4).reason


def test_rounding_errors_of_equal_scores_are_no_denominator() -> None:
    covariance = np.array([[1e-4, 0.0], [0.0, 1e-36]])
    assert fieller(0.01, 1e-17, covariance, 2).value is None
