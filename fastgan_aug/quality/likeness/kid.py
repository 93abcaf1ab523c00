"""KID: the kernel distance between real and synthetic slices (Binkowski et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fastgan_aug.quality.likeness.features import F64, Sample
from fastgan_aug.quality.likeness.pairs import (
    PairSums,
    across,
    by_cell,
    halves,
    jackknife,
    mean_across,
    mean_across_without,
    mean_within,
    mean_within_without,
    within,
)
from fastgan_aug.quality.metric import Metric

RESPLITS = 200
# Of resplits that pass by chance alone.
PERCENTILE = 97.5


@dataclass(frozen=True)
class Kid:
    """A distance with its standard error.

    Attributes:
        value: MMD^2; unbiased, so it may be negative.
        error: Jackknife over patients.
    """

    value: float
    error: float


def polynomial_kernel(first: F64, second: F64) -> F64:
    """``(x . y / D + 1)^3`` (Binkowski et al. 2018, section 4); (B, D), (N, D) to (B, N)."""
    inner = first @ second.T / first.shape[1] + 1
    return np.asarray(inner * inner * inner)


def kid(real: Sample, synthetic: Sample) -> Kid:
    """The unbiased squared maximum mean discrepancy of the whole samples.

    ``mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`` over pairs of slices of different patients
    (Gretton et al. 2012, Eq. 3, where every slice is another patient's). Not the mean over random
    subsets that many libraries give: that has the same expectation and more noise. The vectors
    are standardised, so a value is comparable between data sets of the same view, not with
    published values, which rest on other features.

    Args:
        real: Two patients or more.
        synthetic: Two slices or more.
    """
    kernel = polynomial_kernel
    return _kid(within(real, kernel), within(synthetic, kernel), across(real, synthetic, kernel))


def _kid(real: PairSums, synthetic: PairSums, between: PairSums) -> Kid:
    inside = [float(mean_within(pairs)[0]) for pairs in (real, synthetic)]
    middle = float(mean_across(between)[0])
    reals, synthetics = mean_across_without(between)
    error = jackknife(
        mean_within_without(real) - 2 * reals, mean_within_without(synthetic) - 2 * synthetics
    )
    return Kid(sum(inside) - 2 * middle, error)


def real_resplits(real: PairSums, n: float, m: float, resplits: int, seed: int) -> F64:
    """KID of one half of the patients against the other, as of ``n`` against ``m`` slices.

    Under equal distributions KID scatters in proportion to 1/n + 1/m (Gretton et al. 2012,
    theorem 12); halves are smaller than the whole, so their values are scaled down by that.

    Args:
        real: ``within`` of the real slices.
        n: Real slices of the comparison that it is the floor of.
        m: Its synthetic slices.
        resplits: How many.
        seed: Of the halves.

    Returns:
        (resplits,).
    """
    one = halves(real.first, resplits, seed)
    other = 1 - one
    value = mean_within(real, one) + mean_within(real, other) - 2 * mean_across(real, one, other)
    scale = (1 / n + 1 / m) / (1 / (one @ real.first) + 1 / (other @ real.first))
    return np.asarray(value * scale)


def kid_floor(real: PairSums, n: float, m: float, resplits: int, seed: int) -> float:
    """97.5th percentile of ``real_resplits``, a little higher where there are few patients.

    One sample of P patients knows the scatter of another only roughly, as in Student's t; KID is
    a square, so the percentile is raised by ``(t / z)^2`` with P - 1 degrees of freedom: 6 % at 40
    patients. Without it 4 % of real halves of 44 phantom slices failed, with it 3 %.
    """
    probability = PERCENTILE / 100
    few = stats.t.ppf(probability, len(real.first) - 1) / stats.norm.ppf(probability)
    null = real_resplits(real, n, m, resplits, seed)
    return float(np.percentile(null, PERCENTILE) * few**2)


def kid_metrics(
    real: Sample,
    synthetic: Sample,
    *,
    view: str,
    delta: float,
    cells: Sequence[str] | None = None,
    resplits: int = RESPLITS,
    seed: int = 0,
) -> list[Metric]:
    """KID overall and per cell, each with the floor that real patients set.

    The floor is the 97.5th percentile of KID between halves of the real patients, scaled to the
    same numbers of slices; the bound adds ``delta``. Cells with fewer than four patients on a side
    cannot be judged: NaN.

    Args:
        real: Real slices.
        synthetic: Synthetic ones, the cells in the same proportions.
        view: Name of the features.
        delta: Distance beyond the floor that still passes; of squared standardised features.
        cells: Those that must be judged; by default all that the real slices have.
        resplits: Halvings of the patients.
        seed: Of the halvings.

    Returns:
        ``kid`` metrics, overall first, then cells in the order of their names.
    """

    def judge(cell: str, one: Sample, other: Sample) -> list[Metric]:
        return [_metric(cell, one, other, view=view, delta=delta, resplits=resplits, seed=seed)]

    return by_cell(judge, ("kid",), real, synthetic, view=view, cells=cells)


def _metric(
    cell: str,
    real: Sample,
    synthetic: Sample,
    *,
    view: str,
    delta: float,
    resplits: int,
    seed: int,
) -> Metric:
    inside = within(real, polynomial_kernel)
    kernel = polynomial_kernel
    found = _kid(inside, within(synthetic, kernel), across(real, synthetic, kernel))
    floor = kid_floor(inside, len(real), len(synthetic), resplits, seed)
    return Metric(
        name="kid",
        cell=cell,
        value=found.value,
        n=len(synthetic),
        low=found.value - 1.96 * found.error,
        high=found.value + 1.96 * found.error,
        floor=floor,
        bound=floor + delta,
        view=view,
        note=f"floor: {PERCENTILE} % of {resplits} halvings of the real patients stay below it",
    )
