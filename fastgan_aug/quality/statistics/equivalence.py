"""Equivalence of the endpoints, cell by cell: shown, not concluded from "not significant".

Power decides what can be claimed, so there are two tables. ``at_training_counts`` compares as many
synthetic slices as there are training slices, as the paper did, and says how often a perfect
generator would pass; nothing is required of it. ``on_fresh_patients`` compares one slice of each
fresh patient with as many synthetic ones, each endpoint inside a preset margin at level 0.05
(intersection-union: all must pass, so no correction). The margin is widened by what the training
set itself does not know: 44 slices do not know the population to 5 %, and no generator can.
At 2,000 against 2,000 and the paper's training counts, on a phantom, a generator of the true
population passes all 24 rows nearly always, and one that has exactly its training set's means 0.68
of the time (each |log LR| 0.95). Without the widening |log LR| would have a power of 0.15 to 0.83.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.errors import LeakageError
from fastgan_aug.quality.clinical.endpoints import Measured
from fastgan_aug.quality.statistics.means import (
    ALPHA,
    Effect,
    Equivalence,
    Mean,
    hedges_g,
    mean_of,
    tost_difference,
    tost_ratio,
)

WIDENING = 1.96
"""Standard errors of the training set's own mean that a margin is widened by."""
HALF_SD = 0.5
"""Margin of the first table that does not hang on the endpoint's unit, standard deviations."""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint and the margin preset for it.

    Attributes:
        name: Of the endpoint: ``mc``, ``log_lr``, ``abs_log_lr``.
        ratio: Whether the means' ratio is judged; otherwise their difference.
        margin: Of the ratio or the difference, synthetic against real.
    """

    name: str
    ratio: bool
    margin: tuple[float, float]

    def values(self, slices: Measured) -> NDArray[np.float64]:
        """(N,) the endpoint of each slice."""
        found: NDArray[np.float64] = getattr(slices.endpoints, self.name)
        return found

    def test(self, synthetic: Mean, real: Mean, margin: tuple[float, float]) -> Equivalence:
        """The two one-sided tests."""
        tost = tost_ratio if self.ratio else tost_difference
        return tost(synthetic, real, margin, ALPHA)


ENDPOINTS = (
    Endpoint("mc", True, (0.95, 1.05)),
    Endpoint("log_lr", False, (-0.02, 0.02)),
    Endpoint("abs_log_lr", True, (0.95, 1.05)),
)


@dataclass(frozen=True)
class EquivalenceRow:
    """One endpoint of one cell.

    Attributes:
        cell: The cell, written ``COR/bilateral``.
        endpoint: ``mc``, ``log_lr`` or ``abs_log_lr``.
        n: Synthetic slices, and as many real ones.
        patients: Whose the real ones are.
        synthetic: Mean of the synthetic slices.
        real: Mean of the real ones.
        raw_margin: As preset.
        test: Against the margin that counts (the widened one, where there is a training set).
        effect: Hedges' g, synthetic minus real.
        floor: The same test of real slices against real ones of other patients; None where there
            are not enough.
        floor_n: Real slices on each side of the floor.
        half_sd: The test against half a standard deviation; None where it is not asked.
        note: What a reader must know, may be empty.
    """

    cell: str
    endpoint: str
    n: int
    patients: int
    synthetic: float
    real: float
    raw_margin: tuple[float, float]
    test: Equivalence
    effect: Effect
    floor: Equivalence | None = None
    floor_n: int = 0
    half_sd: Equivalence | None = None
    note: str = ""


@dataclass(frozen=True)
class EquivalenceTable:
    """All cells and endpoints.

    Attributes:
        rows: In the space's order, three a cell.
        required: Whether a pass is asked for (the second table).
    """

    rows: tuple[EquivalenceRow, ...]
    required: bool

    @property
    def passes(self) -> bool | None:
        """Whether every row passes; None where it is not asked, False for a table without rows."""
        if not self.required:
            return None
        return bool(self.rows) and all(row.test.passes for row in self.rows)


def at_training_counts(
    training: Measured, synthetic: Measured, space: ConditionSpace
) -> EquivalenceTable:
    """The first table: at the paper's numbers, with the power of each test.

    Args:
        training: The training slices, clustered by patient.
        synthetic: Generated slices; of each cell no more are taken than there are real ones.
        space: Its order of cells.
    """
    rows = []
    for cell in _shared_cells(space, training, synthetic):
        real, made = _equally_many(training, synthetic, cell, seed=0)
        rows += [_half_sd(_row(cell, e, made, real, e.margin), e, made, real) for e in ENDPOINTS]
    return EquivalenceTable(tuple(rows), required=False)


def on_fresh_patients(
    reference: Measured,
    synthetic: Measured,
    space: ConditionSpace,
    *,
    training: Measured | None = None,
    floor: Measured | None = None,
    seed: int = 0,
) -> EquivalenceTable:
    """The second table: against fresh patients, one slice of each per cell; all rows must pass.

    Args:
        reference: Real slices of patients who are in no training set.
        synthetic: Generated slices; of each cell no more are taken than there are real ones.
        space: Its order of cells.
        training: The slices that the generator learned from: its cells' standard errors widen the
            margins. Without it, or with fewer than two patients in a cell, nothing is widened.
        floor: More real slices of yet other patients, to show the test real against real. Without
            it the reference is halved by patient.
        seed: Of the choice of one slice per patient.

    Raises:
        LeakageError: a patient of the training slices is among the reference's or the floor's, or
            one of the reference's among the floor's.
    """
    _check_strangers(training=training, reference=reference, floor=floor)
    reference = one_per_patient(reference, seed)
    others = None if floor is None else one_per_patient(floor, seed)
    rows = []
    for cell in _shared_cells(space, reference, synthetic):
        real, made = _equally_many(reference, synthetic, cell, seed)
        pair = _floor_pair(real, others, cell, seed)
        for endpoint in ENDPOINTS:
            margin, note = _widened(endpoint, training, cell)
            row = _row(cell, endpoint, made, real, margin)
            test = endpoint.test(_mean(endpoint, pair[0]), _mean(endpoint, pair[1]), margin)
            n = min(map(len, pair))
            rows.append(replace(row, floor=test if n > 1 else None, floor_n=n, note=note))
    return EquivalenceTable(tuple(rows), required=True)


def one_per_patient(slices: Measured, seed: int) -> Measured:
    """One slice of each patient in each cell, chosen at random."""
    order = np.random.default_rng(seed).permutation(len(slices))
    pairs = np.char.add(np.char.add(slices.cells[order], "\n"), slices.patients[order])
    return slices.take(np.sort(order[np.unique(pairs, return_index=True)[1]]))


def of_cells(slices: Measured, cells: Sequence[str]) -> Measured:
    """The slices of these cells."""
    return slices.take(np.isin(slices.cells, list(cells)))


def _shared_cells(space: ConditionSpace, one: Measured, other: Measured) -> list[str]:
    both = set(one.cells.tolist()) & set(other.cells.tolist())
    return [str(cell) for cell in space.cells if str(cell) in both]


def _equally_many(
    real: Measured, synthetic: Measured, cell: str, seed: int
) -> tuple[Measured, Measured]:
    """As many of both in this cell: a fixed shuffle's real ones, the first synthetic ones."""
    real, synthetic = of_cells(real, [cell]), of_cells(synthetic, [cell])
    n = min(len(real), len(synthetic))
    chosen = np.random.default_rng(seed).permutation(len(real))[:n]
    return real.take(np.sort(chosen)), synthetic.take(np.arange(n))


