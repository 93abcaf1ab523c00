"""One arm's part of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from downstream.report import ArmScores
from downstream.score_table import ArmTable, mean_validation
from downstream.scores import mean_of_present
from downstream.statistics.bootstrap import estimate

if TYPE_CHECKING:
    from downstream.judging import ArmFacts


def arm_scores(table: ArmTable, arm: ArmFacts, classes: Sequence[str]) -> ArmScores:
    """Means over folds and seeds, with intervals that resample folds, seeds and patients."""
    fits = [outcome for of_fold in table.outcomes for outcome in of_fold]
    validation = mean_validation(table)
    recall = _over_folds(table.recall)
    return ArmScores(
        name=arm.name,
        source=arm.source,
        ratio=arm.ratio,
        augmented=arm.augmented,
        n_real=int(np.median([o.n_real for o in fits])),
        n_synthetic=int(np.median([o.n_synthetic for o in fits])),
        seconds_per_fit=float(np.median([o.seconds for o in fits])),
        validation=validation if np.isfinite(validation) else None,
        macro_f1=estimate(table.value, table.resampled[:, 0]),
        balanced_accuracy=estimate(float(table.balanced_accuracy.mean()), table.resampled[:, 1]),
        recall={
            name: estimate(float(recall[k]), table.resampled[:, 2 + k])
            for k, name in enumerate(classes)
            if np.isfinite(recall[k])
        },
        auroc=_of_present(table.auroc, classes),
        auprc=_of_present(table.auprc, classes),
        ece=float(table.ece.mean()),
        confusion=tuple(tuple(float(v) for v in row) for row in table.confusion),
        reliability=_reliability(table.calibration),
        each=tuple(tuple(float(v) for v in row) for row in table.macro_f1),
    )


def _over_folds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, S, C) to (C,), without the folds where a class is absent."""
    return mean_of_present(values.mean(axis=1), axis=0)


def _of_present(values: NDArray[np.float64], classes: Sequence[str]) -> dict[str, float]:
    found = _over_folds(values)
    return {name: float(v) for name, v in zip(classes, found, strict=True) if np.isfinite(v)}


def _reliability(table: NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    slices = np.maximum(table[:, 0], 1)
    rows = np.stack([table[:, 0], table[:, 1] / slices, table[:, 2] / slices], axis=1)
    return tuple((float(n), float(sure), float(right)) for n, sure, right in rows)
