"""Does a generator repeat itself? Spread, effective number of modes, and duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError
from fastgan_aug.quality.copies.privacy import COPY_PERCENTILE
from fastgan_aug.quality.likeness.features import F64, Sample
from fastgan_aug.quality.likeness.pairs import (
    Kernel,
    PairSums,
    by_cell,
    halves,
    jackknife,
    mean_within,
    mean_within_without,
    within,
)
from fastgan_aug.quality.likeness.prdc import distances
from fastgan_aug.quality.metric import OVERALL, Metric

RESPLITS = 200
# Of the real slices' median distance: at this distance two slices count as different.
WIDTH = 0.5


def collapse_metrics(
    real: Sample,
    synthetic: Sample,
    *,
    view: str,
    pairwise_bound: float | None = None,
    modes_bound: float | None = None,
    cells: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Metric]:
    """``pairwise_ratio`` and ``modes_ratio``, overall and per cell.

    ``pairwise_ratio`` is the mean distance of two synthetic slices over that of two real slices of
    different patients: below 1, the generator varies too little. ``modes_ratio`` does the same for
    the effective number of modes ``1 / mean k(x, x')^2`` with a Gaussian kernel, the Vendi score
    of order 2 (Pasarkar and Dieng 2024) without the pairs of a slice with itself: how many
    slices one may draw before two are alike. The floor is the 2.5th percentile of the ratio
    between halves of the real patients.

    Args:
        real: Real slices.
        synthetic: Synthetic ones, the cells in the same proportions.
        view: Name of the features.
        pairwise_bound: Smallest ``pairwise_ratio`` that passes.
        modes_bound: Smallest ``modes_ratio`` that passes.
        cells: Those that must be judged; by default all that the real slices have. Where there
            are too few patients or slices, both are NaN.
        seed: Of the halvings.
    """

    def judge(cell: str, one: Sample, other: Sample) -> Iterator[Metric]:
        for name, kernel, figure, bound in (
            ("pairwise_ratio", distances, _mean, pairwise_bound),
            ("modes_ratio", _likeness(one), _inverse, modes_bound),
        ):
            pairs = within(one, kernel), within(other, kernel)
            yield _ratio_metric(name, cell, *pairs, figure, bound, view, seed)

    names = ("pairwise_ratio", "modes_ratio")
    return by_cell(judge, names, real, synthetic, view=view, cells=cells)


def effective_modes(sample: Sample, width: float) -> float:
    """``1 / mean k(x, x')^2`` over pairs of different owners, ``k`` Gaussian of that width.

    1 for slices that are all alike; it does not grow with the number of slices drawn.
    """
    return float(_inverse(mean_within(within(sample, _gaussian_squared(width))))[0])


def _mean(mean: F64) -> F64:
    return mean


def _inverse(mean: F64) -> F64:
    return 1 / np.maximum(mean, 1e-12)


def _likeness(real: Sample) -> Kernel:
    """The squared Gaussian kernel whose width the real slices set."""
    rows = np.random.default_rng(0).permutation(len(real))[:500]  # enough for a median
    apart = distances(real.features[rows], real.features[rows])
    upper = apart[np.triu_indices(len(rows), 1)]
    return _gaussian_squared(WIDTH * float(np.median(upper)))


def _gaussian_squared(width: float) -> Kernel:
    def kernel(first: F64, second: F64) -> F64:
        return np.asarray(np.exp(-(distances(first, second) ** 2) / max(width, 1e-9) ** 2))

    return kernel


def _ratio_metric(
    name: str,
    cell: str,
    real: PairSums,
    synthetic: PairSums,
    figure: Callable[[F64], F64],
    bound: float | None,
    view: str,
    seed: int,
) -> Metric:
    """The ratio with its interval: errors of the logarithm, by jackknife over owners."""
    value, reference = (float(figure(mean_within(p))[0]) for p in (synthetic, real))
    logs = [np.log(np.maximum(figure(mean_within_without(p)), 1e-12)) for p in (synthetic, real)]
    spread = np.exp(1.96 * jackknife(*logs))
    one = halves(real.first, RESPLITS, seed)
    below = figure(mean_within(real, 1 - one))
    null = figure(mean_within(real, one)) / np.where(below > 0, below, np.nan)
    known = null[np.isfinite(null)]
    ratio = value / reference if reference > 0 else float("nan")
    return Metric(
        name=name,
        cell=cell,
        value=ratio,
        n=int(synthetic.first.sum()),
        low=float(ratio / spread),
        high=float(ratio * spread),
        floor=float(np.percentile(known, 2.5)) if len(known) else None,
        bound=bound,
        lower=True,
        view=view,
        note="the real slices do not differ"
        if np.isnan(ratio)
        else "floor: 97.5 % of the halvings of the real patients stay above it",
    )


def duplicate_metrics(
    among_synthetic: NDArray[np.float32],
    synthetic_cells: Sequence[str],
    threshold: float,
    *,
    view: str,
    bound: float | None = None,
) -> list[Metric]:
    """``duplicate_rate``: share of synthetic slices that another one nearly repeats.

    Nearly: nearer than slices of two real patients hardly ever are, the threshold that
    ``copy_rate`` uses; so about one real slice in a thousand has such a twin in another patient.
    Rest and stress slices of one person are nearer: counted too, 0.2 to 2.8 % of real slices have
    a twin (docs/gate.md), but a generator's slices are no person's.

    Args:
        among_synthetic: (M, M) distances (``privacy.pixel_distances``: at the best shift and
            mirroring).
        synthetic_cells: (M,) the cell of each.
        threshold: ``privacy.copy_threshold``.
        view: What the distances rest on.
        bound: Largest overall share that passes.

    Raises:
        DataError: distances and cells differ in number.
    """
    n = len(synthetic_cells)
    if among_synthetic.shape != (n, n):
        raise DataError(
            f"distances {among_synthetic.shape} and {n} cells",
            allowed="(M, M) distances and M cells",
        )
    others = ~np.eye(n, dtype=np.bool_)
    copied = np.asarray(((among_synthetic < threshold) & others).any(axis=1))
    cells = np.asarray(list(map(str, synthetic_cells)), np.str_)
    groups = [(OVERALL, np.ones(n, np.bool_), bound)]
    groups += [(str(c), cells == c, None) for c in np.unique(cells)]
    return [
        Metric("duplicate_rate", name, float(copied[rows].mean()), int(rows.sum()),
               floor=COPY_PERCENTILE / 100, bound=limit, view=view)
        for name, rows, limit in groups if rows.any()
    ]  # fmt: skip
