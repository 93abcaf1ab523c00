"""Laws of the scores: scikit-learn's values, intervals by patient, a verdict never forced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from downstream.scores import (
    Estimate,
    balanced_accuracy,
    confusions,
    detectable,
    estimate,
    holm,
    macro_f1,
    p_value,
    patient_draws,
    ranking,
    recalls,
    resample,
    verdict,
)

Labels = NDArray[np.int64]


def drawn(
    seed: int, n: int = 120, classes: int = 4, accuracy: float = 0.7
) -> tuple[Labels, Labels, list[str]]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    wrong = random.integers(0, classes, n)
    predicted = np.where(random.random(n) < accuracy, truth, wrong)
    return truth, predicted, [f"p{i}" for i in random.integers(0, 30, n)]


def whole(
    truth: Labels, predicted: Labels, patients: list[str], classes: int = 4
) -> NDArray[np.float64]:
    return confusions(truth, predicted, patients, classes).sum(axis=0).astype(np.float64)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 60))
def test_scores_are_scikit_learns(seed: int, n: int) -> None:
    truth, predicted, patients = drawn(seed, n)
    matrix, present = whole(truth, predicted, patients), np.unique(truth)
    expected = f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    assert float(macro_f1(matrix)) == pytest.approx(expected)
    expected = recall_score(truth, predicted, labels=present, average=None)
    assert recalls(matrix)[present] == pytest.approx(expected)
    if set(predicted) <= set(present):  # otherwise scikit-learn warns
        expected = balanced_accuracy_score(truth, predicted)
        assert float(balanced_accuracy(matrix)) == pytest.approx(expected)


def test_patients_confusions_add_up() -> None:
    truth, predicted, patients = drawn(0)
    matrix = confusions(truth, predicted, patients, 4)
    assert len(matrix) == len(set(patients))
    assert matrix.sum() == len(truth)
    first = np.asarray(patients) == sorted(set(patients))[0]
    assert np.array_equal(
        matrix[0], confusions(truth[first], predicted[first], ["x"] * first.sum(), 4)[0]
    )


def test_a_class_missing_from_the_test_is_left_out() -> None:
    matrix = np.asarray([[5, 0, 0], [0, 5, 0], [0, 0, 0]], np.float64)
    assert np.isnan(recalls(matrix)[2])
    assert float(macro_f1(matrix)) == float(balanced_accuracy(matrix)) == 1.0
    assert np.isnan(macro_f1(np.zeros((3, 3))))


def test_drawing_each_patient_once_changes_nothing() -> None:
    confusion = confusions(*drawn(1), 4)[None]
    once = np.ones((1, confusion.shape[1]), np.int64)
    assert np.array_equal(resample(confusion, once)[0, 0], confusion[0].sum(axis=0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 120))
def test_the_interval_holds_the_estimate(seed: int, n: int) -> None:
    confusion = confusions(*drawn(seed, n), 4)[None]
    draws = patient_draws(confusion.shape[1], 200)
    value = float(macro_f1(confusion.sum(axis=1).astype(np.float64)).mean())
    found = estimate(value, macro_f1(resample(confusion, draws)).mean(axis=1))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(100):
        confusion = confusions(*drawn(seed, 400, classes=2, accuracy=0.6), 2)[None]
        draws = patient_draws(confusion.shape[1], 200, seed)
        value = float(balanced_accuracy(confusion.sum(axis=1).astype(np.float64)).mean())
        found = estimate(value, balanced_accuracy(resample(confusion, draws)).mean(axis=1))
        inside += found.low <= 0.8 <= found.high
    assert 85 <= inside <= 100


def test_slices_of_one_patient_do_not_narrow_the_interval() -> None:
    """Every slice tripled: by slice the interval would shrink, by patient it stays."""
    truth, predicted, patients = drawn(2)
    widths = []
    for times in (1, 3):
        confusion = confusions(
            np.repeat(truth, times), np.repeat(predicted, times), np.repeat(patients, times), 4
        )[None]  # type: ignore[arg-type]
        scores = macro_f1(resample(confusion, patient_draws(confusion.shape[1], 500))).mean(axis=1)
        found = estimate(float(scores.mean()), scores)
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "patients", "seeds", "word"),
    [
        (0.01, 0.05, [9, 5], 3, "HELPS"),
        (0.01, 0.05, [9, 4], 3, "NO EVIDENCE"),
        (0.01, 0.05, [9, 0], 3, "NO EVIDENCE"),
        (0.01, 0.05, [9, 9], 2, "NO EVIDENCE"),
        (0.0, 0.05, [9, 9], 9, "NO EVIDENCE"),
        (-0.02, 0.05, [9, 9], 9, "NO EVIDENCE"),
        (-0.05, 0.0, [9, 9], 9, "NO EVIDENCE"),
        (-0.05, -0.01, [9, 2], 1, "HARMS"),
    ],
)
def test_the_verdict(low: float, high: float, patients: list[int], seeds: int, word: str) -> None:
    found, why = verdict(Estimate((low + high) / 2, low, high), patients, seeds)
    assert found == word
    assert why


def test_many_arms_are_counted() -> None:
    """Holm 1979, by hand: 3 x 0.01, 2 x 0.02, 1 x 0.03, none below the one before."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([]) == []
    found, why = verdict(Estimate(0.05, 0.01, 0.09), [9, 9], 5, p=0.08)
    assert found == "NO EVIDENCE"
    assert "Holm" in why


