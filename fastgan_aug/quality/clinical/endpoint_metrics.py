"""The endpoints' findings as the metrics that the gate and the report read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.quality.clinical.dispersion import sd_ratios
from fastgan_aug.quality.clinical.endpoints import Measured
from fastgan_aug.quality.metric import Metric
from fastgan_aug.quality.statistics.equivalence import (
    ENDPOINTS,
    EquivalenceRow,
    EquivalenceTable,
)
from fastgan_aug.quality.statistics.means import ALPHA, mean_of

SHOWN = {"mc": "mc_ratio", "log_lr": "log_lr_difference", "abs_log_lr": "abs_log_lr_ratio"}
"""Name of the metric of each endpoint's estimate."""


def equivalence_metrics(table: EquivalenceTable) -> list[Metric]:
    """Two metrics a row: P of the equivalence test with its bound, and the estimate.

    ``mc_equivalence``, ``log_lr_equivalence`` and ``abs_log_lr_equivalence`` have the bound 0.05;
    the estimates (``SHOWN``) have their interval of level 0.90 and no bound.

    Args:
        table: Of ``on_fresh_patients``; of ``at_training_counts`` the bounds are left out.
    """
    return [m for row in table.rows for m in _of_row(row, table.required)]


def _of_row(row: EquivalenceRow, required: bool) -> tuple[Metric, Metric]:
    low, high = row.test.margin
    margin = f"margin {low:.4g} to {high:.4g}"
    if row.test.margin != row.raw_margin:
        margin += f", preset {row.raw_margin[0]:g} to {row.raw_margin[1]:g}"
    said = [margin, row.note]
    if np.isfinite(row.test.power):
        said.insert(1, f"an equal generator passes {100 * row.test.power:.0f} % of the time")
    p = Metric(
        name=f"{row.endpoint}_equivalence",
        cell=row.cell,
        value=row.test.p,
        n=row.n,
        floor=row.floor.p if row.floor else None,
        bound=ALPHA if required else None,
        note="; ".join(filter(None, said)),
    )
    estimate = Metric(
        name=SHOWN[row.endpoint],
        cell=row.cell,
        value=row.test.estimate,
        n=row.n,
        low=row.test.low,
        high=row.test.high,
        floor=row.floor.estimate if row.floor else None,
        note=margin,
    )
    return p, estimate


def sd_map_metrics(
    real: Dataset,
    synthetic_images: NDArray[np.float32],
    synthetic_cells: Sequence[str],
    *,
    seed: int = 0,
) -> list[Metric]:
    """``sd_map_ratio`` of each cell and, as ``sd_map_ratio_front`` and so on, of its regions.

    The floor is the ratio of the real slices' two halves, of different patients.

    Args:
        real: Its labelled slices.
        synthetic_images: (M, S, S) float32 in [0, 1].
        synthetic_cells: (M,) the cell of each.
        seed: Of the resamples and of the choice where one side has more slices.
    """
    names = np.asarray(synthetic_cells, np.str_)
    patients = np.asarray(real.column("patient_id"), np.str_)
    order = np.random.default_rng(seed).permutation(len(real))
    found = []
    for index, cell in enumerate(real.meta.space.cells):
        here = order[real.cell_index[order] == index]
        there = np.flatnonzero(names == str(cell))
        n = min(len(here), len(there))
        if n < 2:
            continue
        rows = np.sort(here[:n])
        ratios = sd_ratios(
            synthetic_images[there[:n]], real.images[rows], patients[rows], seed=seed
        )
        first = _half_of_patients(patients[rows], seed)
        one, other = rows[first], rows[~first]
        floor = sd_ratios(real.images[one], real.images[other], draws=2, seed=seed)
        for ratio, bottom in zip(ratios, floor, strict=True):
            suffix = "" if ratio.region == "whole" else f"_{ratio.region}"
            note = f"mean SD {ratio.synthetic:.4f}, real {ratio.real:.4f}"
            found.append(
                Metric(f"sd_map_ratio{suffix}", str(cell), ratio.ratio, n, ratio.low, ratio.high,
                       floor=None if np.isnan(bottom.ratio) else bottom.ratio, note=note)
            )  # fmt: skip
    return found


def _half_of_patients(patients: NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    """(N,) whether the slice's patient is in the first half."""
    names, owner = np.unique(patients, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray(order[owner] < len(names) / 2)


def sensitivity_metrics(
    real: Sequence[Measured], synthetic: Sequence[Measured], cells: Sequence[str]
) -> list[Metric]:
    """The estimates again at other thresholds of the mask, as ``mc_ratio_at_0.2``.

    Args:
        real: The real slices measured at each threshold.
        synthetic: The synthetic ones, at the same thresholds.
        cells: Which to show.
    """
    found = []
    for one, other in zip(synthetic, real, strict=True):
        for cell in cells:
            made, wanted = one.take(one.cells == cell), other.take(other.cells == cell)
            n = min(len(made), len(wanted))
            made, wanted = made.take(np.arange(n)), wanted.take(np.arange(n))
            for endpoint in ENDPOINTS:
                means = [mean_of(endpoint.values(side), side.patients) for side in (made, wanted)]
                test = endpoint.test(means[0], means[1], endpoint.margin)
                name = f"{SHOWN[endpoint.name]}_at_{one.endpoints.threshold:g}"
                found.append(Metric(name, cell, test.estimate, n, test.low, test.high))
    return found
