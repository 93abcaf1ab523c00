"""Two data sets side by side: a phantom beside real slices, one scanner beside another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.quality.clinical.counts import left_right_ratio, masks, mean_counts
from fastgan_aug.quality.clinical.spectrum import radial_power
from fastgan_aug.quality.clinical.tissue import extents, grey_over_white

# Cycles/mm: lobes, gyri, and what only noise and reconstruction fill.
FREQUENCIES_MM = (0.02, 0.05, 0.10)
# Cycles/pixel, where a pixel edge is unknown: the same for pixels of 4 mm.
FREQUENCIES_PIXEL = (0.08, 0.2, 0.4)
BRIGHT_PERCENTILE = 99.0
OVERALL = "all"
_FEWEST = 2  # slices on each side for quartiles that mean anything
_IQR_OF_NORMAL = 1.349  # in standard deviations


@dataclass(frozen=True)
class Comparison:
    """One measure of two data sets' labelled slices, in one group.

    Attributes:
        measure: What is measured.
        unit: Its unit, empty for a ratio.
        group: ``all``, or ``factor value`` that both data sets have.
        n: Slices with a finite value, of the first and the second.
        first: 25th percentile, median and 75th percentile of the first data set.
        second: As ``first``, of the second.
        difference: Median of the first minus that of the second, in robust standard deviations
            (pooled interquartile range / 1.349); of the logarithm for powers. NaN where nothing
            varies.
        ks: Largest distance of the cumulative distributions (Kolmogorov-Smirnov), 0 to 1.
    """

    measure: str
    unit: str
    group: str
    n: tuple[int, int]
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    difference: float
    ks: float


@dataclass(frozen=True)
class Measured:
    """The measures of one data set's labelled slices.

    Attributes:
        values: ``{measure: (N,)}``; NaN where a slice has none.
        units: ``{measure: unit}``.
        groups: ``{group: (N,) bool}``, ``all`` first, then each value of each factor.
    """

    values: Mapping[str, NDArray[np.float64]]
    units: Mapping[str, str]
    groups: Mapping[str, NDArray[np.bool_]]


def compare(first: Measured, second: Measured) -> list[Comparison]:
    """Compares two data sets, measure by measure, in each group that both have.

    ``all`` mixes the cells as each data set has them: where the mixtures differ, look at the
    groups.

    Args:
        first: ``measure`` of the first data set.
        second: Of the second, with a pixel edge if the first has one, without if not.

    Returns:
        One per group and measure, ``all`` first. Groups of one slice on a side are left out.
    """
    return [
        _compare(name, first, second, group)
        for group, rows in first.groups.items()
        if group in second.groups and min(rows.sum(), second.groups[group].sum()) >= _FEWEST
        for name in first.values
    ]


def pixel_edges(
    first: Dataset, second: Dataset, given_first: float | None, given_second: float | None
) -> tuple[float, float] | None:
    """Pixel edges of both in mm, a given one before the metadata's; None if one is unknown."""
    one, other = given_first or first.meta.pixel_mm, given_second or second.meta.pixel_mm
    return None if one is None or other is None else (one, other)


def measure(dataset: Dataset, pixel_mm: float | None) -> Measured:
    """Measures the labelled slices (all slices, where none is labelled).

    Radial power, extent of the mask, MC, LR, bright tissue over core, brightness in the scan.

    Args:
        dataset: Whose slices.
        pixel_mm: Pixel edge; None measures in cycles/pixel and shares of the picture.
    """
    rows = np.flatnonzero(dataset.labelled)
    rows = rows if len(rows) else np.arange(len(dataset))
    images = dataset.images[rows]
    found = {name: (unit, values) for name, unit, values in _measures(images, pixel_mm)}
    found["p99 over the scan's"] = ("", _over_scan(dataset)[rows])
    groups = {OVERALL: np.ones(len(rows), np.bool_)}
    for factor in dataset.meta.space.factors:
        column = dataset.column(factor.name)[rows]
        groups |= {f"{factor.name} {v}": np.asarray(column == v) for v in factor.values}
    return Measured(
        {name: values for name, (_, values) in found.items()},
        {name: unit for name, (unit, _) in found.items()},
        groups,
    )


def _measures(
    images: NDArray[np.float32], pixel_mm: float | None
) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    frequencies = FREQUENCIES_PIXEL if pixel_mm is None else FREQUENCIES_MM
    unit = "cycles/pixel" if pixel_mm is None else "cycles/mm"
    power = radial_power(images, pixel_mm or 1.0, frequencies)
    for frequency, values in zip(frequencies, power.T, strict=True):
        yield f"power at {frequency:g} {unit}", "of DC", values
    spans = extents(images).astype(np.float64)
    spans = np.where(spans > 0, spans, np.nan) * (pixel_mm or 1 / images.shape[-1])
    for name, values in (("width", spans[:, 1]), ("length", spans[:, 0])):
        yield name, "of the picture" if pixel_mm is None else "mm", values
    ratio = left_right_ratio(images)
    yield "MC", "", mean_counts(images)
    yield "LR", "", ratio
    yield "|log LR|", "", np.abs(np.log(ratio))
    yield "grey over white", "", grey_over_white(images)


def _over_scan(dataset: Dataset) -> NDArray[np.float64]:
    """(N,) 99th percentile of each slice's counts inside its mask, over its scan's median one.

    It tells whether a part of the body is brighter than the rest of the same scan (cerebellum over
    cortex); NaN where scales are lost or the scan has one slice.
    """
    images, mask = dataset.images, masks(dataset.images)
    scale = dataset.column("scale").astype(np.float64)
    bright = np.asarray(
        [
            np.percentile(i[m], BRIGHT_PERCENTILE) if m.any() else np.nan
            for i, m in zip(images, mask, strict=True)
        ],
        np.float64,
    )
    bright = np.where(np.isfinite(scale) & (scale > 0), bright * scale, np.nan)
    scan = np.unique(dataset.column("scan_id").astype(str), return_inverse=True)[1]
    order = np.argsort(scan, kind="stable")
    starts = np.flatnonzero(np.diff(scan[order], prepend=-1))
    typical = np.full(len(starts), np.nan)
    for i, rows in enumerate(np.split(order, starts[1:])):
        good = bright[rows][np.isfinite(bright[rows])]
        typical[i] = np.median(good) if len(good) > 1 else np.nan
    return bright / typical[scan] if len(scan) else bright


def _compare(name: str, first: Measured, second: Measured, group: str) -> Comparison:
    pairs = [side.values[name][side.groups[group]] for side in (first, second)]
    one, other = (values[np.isfinite(values)] for values in pairs)
    quartiles = [_quartiles(values) for values in (one, other)]
    enough = min(len(one), len(other)) >= _FEWEST
    ks = float(stats.ks_2samp(one, other, method="asymp").statistic) if enough else np.nan
    compared = [np.log(q) if name.startswith("power") else q for q in quartiles]
    spread = np.sqrt(np.mean([(q[2] - q[0]) ** 2 for q in compared])) / _IQR_OF_NORMAL
    difference = (compared[0][1] - compared[1][1]) / spread if spread > 0 else np.nan
    return Comparison(
        measure=name,
        unit=first.units[name],
        group=group,
        n=(len(one), len(other)),
        first=tuple(quartiles[0].tolist()),
        second=tuple(quartiles[1].tolist()),
        difference=float(difference),
        ks=ks,
    )


def _quartiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.percentile(values, [25, 50, 75]) if len(values) else np.full(3, np.nan)
