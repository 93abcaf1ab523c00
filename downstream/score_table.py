"""All fits of one classifier as arrays: arms x folds x seeds, resampled alike for all arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from downstream.outcome import Outcome, Truth
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
from downstream.statistics.bootstrap import Draws, draw, resampled_scores
from fastgan_aug.errors import DataError


@dataclass(frozen=True, eq=False)
class ArmTable:
    """One arm's fits.

    Attributes:
        outcomes: Of each fold, one per seed.
        macro_f1: (F, S) on the test.
        validation: (F, S) macro-F1 on the validation; NaN without one.
        balanced_accuracy: (F, S).
        recall: (F, S, C), NaN for a class without test slices.
        auroc: (F, S, C), likewise.
        auprc: (F, S, C), likewise.
        confusion: (C, C) slices of all folds, mean over the seeds.
        ece: (F, S) expected calibration error.
        calibration: (BINS, 3) sums over all fits.
        resampled: (R, 2 + C) macro-F1, balanced accuracy, recalls, both levels resampled.
        patients_resampled: (R, F, S) macro-F1, test patients resampled alone.
    """

    outcomes: tuple[tuple[Outcome, ...], ...]
    macro_f1: NDArray[np.float64]
    validation: NDArray[np.float64]
    balanced_accuracy: NDArray[np.float64]
    recall: NDArray[np.float64]
    auroc: NDArray[np.float64]
    auprc: NDArray[np.float64]
    confusion: NDArray[np.float64]
    ece: NDArray[np.float64]
    calibration: NDArray[np.float64]
    resampled: NDArray[np.float64]
    patients_resampled: NDArray[np.float64]

    @property
    def by_fold(self) -> NDArray[np.float64]:
        """(F,) macro-F1, mean over the seeds."""
        return np.asarray(self.macro_f1.mean(axis=1), np.float64)

    @property
    def value(self) -> float:
        """Macro-F1, mean over folds and seeds."""
        return float(self.macro_f1.mean())


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """All fits of one classifier.

    Attributes:
        classifier: Its name.
        folds: Numbers of the folds.
        seeds: Of the fits.
        arms: By name, in the order given.
        test_over_train: Test slices over real training slices, mean over the folds.
        rare_patients: Test patients of the rarest class in the test, the least of all folds.
    """

    classifier: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    arms: Mapping[str, ArmTable]
    test_over_train: float
    rare_patients: int


def score_table(
    outcomes: Sequence[Outcome],
    truths: Sequence[Truth],
    arms: Sequence[str],
    n_classes: int,
    *,
    resamplings: int,
    seed: int = 0,
    fixed: Collection[str] = (),
) -> ScoreTable:
    """Scores every fit of one classifier.

    Args:
        outcomes: Of one classifier, one for each fold, arm and seed.
        truths: Of every fold.
        arms: Names, in the order of the result.
        n_classes: C.
        resamplings: Of the bootstrap.
        seed: Of its draws.
        fixed: Arms that are not chosen on the validation, and may have predicted nothing there.

    Raises:
        DataError: an outcome is missing, there twice or of other slices; a test is empty.
    """
    known = {truth.fold: truth for truth in truths}
    folds = tuple(sorted({o.fold for o in outcomes}))
    seeds = tuple(sorted({o.seed for o in outcomes}))
    grid = _grid(outcomes, arms, folds, seeds)
    for outcome in grid.values():
        unasked = outcome.arm in fixed and not len(outcome.validation)
        _check_fits(outcome, known.get(outcome.fold), n_classes, unasked)
    owners = [np.unique(known[f].test_patients, return_inverse=True)[1] for f in folds]
    draws = draw([int(o.max()) + 1 for o in owners], len(seeds), resamplings, seed)
    fits = {
        arm: tuple(tuple(grid[arm, fold, seed] for seed in seeds) for fold in folds) for arm in arms
    }
    facts = [known[f] for f in folds]
    ratio = [
        len(t.test_labels) / max(1, *(grid[arm, t.fold, seeds[0]].n_real for arm in arms))
        for t in facts
    ]
    return ScoreTable(
        outcomes[0].classifier,
        folds,
        seeds,
        {arm: _arm_table(fits[arm], facts, owners, draws, n_classes) for arm in arms},
        float(np.mean(ratio)),
        min(min(n for n in patients_per_class(t, n_classes) if n) for t in facts),
    )


def patients_per_class(truth: Truth, n_classes: int) -> list[int]:
    """Test patients of a fold with a slice of each class."""
    return [len(np.unique(truth.test_patients[truth.test_labels == k])) for k in range(n_classes)]


def _grid(
    outcomes: Sequence[Outcome], arms: Sequence[str], folds: Sequence[int], seeds: Sequence[int]
) -> dict[tuple[str, int, int], Outcome]:
    found = Counter((o.arm, o.fold, o.seed) for o in outcomes)
    asked = {(arm, fold, seed) for arm in arms for fold in folds for seed in seeds}
    odd = sorted(asked - found.keys()) or sorted(k for k in asked if found[k] > 1)
    if odd or not asked:
        arm, fold, seed = odd[0] if odd else ("every arm", "every", "every")
        raise DataError(
            f"{len(odd)} of {len(asked)} outcomes are missing or there twice, for example "
            f"{arm!r}, fold {fold}, seed {seed}",
            allowed="one outcome for every arm, fold and seed",
            do="let the run finish, or judge the arms that are complete",
        )
    return {(o.arm, o.fold, o.seed): o for o in outcomes if o.arm in arms}


def _check_fits(outcome: Outcome, truth: Truth | None, n_classes: int, unasked: bool) -> None:
    if truth is None or not len(truth.test_labels):
        raise DataError(f"fold {outcome.fold} has no test slices", do="make folds with a test")
    held = 0 if unasked else len(truth.validation_labels)
    shapes = (held, n_classes), (len(truth.test_labels), n_classes)
    if (outcome.validation.shape, outcome.test.shape) != shapes:
        raise DataError(
            f"{outcome.arm!r} of fold {outcome.fold} predicted {outcome.validation.shape} and "
            f"{outcome.test.shape}",
            allowed=f"{shapes[0]} and {shapes[1]}, slices and classes of the fold",
            do="remove outcomes of other data or classes",
        )
    labels = np.concatenate([truth.validation_labels, truth.test_labels])
    if labels.max() >= n_classes:
        raise DataError(f"fold {truth.fold} has class {labels.max()} of {n_classes}, counted at 0")


def _arm_table(
    fits: tuple[tuple[Outcome, ...], ...],
    truths: Sequence[Truth],
    owners: Sequence[NDArray[np.int64]],
    draws: Draws,
    n_classes: int,
) -> ArmTable:
    by_patient, rankings, reliability = [], [], []
    validation = np.full((len(fits), len(fits[0])), np.nan)
    for i, (of_fold, truth, owner) in enumerate(zip(fits, truths, owners, strict=True)):
        predicted = np.stack([o.test.argmax(axis=1) for o in of_fold])
        by_patient.append(confusions(truth.test_labels, predicted, owner, n_classes))
        rankings.append([ranking(truth.test_labels, o.test) for o in of_fold])
        reliability.append([calibration(truth.test_labels, o.test) for o in of_fold])
        if len(of_fold[0].validation):
            chosen = np.stack([o.validation.argmax(axis=1) for o in of_fold])
            one = np.zeros(len(truth.validation_labels), np.int64)
            matrix = confusions(truth.validation_labels, chosen, one, n_classes)[:, 0]
            validation[i] = macro_f1(matrix.astype(np.float64))
    whole = np.stack([m.sum(axis=1) for m in by_patient]).astype(np.float64)
    both, patients = resampled_scores(by_patient, draws)
    return ArmTable(
        outcomes=fits,
        macro_f1=macro_f1(whole),
        validation=validation,
        balanced_accuracy=balanced_accuracy(whole),
        recall=recalls(whole),
        auroc=np.asarray([[r.auroc for r in of_fold] for of_fold in rankings]),
        auprc=np.asarray([[r.auprc for r in of_fold] for of_fold in rankings]),
        confusion=whole.mean(axis=1).sum(axis=0),
        # Of each fit: pooled, one that is too sure and one that is too unsure would cancel.
        ece=np.asarray([[calibration_error(t) for t in of_fold] for of_fold in reliability]),
        calibration=np.sum(reliability, axis=(0, 1)),
        resampled=both,
        patients_resampled=patients,
    )


def mean_validation(table: ArmTable) -> float:
    """Macro-F1 on the validation, mean over folds that have one and seeds; NaN without any."""
    return float(mean_of_present(table.validation.mean(axis=1)))
