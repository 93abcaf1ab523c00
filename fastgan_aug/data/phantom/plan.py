"""Which phantom patient gives which labelled slices, so that every cell has its exact count."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fastgan_aug.errors import DataError

NORMAL, UNILATERAL, BILATERAL = PATTERNS = ("normal", "unilateral", "bilateral")
CER, BG, COR = LEVELS = ("CER", "BG", "COR")
# MNI z in mm of each level.
LEVEL_Z: Mapping[str, tuple[float, float]] = {CER: (-45, -25), BG: (-2, 12), COR: (30, 55)}
SCANS = ("rest", "stress")
_SMALLEST_HEAD = 0.92


@dataclass
class PatientPlan:
    """One patient's pattern and labelled slices per level.

    Attributes:
        pattern: What the cerebrum shows.
        slices: ``{level: how many}``.
        labels: ``{level: pattern}`` of those slices.
    """

    pattern: str
    slices: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Labelled slices in all."""
        return sum(self.slices.values())

    def can_give(self, level: str, pattern: str, plane_mm: float) -> bool:
        """Whether one more slice fits: one label per level, planes enough in two scans."""
        same = self.labels.get(level, pattern) == pattern
        return same and self.slices.get(level, 0) < _most(level, plane_mm)

    def give(self, level: str, pattern: str) -> None:
        """Plans one more slice."""
        self.slices[level] = self.slices.get(level, 0) + 1
        self.labels[level] = pattern


def plan_patients(
    counts: Mapping[str, int], patients: int, plane_mm: float, random: np.random.Generator
) -> list[PatientPlan]:
    """Deals the slices to patients, evenly, each patient keeping one pattern.

    A patient's pattern is that of BG and COR; the cerebellar slices of a patient with a lesion
    may be normal, and so the normal CER slices are shared among all three kinds of patients.

    Args:
        counts: ``{"level/pattern": slices}``; a missing cell has none.
        patients: How many.
        plane_mm: Distance between the planes of a scan.
        random: Decides who gets what.

    Raises:
        DataError: the patients cannot give these slices.
    """
    cells = {(lv, p): int(counts.get(f"{lv}/{p}", 0)) for lv in LEVELS for p in PATTERNS}
    shares = _normal_cerebella(cells)
    totals = {p: sum(cells[lv, p] for lv in LEVELS) for p in PATTERNS}
    totals[NORMAL] -= cells[CER, NORMAL]
    sizes = _proportional({p: totals[p] + shares[p] for p in PATTERNS}, patients)
    plans = {p: [PatientPlan(p) for _ in range(sizes[p])] for p in PATTERNS}
    for level, pattern in cells:
        if (level, pattern) == (CER, NORMAL):
            continue
        group = plans[pattern]
        if (level, pattern) == (CER, UNILATERAL):
            # Who has diaschisis has it in all slices; the rest keep a normal cerebellum.
            cerebella = cells[CER, UNILATERAL] + shares[UNILATERAL]
            share = cells[CER, UNILATERAL] / max(cerebella, 1)
            group = group[: max(1, round(share * len(group)))]
        _deal(group, level, pattern, cells[level, pattern], plane_mm, random)
    for pattern, slices in shares.items():
        _deal(plans[pattern], CER, NORMAL, slices, plane_mm, random)
    dealt = [plan for group in plans.values() for plan in group]
    if not all(plan.total for plan in dealt):
        raise _impossible(
            f"{patients} patients are more than these slices can be shared among", plane_mm
        )
    return [dealt[i] for i in random.permutation(len(dealt))]


def _normal_cerebella(cells: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """How many normal CER slices each kind of patient gives: in all, CER for its BG and COR."""
    above = {p: cells[BG, p] + cells[COR, p] for p in PATTERNS}
    everything, cerebella = sum(above.values()), cells[CER, NORMAL] + cells[CER, UNILATERAL]
    lesioned = {NORMAL: 0, UNILATERAL: cells[CER, UNILATERAL], BILATERAL: 0}
    each = cerebella / max(everything, 1)
    wish = {p: max(each * above[p] - lesioned[p], 0.0) for p in PATTERNS}
    if not sum(wish.values()):
        wish[NORMAL] = 1.0
    return _proportional(wish, cells[CER, NORMAL])


def _proportional(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers in proportion, summing to ``total`` (largest remainders first)."""
    everything = sum(weights.values()) or 1.0
    exact = {k: total * w / everything for k, w in weights.items()}
    whole = {k: int(v) for k, v in exact.items()}
    # No kind of patient that has slices to give may round to nobody.
    for key in sorted(exact, key=lambda k: (whole[k] > 0, whole[k] - exact[k]))[
        : total - sum(whole.values())
    ]:
        whole[key] += exact[key] > 0
    whole[max(exact, key=lambda k: exact[k])] += total - sum(whole.values())
    return whole


def _deal(
    plans: list[PatientPlan],
    level: str,
    pattern: str,
    slices: int,
    plane_mm: float,
    random: np.random.Generator,
) -> None:
    """Gives each slice to the patient with the fewest so far, chance deciding between equals."""
    # A heap, since a large population has tens of thousands of patients.
    waiting = [(plan.total, float(random.random()), i) for i, plan in enumerate(plans)]
    heapq.heapify(waiting)
    for _ in range(slices):
        while waiting and not plans[waiting[0][2]].can_give(level, pattern, plane_mm):
            heapq.heappop(waiting)
        if not waiting:
            raise _impossible(
                f"{slices} slices {level}/{pattern} are too many for {len(plans)} patients",
                plane_mm,
            )
        i = waiting[0][2]
        plans[i].give(level, pattern)
        heapq.heapreplace(waiting, (plans[i].total, float(random.random()), i))


def _most(level: str, plane_mm: float) -> int:
    """Slices of a level that two scans of a small head have."""
    low, high = LEVEL_Z[level]
    return int((high - low) * _SMALLEST_HEAD / plane_mm) * len(SCANS)


def _impossible(what: str, plane_mm: float) -> DataError:
    most = ", ".join(f"{level} {_most(level, plane_mm)}" for level in LEVELS)
    return DataError(
        what,
        allowed=f"one slice or more for each patient, of each level at most: {most}",
        do="change `patients` or `counts` of [phantom]",
    )
