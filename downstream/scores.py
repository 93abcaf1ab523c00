"""Scores of predictions: by confusion matrix, by rank, by how true the probabilities are.

A class without true slices has no recall, F1, AUROC or AUPRC (NaN), and is left out of every mean
over classes: a prediction of it still costs the recall of the class that it took the slice from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10
"""Of the likeliest class's probability, in the calibration error."""


def confusions(
    truth: NDArray[np.int64],
    predicted: NDArray[np.int64],
    owner: NDArray[np.int64],
    n_classes: int,
) -> NDArray[np.int64]:
    """Confusion matrix of each patient; their sum is the confusion matrix.

    Args:
        truth: (N,) classes.
        predicted: (..., N) classes, for example of several seeds.
        owner: (N,) patients, 0 to P - 1.
        n_classes: C.

    Returns:
        (..., P, C, C): rows true, columns predicted.
    """
    lead, patients = predicted.shape[:-1], int(owner.max(initial=-1)) + 1
    place = (owner * n_classes + truth) * n_classes + predicted
    size = patients * n_classes**2
    flat = place.reshape(-1, len(truth)) + size * np.arange(int(np.prod(lead)))[:, None]
    counts = np.bincount(flat.ravel(), minlength=size * int(np.prod(lead)))
    return np.asarray(counts.reshape(*lead, patients, n_classes, n_classes), np.int64)


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


def mean_of_present(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """Mean along an axis without NaN; NaN where nothing is left."""
    present = np.isfinite(values)
    count = present.sum(axis=axis)
    total = np.where(present, values, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Ranking:
    """How well probabilities rank the slices, one class against the others.

    Attributes:
        auroc: (C,) areas under the ROC curves, [0, 1]; 0.5 is chance.
        auprc: (C,) average precisions, [0, 1]; the class's share is chance.
    """

    auroc: NDArray[np.float64]
    auprc: NDArray[np.float64]


def ranking(truth: NDArray[np.int64], chances: NDArray[np.float32]) -> Ranking:
    """Of (N,) classes and (N, C) probabilities; NaN for a class with no slice, or with all."""
    auroc, auprc = (np.full(chances.shape[1], np.nan) for _ in range(2))
    for k in range(chances.shape[1]):
        own = truth == k
        if 0 < own.sum() < len(own):
            auroc[k], auprc[k] = _areas(own, chances[:, k])
    return Ranking(auroc, auprc)


def _areas(own: NDArray[np.bool_], chances: NDArray[np.float32]) -> tuple[float, float]:
    """AUROC (Mann and Whitney's U) and average precision, from one sort; equal chances tie.

    As scikit-learn's ``roc_auc_score`` and ``average_precision_score``, whose checks of each call
    take most of its time.
    """
    order = np.argsort(-chances, kind="stable")
    last = np.flatnonzero(np.diff(chances[order], append=-np.inf))  # of each run of equal ones
    hits = np.cumsum(own[order])[last].astype(np.float64)
    misses = last + 1 - hits
    gained, lost = np.diff(hits, prepend=0), np.diff(misses, prepend=0)
    auroc = ((hits - gained / 2) * lost).sum() / (hits[-1] * misses[-1])
    auprc = (gained * hits / (hits + misses)).sum() / hits[-1]
    return float(auroc), float(auprc)


def calibration(truth: NDArray[np.int64], chances: NDArray[np.float32]) -> NDArray[np.float64]:
    """Slices, summed probability and right answers of the likeliest class, by its probability.

    Args:
        truth: (N,) classes.
        chances: (N, C) probabilities.

    Returns:
        (BINS, 3); sums of such tables are the table of all their slices.
    """
    sure = chances.max(axis=1).astype(np.float64)
    right = chances.argmax(axis=1) == truth
    bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    columns = [np.bincount(bins, w, BINS) for w in (np.ones(len(sure)), sure, right)]
    return np.stack(columns, axis=1)


def calibration_error(table: NDArray[np.float64]) -> float:
    """Expected calibration error of (BINS, 3) (Guo et al. 2017, Eq. 3), [0, 1]; NaN without any."""
    slices = float(table[:, 0].sum())
    return float(np.abs(table[:, 2] - table[:, 1]).sum() / slices) if slices else float("nan")
