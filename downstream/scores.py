"""Scores with intervals that know patients: slices of one patient are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["HELPS", "NO EVIDENCE", "HARMS"]
MINIMUM_PATIENTS = 5
"""Of every class in the test, below which nothing is said to help."""
MINIMUM_SEEDS = 3
"""Fits per arm, below which nothing is said to help: the seed's noise is not in the interval."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, by bootstrap of the test patients.

    The percentile interval is widened to hold the value where it does not (few patients).
    """

    value: float
    low: float
    high: float


def confusions(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    patients: Sequence[str],
    n_classes: int,
) -> NDArray[np.int64]:
    """Confusion matrix of each patient; their sum is the confusion matrix.

    Args:
        truth: (N,) classes.
        predicted: (N,) classes.
        patients: (N,) pseudonyms.
        n_classes: C.

    Returns:
        (patients, C, C): rows true, columns predicted; patients sorted.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    matrix = np.zeros((len(names), n_classes, n_classes), np.int64)
    np.add.at(matrix, (owner, truth, predicted), 1)
    return matrix


def recalls(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C, C) confusion to (..., C) recall, NaN for a class without true slices."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    true = matrix.sum(axis=-1)
    return np.where(true > 0, hits / np.maximum(true, 1), np.nan)


def f1_scores(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C, C) confusion to (..., C) F1 = 2 TP / (true + predicted), NaN without true slices."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted = matrix.sum(axis=-1), matrix.sum(axis=-2)
    return np.where(true > 0, 2 * hits / np.maximum(true + predicted, 1), np.nan)


def macro_f1(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C, C) confusion to the mean F1 of the classes that have true slices."""
    return mean_of_present(f1_scores(matrix))


def balanced_accuracy(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C, C) confusion to the mean recall of the classes that have true slices."""
    return mean_of_present(recalls(matrix))


def mean_of_present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean along the last axis without NaN; NaN where nothing is left."""
    present = np.isfinite(values)
    count = present.sum(axis=-1)
    total = np.where(present, values, 0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def patient_draws(n_patients: int, resamplings: int, seed: int = 0) -> NDArray[np.int64]:
    """(resamplings, patients) how often each patient is drawn; the same for all arms, so paired."""
    random = np.random.default_rng(seed)
    chances = np.full(n_patients, 1 / n_patients)
    return np.asarray(random.multinomial(n_patients, chances, size=resamplings), np.int64)


def resample(confusion: NDArray[np.int64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(seeds, patients, C, C) and (R, patients) to (R, seeds, C, C) confusion matrices."""
    drawn = np.einsum("rp,spij->rsij", draws, confusion, optimize=True)
    return np.asarray(drawn, np.float64)


def estimate(value: float, resampled: NDArray[np.float64]) -> Estimate:
    """The value and the 2.5th and 97.5th percentile of its resamplings (NaN ones left out)."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return Estimate(value, value, value)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value))


def verdict(
    difference: Estimate, patients_per_class: Sequence[int], n_seeds: int
) -> tuple[Verdict, str]:
    """What a paired difference in macro-F1 against the best non-synthetic arm allows to say.

    Args:
        difference: Synthetic arm minus rival.
        patients_per_class: Test patients with a slice of each class.
        n_seeds: Fits per arm.

    Returns:
        The word, and why. Never forced: what is not shown is NO EVIDENCE.
    """
    if difference.high < 0:
        return "HARMS", "the interval of the difference lies below 0"
    if difference.low <= 0:
        return "NO EVIDENCE", "the interval of the difference holds 0"
    if min(patients_per_class) < MINIMUM_PATIENTS:
        return "NO EVIDENCE", (
            f"the interval lies above 0, but the rarest class has {min(patients_per_class)} "
            f"test patients, fewer than {MINIMUM_PATIENTS}"
        )
    if n_seeds < MINIMUM_SEEDS:
        return "NO EVIDENCE", (
            f"the interval lies above 0, but {n_seeds} seeds are fewer than {MINIMUM_SEEDS}"
        )
    return "HELPS", "the interval of the difference lies above 0"
