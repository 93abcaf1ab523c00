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
LEVEL = 0.05
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


def p_value(resampled: NDArray[np.float64]) -> float:
    """Two-sided, of no difference, from the resamplings of a difference (NaN ones left out)."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return 1.0
    below, above = (finite <= 0).sum(), (finite >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(finite) + 1)))


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted for their number (Holm 1979); none for none."""
    from statsmodels.stats.multitest import multipletests

    return [float(v) for v in multipletests(p, method="holm")[1]] if len(p) else []


def detectable(resampled: NDArray[np.float64], tests: int) -> float | None:
    """The smallest true gain that such a test would have found with a power of 0.8.

    Args:
        resampled: Of the difference; its SD is the difference's standard error.
        tests: Arms that are tested: the strictest level of Holm's procedure is 0.05 / tests.

    Returns:
        In macro-F1; None where there are no two resamplings.
    """
    from scipy.stats import norm

    finite = resampled[np.isfinite(resampled)]
    if len(finite) < 2:
        return None
    return float((norm.ppf(1 - 0.025 / tests) + norm.ppf(0.8)) * finite.std(ddof=1))


@dataclass(frozen=True)
class Ranking:
    """How well probabilities rank and how true they are; means over the classes in the test.

    Attributes:
        auroc: Area under the ROC curve, one class against the others, [0, 1]; 0.5 is chance.
        auprc: Average precision, one class against the others, [0, 1].
        ece: Expected calibration error of the likeliest class, ten bins (Guo et al. 2017), [0, 1].
    """

    auroc: float
    auprc: float
    ece: float


def ranking(truth: NDArray[np.int64], chances: NDArray[np.float32]) -> Ranking | None:
    """Of (N,) classes and (N, C) probabilities; None where the test has one class alone."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    own = [truth == k for k in range(chances.shape[1])]
    present = [k for k, is_k in enumerate(own) if 0 < is_k.sum() < len(truth)]
    if not present:
        return None
    return Ranking(
        auroc=float(np.mean([roc_auc_score(own[k], chances[:, k]) for k in present])),
        auprc=float(np.mean([average_precision_score(own[k], chances[:, k]) for k in present])),
        ece=_calibration_error(chances.max(axis=1), chances.argmax(axis=1) == truth),
    )


def _calibration_error(sure: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    bins = np.minimum((sure * 10).astype(np.int64), 9)
    n = np.bincount(bins, minlength=10)
    gap = np.bincount(bins, right, 10) - np.bincount(bins, sure.astype(np.float64), 10)
    return float(np.abs(gap[n > 0]).sum() / len(sure))


def verdict(
    difference: Estimate, patients_per_class: Sequence[int], n_seeds: int, p: float = 0.0
) -> tuple[Verdict, str]:
    """What a paired difference in macro-F1 against the best non-synthetic arm allows to say.

    Args:
        difference: Synthetic arm minus rival.
        patients_per_class: Test patients with a slice of each class.
        n_seeds: Fits per arm.
        p: Of the difference, adjusted for all arms that are tested.

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
    if p >= LEVEL:
        return "NO EVIDENCE", (
            f"the interval lies above 0, but with all arms counted p is {p:.2g} (Holm)"
        )
    return "HELPS", "the interval of the difference lies above 0"
