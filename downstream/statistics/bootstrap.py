"""Resampling at both levels: folds with their seeds, and the test patients of each fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from downstream.scores import balanced_accuracy, macro_f1, recalls


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    A percentile interval is widened to hold the value where it does not (few patients).
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Draws:
    """How often everything is drawn; the same for all arms, so that differences are paired.

    Attributes:
        folds: (R, F) draws of each fold; ones where there is one fold alone.
        seeds: (R, F, S) draws of each seed within each fold.
        patients: Of each fold (R, P) draws of its test patients.
    """

    folds: NDArray[np.float32]
    seeds: NDArray[np.float32]
    patients: tuple[NDArray[np.float32], ...]


def draw(n_patients: Sequence[int], n_seeds: int, resamplings: int, seed: int = 0) -> Draws:
    """Draws as many of each as there are, with replacement.

    Args:
        n_patients: Test patients of each fold.
        n_seeds: Fits of each arm in each fold.
        resamplings: R.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    n = len(n_patients)
    folds = _counts(random, resamplings, n)
    seeds = _counts(random, resamplings * n, n_seeds).reshape(resamplings, n, n_seeds)
    return Draws(folds, seeds, tuple(_counts(random, resamplings, p) for p in n_patients))


def _counts(random: np.random.Generator, rows: int, n: int) -> NDArray[np.float32]:
    """(rows, n) how often each of n is drawn in n draws."""
    drawn = random.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float32)


def resampled_scores(
    confusion: Sequence[NDArray[np.int64]], draws: Draws
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of one arm under all draws.

    Args:
        confusion: Of each fold (S, P, C, C) confusion matrices by seed and test patient.
        draws: The draws.

    Returns:
        (R, 2 + C) macro-F1, balanced accuracy and recalls, means over drawn folds and seeds, NaN
        for a class that a draw leaves without slices; (R, F, S) macro-F1 with the patients drawn
        alone.
    """
    both, patients = [], []
    for matrix, drawn, seeds in zip(
        confusion, draws.patients, draws.seeds.swapaxes(0, 1), strict=True
    ):
        scores = _metrics(_resample(matrix, drawn))
        patients.append(scores[..., 0])
        both.append(np.einsum("rs,rsm->rm", seeds, scores) / seeds.sum(axis=1)[:, None])
    return _mean_of_drawn(np.stack(both, axis=1), draws.folds), np.stack(patients, axis=1)


def _resample(matrix: NDArray[np.int64], drawn: NDArray[np.float32]) -> NDArray[np.float64]:
    """(S, P, C, C) and (R, P) to (R, S, C, C); float32 holds counts of slices exactly."""
    seeds, patients, classes, _ = matrix.shape
    flat = matrix.astype(np.float32).transpose(1, 0, 2, 3).reshape(patients, -1)
    found = (drawn @ flat).reshape(len(drawn), seeds, classes, classes)
    return np.asarray(found, np.float64)


def _metrics(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C, C) to (..., 2 + C)."""
    means = np.stack([macro_f1(matrix), balanced_accuracy(matrix)], axis=-1)
    return np.concatenate([means, recalls(matrix)], axis=-1)


def _mean_of_drawn(scores: NDArray[np.float64], folds: NDArray[np.float32]) -> NDArray[np.float64]:
    """(R, F, M) and (R, F) to (R, M), without the folds where a score is NaN."""
    weight = np.where(np.isfinite(scores), folds[..., None], 0.0)
    total = weight.sum(axis=1)
    found = (weight * np.nan_to_num(scores)).sum(axis=1)
    return np.where(total > 0, found / np.where(total > 0, total, 1), np.nan)


def estimate(value: float, resampled: NDArray[np.float64]) -> Estimate:
    """The value and the 2.5th and 97.5th percentile of its resamplings (NaN ones left out)."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return Estimate(value, value, value)
    low, high = np.percentile(finite, [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value))