def test_no_effect_among_eight_arms_is_seldom_called_one() -> None:
    """The word is HELPS in at most 5 % of simulated reports, whichever of the arms says it."""
    random, called, runs, arms = np.random.default_rng(0), 0, 200, 8
    for _ in range(runs):
        shared = random.normal(0, 0.02, (arms, 1))  # what the test patients happened to give
        drawn = shared + random.normal(0, 0.02, (arms, 1000))
        adjusted = holm([p_value(d) for d in drawn])
        words = [
            verdict(estimate(float(s), d), [30, 30], 5, p)[0]
            for s, d, p in zip(shared[:, 0], drawn, adjusted, strict=True)
        ]
        called += "HELPS" in words
    assert called <= 0.05 * runs + 2 * np.sqrt(0.05 * 0.95 * runs)
    assert called <= 0.08 * runs


@pytest.mark.parametrize("arms", [1, 8])
def test_a_gain_is_found_with_the_power_that_is_stated(arms: int) -> None:
    random, error, found, runs = np.random.default_rng(1), 0.02, 0, 400
    gain = detectable(random.normal(0, error, 4000), arms)
    assert gain is not None
    for _ in range(runs):
        true = np.zeros(arms)
        true[0] = gain
        seen = random.normal(true, error)
        drawn = seen[:, None] + random.normal(0, error, (arms, 2000))
        found += holm([p_value(d) for d in drawn])[0] < 0.05
    assert found / runs == pytest.approx(0.8, abs=0.07)


def test_probabilities_that_rank_and_are_true() -> None:
    random = np.random.default_rng(0)
    chances = random.dirichlet(np.ones(3), 20_000).astype(np.float32)
    truth = np.asarray([random.choice(3, p=row / row.sum()) for row in chances.astype(float)])
    found = ranking(truth, chances)
    assert found is not None
    assert found.ece < 0.02  # drawn from the probabilities themselves
    assert found.auroc > 0.7
    blind = ranking(truth, np.full((20_000, 3), 1 / 3, np.float32))
    assert blind is not None
    assert blind.auroc == pytest.approx(0.5)
    assert blind.auprc == pytest.approx(1 / 3, abs=0.02)
    oversure = ranking(truth, np.eye(3, dtype=np.float32)[chances.argmax(axis=1)])
    assert oversure is not None
    assert oversure.ece > 0.2
    assert ranking(np.zeros(5, np.int64), chances[:5]) is None