def _mean(endpoint: Endpoint, slices: Measured) -> Mean:
    return mean_of(endpoint.values(slices), slices.patients)


def _row(
    cell: str, endpoint: Endpoint, made: Measured, real: Measured, margin: tuple[float, float]
) -> EquivalenceRow:
    one, other = _mean(endpoint, made), _mean(endpoint, real)
    return EquivalenceRow(
        cell=cell,
        endpoint=endpoint.name,
        n=len(made),
        patients=other.clusters,
        synthetic=one.mean,
        real=other.mean,
        raw_margin=endpoint.margin,
        test=endpoint.test(one, other, margin),
        effect=hedges_g(one, other),
    )


def _half_sd(
    row: EquivalenceRow, endpoint: Endpoint, made: Measured, real: Measured
) -> EquivalenceRow:
    """With the test against half the real slices' standard deviation."""
    one, other = _mean(endpoint, made), _mean(endpoint, real)
    half = HALF_SD * other.sd
    return replace(row, half_sd=tost_difference(one, other, (-half, half), ALPHA))


def _widened(
    endpoint: Endpoint, training: Measured | None, cell: str
) -> tuple[tuple[float, float], str]:
    """The margin, wider by what the training set does not know of its own mean; and a note."""
    low, high = endpoint.margin
    if training is None:
        return endpoint.margin, "no training set given: the margin is not widened"
    own = _mean(endpoint, of_cells(training, [cell]))
    scale = own.mean if endpoint.ratio else 1.0
    if not own.known or scale <= 0:
        return endpoint.margin, "fewer than two training patients: the margin is not widened"
    wider = WIDENING * own.se / scale
    return (low - wider, high + wider), ""


def _floor_pair(
    real: Measured, others: Measured | None, cell: str, seed: int
) -> tuple[Measured, Measured]:
    """Real slices and as many of other patients: given ones, or the reference's two halves."""
    if others is not None:
        one, other = _equally_many(others, real, cell, seed)
        return other, one
    half = len(real) // 2
    order = np.random.default_rng(seed).permutation(len(real))
    return real.take(order[:half]), real.take(order[half : 2 * half])


def _check_strangers(**sides: Measured | None) -> None:
    seen: set[str] = set()
    for name, slices in sides.items():
        own = set() if slices is None else set(slices.patients.tolist())
        if shared := seen & own:
            raise LeakageError(
                f"{len(shared)} patients of the {name} slices were already seen",
                allowed="training, reference and floor of different patients",
                do="split by patient",
            )
        seen |= own
