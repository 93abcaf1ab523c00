"""Means over pairs of slices, and how far patients let them vary.

KID, the mean distance and the effective number of modes are all means of a function of two slices
over all pairs. Slices of one patient are alike: pairs of one patient are left out, so that a mean
within a sample estimates what two slices of different patients give (with every slice of another
patient: the usual U-statistic). Once summed by patient, any number of resplits costs a few small
matrix products, and no matrix of all slices is ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.features import F64, Sample
from fastgan_aug.quality.metric import NO_SLICES, OVERALL, Metric, too_few

Kernel = Callable[[F64, F64], F64]
"""((B, D), (N, D)) to (B, N)."""

FEWEST = 4  # owners on each side for halves that mean anything
_BLOCK = 256  # rows of the kernel held at once


@dataclass(frozen=True)
class PairSums:
    """A kernel summed by owner.

    Attributes:
        sums: (P, Q) over the slices of owner p of the first sample and q of the second.
        first: (P,) slices of each owner of the first sample.
        second: (Q,) of the second.
    """

    sums: F64
    first: F64
    second: F64


def across(first: Sample, second: Sample, kernel: Kernel) -> PairSums:
    """Sums over the pairs of two samples."""
    rows, row_of, row_sizes = _by_owner(first)
    columns, column_of, column_sizes = _by_owner(second)
    starts = np.flatnonzero(np.diff(column_of, prepend=-1))
    left, right = first.features[rows], second.features[columns]
    sums = np.zeros((len(row_sizes), len(column_sizes)))
    for i in range(0, len(left), _BLOCK):
        block = np.add.reduceat(kernel(left[i : i + _BLOCK], right), starts, axis=1)
        np.add.at(sums, row_of[i : i + _BLOCK], block)
    return PairSums(sums, row_sizes, column_sizes)


def within(sample: Sample, kernel: Kernel) -> PairSums:
    """Sums over the pairs of one sample, those of one owner left out (the diagonal is zero)."""
    found = across(sample, sample, kernel)
    np.fill_diagonal(found.sums, 0.0)
    return found


def _by_owner(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64], F64]:
    """Rows in the order of owners, the owner of each, and (P,) slices of each owner."""
    if not len(sample):
        raise DataError("a sample is empty", allowed="one slice or more")
    _, owner = np.unique(sample.owners, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    return order, owner[order], np.bincount(owner).astype(np.float64)


def mean_within(pairs: PairSums, chosen: F64 | None = None) -> F64:
    """Mean over the pairs of different owners among the chosen ones.

    Args:
        pairs: Of ``within``.
        chosen: (R, P) of 0 and 1, a choice a row; by default one choice of everybody.

    Returns:
        (R,); NaN where fewer than two owners are chosen.
    """
    chosen = np.ones((1, len(pairs.first))) if chosen is None else chosen
    n = chosen @ pairs.first
    return _quotient(((chosen @ pairs.sums) * chosen).sum(axis=1), n**2 - chosen @ pairs.first**2)


def mean_across(pairs: PairSums, rows: F64 | None = None, columns: F64 | None = None) -> F64:
    """Mean over the pairs of chosen owners of the first and of the second sample; (R,)."""
    rows = np.ones((1, len(pairs.first))) if rows is None else rows
    columns = np.ones((len(rows), len(pairs.second))) if columns is None else columns
    total = ((rows @ pairs.sums) * columns).sum(axis=1)
    return _quotient(total, (rows @ pairs.first) * (columns @ pairs.second))


def mean_within_without(pairs: PairSums) -> F64:
    """(P,) the mean within, each owner left out in turn (for the jackknife)."""
    sums, n, s = pairs.sums, pairs.first.sum(), pairs.first
    pairs_left = (n - s) ** 2 - ((s**2).sum() - s**2)
    return _quotient(sums.sum() - sums.sum(axis=0) - sums.sum(axis=1), pairs_left)


def mean_across_without(pairs: PairSums) -> tuple[F64, F64]:
    """(P,) and (Q,) the mean across, each owner of the first and of the second left out."""
    total, n, m = pairs.sums.sum(), pairs.first.sum(), pairs.second.sum()
    rows = _quotient(total - pairs.sums.sum(axis=1), (n - pairs.first) * m)
    return rows, _quotient(total - pairs.sums.sum(axis=0), (m - pairs.second) * n)


def jackknife(*without: F64) -> float:
    """Standard error of a figure, from its values with each owner of each sample left out.

    ``sum over samples of (n - 1) / n * sum_i (t_i - mean t)^2`` (Efron and Stein 1981): never
    too small on average; about 1.4 times too large for a KID whose true value is zero.
    """
    return float(np.sqrt(sum((len(t) - 1) * np.var(t) for t in without)))


def halves(slices: F64, resplits: int, seed: int) -> F64:
    """(R, P) of 0 and 1: random halves of the owners, each with about half of the slices."""
    random = np.random.default_rng(seed)
    chosen = np.zeros((resplits, len(slices)))
    for row in chosen:
        order = random.permutation(len(slices))
        running = np.cumsum(slices[order])
        # The owner at the middle goes where the halves come out more alike.
        row[order[running - slices[order] / 2 <= slices.sum() / 2]] = 1
    return chosen


def by_cell(
    judge: Callable[[str, Sample, Sample], Iterable[Metric]],
    names: Sequence[str],
    real: Sample,
    synthetic: Sample,
    *,
    view: str,
    cells: Sequence[str] | None = None,
) -> list[Metric]:
    """Judges the whole, then each cell; one that has too few for halves is unjudged, not left out.

    Args:
        judge: Gives the metrics of a group (``overall`` or a cell), its real and its synthetic
            slices, ``FEWEST`` owners or more on each side.
        names: Of these metrics.
        real: Real slices.
        synthetic: Synthetic ones.
        view: Name of the features.
        cells: Those that must be judged; by default all that the real slices have.
    """
    wanted = sorted({*map(str, real.cells if cells is None else cells)})
    groups = [(OVERALL, real, synthetic)]
    groups += [
        (c, real.take(real.cells == c), synthetic.take(synthetic.cells == c)) for c in wanted
    ]
    found: list[Metric] = []
    for cell, one, other in groups:
        if why := _why_not(one, other):
            found += [Metric.unjudged(name, cell, why, len(other), view) for name in names]
        else:
            found += judge(cell, one, other)
    return found


def _why_not(real: Sample, synthetic: Sample) -> str:
    """Why these cannot be judged; empty where they can."""
    patients, made = (len(np.unique(side.owners)) for side in (real, synthetic))
    if not made:
        return NO_SLICES
    if made < FEWEST:
        return too_few("synthetic slices", made, FEWEST)
    return too_few("patients", patients, FEWEST) if patients < FEWEST else ""


def _quotient(above: F64, below: F64) -> F64:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)
