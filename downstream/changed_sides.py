"""Test slices that the rival gets wrong and the synthetic arm right, and the reverse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from downstream.outcome import Truth
from downstream.report import Changed
from downstream.score_table import ArmTable, ScoreTable

SHOWN = 8
"""Slices of either kind that are named."""


def changed_sides(
    table: ScoreTable,
    truths: Sequence[Truth],
    classes: Sequence[str],
    rival: str,
    chosen: str | None,
) -> tuple[tuple[Changed, ...], tuple[int, int]]:
    """The slices whose answer, by the mean probability over the seeds, changed sides.

    Returns:
        The largest changes of the true class's probability, those that turned right first; and how
        many turned right and how many wrong.
    """
    if chosen is None:
        return (), (0, 0)
    labels = {truth.fold: truth.test_labels for truth in truths}
    right, wrong = list[Changed](), list[Changed]()
    one, other = (_mean_chances(table.arms[name]) for name in (rival, chosen))
    for fold, before, after in zip(table.folds, one, other, strict=True):
        truth = labels[fold]
        said, says = before.argmax(axis=1), after.argmax(axis=1)
        for row in np.flatnonzero((said == truth) != (says == truth)):
            k = int(truth[row])
            changed = Changed(
                fold,
                int(row),
                classes[k],
                classes[int(said[row])],
                classes[int(says[row])],
                float(before[row, k]),
                float(after[row, k]),
            )
            (right if changed.gained else wrong).append(changed)
    shown = [sorted(side, key=_change)[:SHOWN] for side in (right, wrong)]
    return (*shown[0], *shown[1]), (len(right), len(wrong))


def _mean_chances(table: ArmTable) -> list[NDArray[np.float32]]:
    """Of each fold (N, C)."""
    return [np.mean([o.test for o in of_fold], axis=0) for of_fold in table.outcomes]


def _change(changed: Changed) -> float:
    return -abs(changed.synthetic_chance - changed.rival_chance)
