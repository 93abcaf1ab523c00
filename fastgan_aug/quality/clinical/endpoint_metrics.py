"""The endpoints' findings as the metrics that the gate and the report read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.quality.clinical.dispersion import REGIONS, sd_ratios
from fastgan_aug.quality.clinical.endpoints import Measured
from fastgan_aug.quality.metric import NO_SLICES, Metric, too_few
from fastgan_aug.quality.statistics.equivalence import (
    ENDPOINTS,
    EquivalenceRow,
    EquivalenceTable,
)
from fastgan_aug.quality.statistics.means import ALPHA, mean_of

SHOWN = {"mc": "mc_ratio", "log_lr": "log_lr_difference", "abs_log_lr": "abs_log_lr_ratio"}
"""Name of the metric of each endpoint's estimate."""
SD_NAMES = tuple("sd_map_ratio" if r == "whole" else f"sd_map_ratio_{r}" for r in REGIONS)
_FEWEST = 2  # slices or patients for a standard deviation
_BLANK = "the slices have no such value"


def equivalence_metrics(
    table: EquivalenceTable, why_not: Mapping[str, str] | None = None
) -> list[Metric]:
    """Two metrics a row: P of the equivalence test with its bound, and the estimate.

    ``mc_equivalence``, ``log_lr_equivalence`` and ``abs_log_lr_equivalence`` have the bound 0.05;
    the estimates (``SHOWN``) have their interval of level 0.90 and no bound.

    Args:
        table: Of ``on_fresh_patients``; of ``at_training_counts`` the bounds are left out.
        why_not: ``{cell: why}`` of cells that must be judged and have no row: their metrics are
            NaN.
    """
    found = [m for row in table.rows for m in _of_row(row, table.required)]
    there = {row.cell for row in table.rows}
    for cell, why in (why_not or {}).items():
        if cell not in there:
            for endpoint, shown in SHOWN.items():
                names = (f"{endpoint}_equivalence", shown)
                found += [Metric.unjudged(name, cell, why) for name in names]
    return found


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
        note=_why_no_test(row) if np.isnan(row.test.p) else "; ".join(filter(None, said)),
    )
    estimate = Metric(
        name=SHOWN[row.endpoint],
        cell=row.cell,
        value=row.test.estimate,
        n=row.n,
        low=row.test.low,
        high=row.test.high,
        floor=row.floor.estimate if row.floor else None,
        note=_BLANK if np.isnan(row.test.estimate) else margin,
    )
    return p, estimate


def _why_no_test(row: EquivalenceRow) -> str:
    if row.patients < _FEWEST:
        return too_few("patients", row.patients, _FEWEST)
    return too_few("synthetic slices", row.n, _FEWEST) if row.n < _FEWEST else _BLANK


def sd_map_metrics(
    real: Dataset,
    synthetic_images: NDArray[np.float32],
    synthetic_cells: Sequence[str],
    *,
    asked: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Metric]:
    """``sd_map_ratio`` of each cell and, as ``sd_map_ratio_front`` and so on, of its regions.

    The floor is the ratio of the real slices' two halves, of different patients.

    Args:
        real: Its labelled slices.
        synthetic_images: (M, S, S) float32 in [0, 1].
        synthetic_cells: (M,) the cell of each.
        asked: Cells that must be judged; by default all that the real slices have.
        seed: Of the resamples and of the choice where one side has more slices.
    """
    names = np.asarray(synthetic_cells, np.str_)
    wanted = {str(cell) for cell in real.cells} if asked is None else set(asked)
    patients = np.asarray(real.column("patient_id"), np.str_)
    order = np.random.default_rng(seed).permutation(len(real))
    found: list[Metric] = []
    for index, cell in enumerate(real.meta.space.cells):
        here = order[real.cell_index[order] == index]
        there = np.flatnonzero(names == str(cell))
        n = min(len(here), len(there))
        if n < _FEWEST:
            if str(cell) in wanted:
                why = too_few("slices", n, _FEWEST) if len(there) else NO_SLICES
                found += [Metric.unjudged(name, str(cell), why, n) for name in SD_NAMES]
            continue
        rows = np.sort(here[:n])
        ratios = sd_ratios(
            synthetic_images[there[:n]], real.images[rows], patients[rows], seed=seed
        )
        first = _half_of_patients(patients[rows], seed)
        one, other = rows[first], rows[~first]
        floor = sd_ratios(real.images[one], real.images[other], draws=2, seed=seed)
        for name, ratio, bottom in zip(SD_NAMES, ratios, floor, strict=True):
            note = f"mean SD {ratio.synthetic:.4f}, real {ratio.real:.4f}"
            if np.isnan(ratio.ratio):
                note = "the real slices do not differ here"
            found.append(
                Metric(name, str(cell), ratio.ratio, n, ratio.low, ratio.high,
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
                note = "" if np.isfinite(test.estimate) else _BLANK if n else NO_SLICES
                found.append(Metric(name, cell, test.estimate, n, test.low, test.high, note=note))
    return found
