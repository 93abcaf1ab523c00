"""Laws of the scores: scikit-learn's values, and what is absent is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
    roc_auc_score,
)

from downstream.scores import (
    balanced_accuracy,
    calibration,
    calibration_error,
    confusions,
    macro_f1,
    mean_of_present,
    ranking,
    recalls,
)


def drawn(
    seed: int, n: int = 200, classes: int = 4, accuracy: float = 0.7
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=n)
    right = random.random(n) < accuracy
    predicted = np.where(right, truth, random.integers(classes, size=n))
    return truth, predicted, np.unique(random.integers(n // 4 + 1, size=n), return_inverse=True)[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(30, 200))
def test_scores_are_scikit_learns(seed: int, n: int) -> None:
    truth, predicted, owner = drawn(seed, n)
    matrix = confusions(truth, predicted, owner, 4).sum(axis=0)
    assert np.array_equal(matrix, confusion_matrix(truth, predicted, labels=range(4)))
    present = sorted(set(truth.tolist()))
    whole = matrix.astype(np.float64)
    options = {"labels": present, "average": None, "zero_division": 0}
    assert macro_f1(whole) == pytest.approx(f1_score(truth, predicted, **options).mean())
    assert recalls(whole)[present] == pytest.approx(recall_score(truth, predicted, **options))
    if set(predicted.tolist()) <= set(present):
        assert balanced_accuracy(whole) == pytest.approx(balanced_accuracy_score(truth, predicted))


def test_several_seeds_at_once_are_the_same_as_one_by_one() -> None:
    truth, _, owner = drawn(0)
    predicted = np.stack([drawn(seed)[1] for seed in range(3)])
    together = confusions(truth, predicted, owner, 4)
    for one, alone in zip(predicted, together, strict=True):
        assert np.array_equal(alone, confusions(truth, one, owner, 4))


def test_patients_confusions_add_up() -> None:
    truth, predicted, owner = drawn(0)
    matrix = confusions(truth, predicted, owner, 4)
    assert len(matrix) == len(set(owner.tolist()))
    assert matrix.sum() == len(truth)
    first = owner == 0
    assert np.array_equal(matrix[0], confusions(truth[first], predicted[first], owner[first], 4)[0])


def test_a_class_missing_from_the_test_is_left_out() -> None:
    matrix = np.asarray([[5, 0, 0], [0, 5, 0], [0, 0, 0]], np.float64)
    assert np.isnan(recalls(matrix)[2])
    assert float(macro_f1(matrix)) == float(balanced_accuracy(matrix)) == 1.0
    assert np.isnan(macro_f1(np.zeros((3, 3))))
    assert mean_of_present(np.asarray([[1.0, np.nan], [3.0, np.nan]]), axis=0)[0] == 2.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 120), st.booleans())
def test_rankings_are_scikit_learns(seed: int, n: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(3, size=n)
    chances = random.dirichlet(np.ones(4), n).astype(np.float32)
    if ties:
        chances = chances.round(1)
    found = ranking(truth, chances)
    assert np.isnan(found.auroc[3])
    assert np.isnan(found.auprc[3])
    for k in range(3):
        own = truth == k
        if 0 < own.sum() < n:
            assert found.auroc[k] == pytest.approx(roc_auc_score(own, chances[:, k]))
            assert found.auprc[k] == pytest.approx(average_precision_score(own, chances[:, k]))
        else:
            assert np.isnan(found.auroc[k])


def test_probabilities_that_are_true_have_no_calibration_error() -> None:
    truth = np.asarray([0, 0, 0, 1])
    sure = np.tile(np.asarray([[0.75, 0.25]], np.float32), (4, 1))
    assert calibration_error(calibration(truth, sure)) == pytest.approx(0)
    certain = np.tile(np.asarray([[1.0, 0.0]], np.float32), (4, 1))
    assert calibration_error(calibration(truth, certain)) == pytest.approx(0.25)
    both = calibration(truth, sure) + calibration(truth, certain)
    assert both[:, 0].sum() == 8
    assert np.isnan(calibration_error(np.zeros((10, 3))))
