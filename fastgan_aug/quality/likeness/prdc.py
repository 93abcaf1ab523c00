"""Precision, recall, density and coverage (Kynkaanniemi et al. 2019; Naeem et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.features import F64, Sample
from fastgan_aug.quality.likeness.pairs import by_cell, halves
from fastgan_aug.quality.metric import Metric

NEIGHBOURS = 5
RESPLITS = 20


@dataclass(frozen=True)
class Prdc:
    """Four figures of one sample against another.

    Attributes:
        precision: Share of synthetic slices inside some real slice's ball, [0, 1].
        recall: Share of real slices inside some synthetic slice's ball, [0, 1].
        density: Real balls that a synthetic slice lies in, over k: about 1 for equal
            distributions, above 1 where synthetic slices crowd.
        coverage: Share of real slices whose ball holds a synthetic slice, [0, 1]; about
            ``1 - 2^-k`` for equal distributions and equally many slices.
    """

    precision: float
    recall: float
    density: float
    coverage: float


_FOUR = tuple(field.name for field in fields(Prdc))
_RATIO = "coverage_ratio"


def distances(first: F64, second: F64) -> F64:
    """(N, D), (M, D) to (N, M) Euclidean distances."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def prdc(real: F64, synthetic: F64, k: int = NEIGHBOURS) -> Prdc:
    """The four figures.

    A slice's ball reaches to its k-th nearest neighbour in its own sample, the slice itself not
    counted; a ball is open (Naeem et al. 2020, Eqs. 3-5 and their reference code).

    Args:
        real: (N, D), N of 2 or more.
        synthetic: (M, D), M of 2 or more.
        k: At most N - 1 and M - 1 are used.

    Raises:
        DataError: a sample has fewer than two slices.
    """
    if min(len(real), len(synthetic)) < 2:
        raise DataError(
            f"{len(real)} real and {len(synthetic)} synthetic slices",
            allowed="two or more of each",
        )
    inside = distances(real, real), distances(synthetic, synthetic)
    return _prdc(*inside, distances(real, synthetic), k)


def _prdc(real: F64, synthetic: F64, between: F64, k: int) -> Prdc:
    """From the distances within and between."""
    k = min(k, len(real) - 1, len(synthetic) - 1)
    in_real = between < _radii(real, k)[:, None]
    in_synthetic = between < _radii(synthetic, k)
    return Prdc(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_synthetic.any(axis=1).mean()),
        density=float(in_real.sum(axis=0).mean() / k),
        coverage=float(in_real.any(axis=1).mean()),
    )


def _radii(inside: F64, k: int) -> F64:
    """(N,) distance to the k-th neighbour, itself at distance zero left out."""
    others = inside.copy()
    np.fill_diagonal(others, np.inf)
    return np.asarray(np.partition(others, k - 1, axis=1)[:, k - 1])


def prdc_metrics(
    real: Sample,
    synthetic: Sample,
    *,
    view: str,
    coverage_bound: float | None = None,
    cells: Sequence[str] | None = None,
    k: int = NEIGHBOURS,
    resplits: int = RESPLITS,
    seed: int = 0,
) -> list[Metric]:
    """The four figures overall and per cell, beside real patients against real patients.

    The floor of each is the median over halvings of the real patients. Recall and, with unequal
    sides, coverage hang on the number of slices, so ``coverage_ratio`` compares like with like: in
    each halving, the coverage of one half by synthetic slices over its coverage by the other half,
    with equally many; the median, with the 2.5th and 97.5th percentiles over halvings as interval.

    Args:
        real: Real slices.
        synthetic: Synthetic ones.
        view: Name of the features.
        coverage_bound: Smallest ``coverage_ratio`` that passes.
        cells: Those that must be judged; by default all that the real slices have. Where there
            are too few patients or slices, all five are NaN.
        k: Neighbours.
        resplits: Halvings of the patients.
        seed: Of the halvings and of the choice of synthetic slices.

    Returns:
        ``precision``, ``recall``, ``density``, ``coverage``, ``coverage_ratio``, overall first.
    """

    def judge(cell: str, one: Sample, other: Sample) -> Iterator[Metric]:
        figures = _figures(one, other, k, resplits, seed)
        return _metrics(figures, cell, len(other), view, coverage_bound)

    return by_cell(judge, (*_FOUR, _RATIO), real, synthetic, view=view, cells=cells)


@dataclass(frozen=True)
class _Figures:
    whole: Prdc
    floor: list[Prdc]
    ratios: F64


def _figures(real: Sample, synthetic: Sample, k: int, resplits: int, seed: int) -> _Figures:
    inside = distances(real.features, real.features)
    own = distances(synthetic.features, synthetic.features)
    between = distances(real.features, synthetic.features)
    floor, ratios = [], []
    random = np.random.default_rng(seed)
    for one, other in _halvings(real, resplits, seed):
        null = _prdc(inside[np.ix_(one, one)], inside[np.ix_(other, other)],
                     inside[np.ix_(one, other)], k)  # fmt: skip
        size = min(len(other), len(synthetic))
        some = random.choice(len(synthetic), size, replace=False)
        rest = random.choice(other, size, replace=False)
        radii = _radii(inside[np.ix_(one, one)], min(k, len(one) - 1))[:, None]
        by_real = (inside[np.ix_(one, rest)] < radii).any(axis=1).mean()
        by_synthetic = (between[np.ix_(one, some)] < radii).any(axis=1).mean()
        floor.append(null)
        ratios.append(by_synthetic / by_real if by_real > 0 else np.nan)
    return _Figures(_prdc(inside, own, between, k), floor, np.asarray(ratios))


def _halvings(
    real: Sample, resplits: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of the slices of one half of the patients, and of the other."""
    _, owner = np.unique(real.owners, return_inverse=True)
    for chosen in halves(np.bincount(owner).astype(np.float64), resplits, seed):
        inside = chosen[owner] > 0
        if min(inside.sum(), (~inside).sum()) >= 2:
            yield np.flatnonzero(inside), np.flatnonzero(~inside)


def _metrics(
    figures: _Figures, cell: str, n: int, view: str, bound: float | None
) -> Iterator[Metric]:
    for name in _FOUR:
        floor = float(np.median([getattr(f, name) for f in figures.floor]))
        value = getattr(figures.whole, name)
        yield Metric(name, cell, value, n, floor=floor, lower=True, view=view)
    known = figures.ratios[np.isfinite(figures.ratios)]
    if not len(known):  # their balls have no size
        why = "the real slices are copies of one another"
        yield replace(Metric.unjudged(_RATIO, cell, why, n, view), bound=bound, lower=True)
        return
    low, middle, high = np.percentile(known, [2.5, 50, 97.5])
    yield Metric(_RATIO, cell, float(middle), n, low=float(low), high=float(high),
                 floor=1.0, bound=bound, lower=True, view=view,
                 note="coverage by synthetic over coverage by other real patients")  # fmt: skip
