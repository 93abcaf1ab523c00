"""HELPS, NO EVIDENCE or HARMS: what a comparison allows to say, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from downstream.statistics.bootstrap import Estimate
from downstream.statistics.paired import LEVEL, PairedTest

Verdict = Literal["HELPS", "NO EVIDENCE", "HARMS"]
MINIMUM_PATIENTS = 5
"""Of every class in the test, below which nothing is claimed."""
MINIMUM_SEEDS = 3
"""Fits of an arm in a fold, below which nothing is claimed."""


def verdict(
    test: PairedTest,
    p: float,
    bootstrap: Estimate,
    patients_per_class: Sequence[int],
    n_seeds: int,
    n_rivals: int = 1,
) -> tuple[Verdict, str]:
    """What a paired difference in macro-F1 against the rival allows to say.

    Never forced: what is not shown is NO EVIDENCE, and what too few patients or seeds show too.

    Args:
        test: Synthetic arm minus rival.
        p: Of the test, adjusted for all arms that are tested (Holm).
        bootstrap: The same difference, resampled at both levels.
        patients_per_class: Test patients with a slice of each class.
        n_seeds: Fits of each arm in each fold.
        n_rivals: Arms that the rival is the best of. Among equal ones it is the luckiest, which
            makes HELPS rarer and HARMS more frequent: HARMS must hold against any (Bonferroni).

    Returns:
        The word, and why.
    """
    if test.se <= 0:
        return "NO EVIDENCE", "no fold, seed or patient made a difference: nothing can be told"
    if test.low <= 0 <= test.high:
        return "NO EVIDENCE", "the interval of the difference holds 0"
    side = "above" if test.value > 0 else "below"
    shown = f"the interval of the difference lies {side} 0"
    if p >= LEVEL:
        return "NO EVIDENCE", f"{shown}, but with all arms counted p is {p:.2g} (Holm)"
    if test.value < 0 and p * n_rivals >= LEVEL:
        return "NO EVIDENCE", (
            f"{shown}, but the rival is the best of {n_rivals}, which may be its luck "
            f"(p = {min(1.0, p * n_rivals):.2g})"
        )
    if bootstrap.low <= 0 <= bootstrap.high:
        return "NO EVIDENCE", f"{shown}, but not when folds, seeds and test patients are resampled"
    few = min(patients_per_class)
    if few < MINIMUM_PATIENTS:
        return "NO EVIDENCE", (
            f"{shown}, but the rarest class has {few} test patients, fewer than {MINIMUM_PATIENTS}"
        )
    if n_seeds < MINIMUM_SEEDS:
        return "NO EVIDENCE", f"{shown}, but {n_seeds} seeds are fewer than {MINIMUM_SEEDS}"
    return ("HELPS" if test.value > 0 else "HARMS"), f"{shown}, with all arms counted (Holm)"
