"""Laws of the resampling: both levels count, and slices of one patient do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_scores import drawn

from downstream.scores import confusions, macro_f1, recalls
from downstream.statistics.bootstrap import Draws, draw, estimate, resampled_scores


def by_patient(seed: int, n: int = 200, seeds: int = 2, **more: float) -> NDArray[np.int64]:
    truth, predicted, owner = drawn(seed, n, **more)  # type: ignore[arg-type]
    return confusions(truth, np.stack([predicted] * seeds), owner, 4)


def test_drawing_everything_once_changes_nothing() -> None:
    folds = [by_patient(0), by_patient(1)]
    once = Draws(np.ones((1, 2), np.float32), np.ones((1, 2, 2), np.float32),
                 tuple(np.ones((1, m.shape[1]), np.float32) for m in folds))  # fmt: skip
    found, patients = resampled_scores(folds, once)
    whole = [m[0].sum(axis=0).astype(np.float64) for m in folds]
    assert found[0, 0] == pytest.approx(np.mean([macro_f1(w) for w in whole]))
    assert found[0, 2:] == pytest.approx(np.mean([recalls(w) for w in whole], axis=0))
    assert patients[0] == pytest.approx(np.asarray([[float(macro_f1(w))] * 2 for w in whole]))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_as_many_are_drawn_as_there_are(seed: int, folds: int, seeds: int) -> None:
    found = draw([7] * folds, seeds, 20, seed)
    assert (found.folds.sum(axis=1) == folds).all()
    assert (found.seeds.sum(axis=2) == seeds).all()
    assert all((p.sum(axis=1) == 7).all() for p in found.patients)


def test_slices_of_one_patient_do_not_narrow_the_interval() -> None:
    """Every slice tripled: by slice the interval would shrink, by patient it stays."""
    folds = [by_patient(2)]
    draws = draw([folds[0].shape[1]], 2, 500)
    one, three = (resampled_scores([times * folds[0]], draws)[0] for times in (1, 3))
    assert one == pytest.approx(three, rel=1e-6)


def test_folds_that_differ_widen_the_interval() -> None:
    alike = [by_patient(3), by_patient(3)]
    apart = [by_patient(3), by_patient(4, accuracy=0.2)]
    widths = []
    for folds in (alike, apart):
        draws = draw([m.shape[1] for m in folds], 2, 400)
        resampled = resampled_scores(folds, draws)[0][:, 0]
        found = estimate(float(resampled.mean()), resampled)
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_a_class_absent_from_a_fold_or_a_draw_is_left_out() -> None:
    folds = [by_patient(5), by_patient(6)]
    folds[0][:, :, 3] = 0
    draws = draw([m.shape[1] for m in folds], 2, 50)
    found, _ = resampled_scores(folds, draws)
    only_first = draws.folds[:, 1] == 0
    assert np.isnan(found[only_first, 5]).all()
    assert np.isfinite(found[~only_first, 5]).all()
    assert np.isfinite(found[:, 0]).all()


def test_the_interval_holds_the_estimate_and_covers_the_truth() -> None:
    inside = 0
    for seed in range(100):
        truth, predicted, owner = drawn(seed, 400, 2, 0.6)
        matrix = confusions(truth, predicted[None], owner, 2)
        draws = draw([matrix.shape[1]], 1, 200, seed)
        resampled, _ = resampled_scores([matrix], draws)
        value = float(np.mean(recalls(matrix[0].sum(axis=0).astype(np.float64))))
        found = estimate(value, resampled[:, 1])
        assert found.low <= found.value <= found.high
        inside += found.low <= 0.8 <= found.high
    assert 85 <= inside <= 100
    assert estimate(0.3, np.full(4, np.nan)).low == 0.3
