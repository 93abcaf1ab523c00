"""The page of `fastgan-aug data compare`: two data sets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.cli.page import FIRST, SECOND, new_plot, plot_uri, scale_uri, slice_uri, write_page
from fastgan_aug.data.contact_sheet import examples
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import RADIOLOGICAL
from fastgan_aug.quality.clinical.comparison import OVERALL, Comparison, Measured, compare
from fastgan_aug.quality.clinical.spectrum import radial_power

_PER_GROUP = 5  # examples of each data set
_POINTS = 40  # of a spectrum
_BINS = 20
_REACH = 2.5  # interquartile ranges beyond the quartiles that a histogram shows


def write_compare_page(
    datasets: tuple[Dataset, Dataset],
    names: tuple[str, str],
    pixels: tuple[float, float] | None,
    measured: tuple[Measured, Measured],
    target: Path,
) -> list[Comparison]:
    """Writes one self-contained HTML page.

    Args:
        datasets: What was compared.
        names: What to call them.
        pixels: Pixel edges in mm, or None.
        measured: Their measures.
        target: HTML file.

    Returns:
        The figures of the page.

    Raises:
        StorageError: it cannot be written.
    """
    edges = pixels or (None, None)
    table = compare(*measured)
    groups = list(dict.fromkeys(row.group for row in table))
    examples_of = [_examples(d, groups) for d in datasets]
    sides = [
        {
            "name": name,
            "colour": colour,
            "source": dataset.meta.source,
            "slices": len(next(iter(side.values.values()))),
            "patients": len(dataset.patients),
            "pixel": f"{edge:g} mm" if edge else "of unknown size",
            "sides": dataset.meta.laterality == RADIOLOGICAL,
            "digest": dataset.digest,
            "examples": pictures,
        }
        for name, colour, dataset, side, edge, pictures in zip(
            names, (FIRST, SECOND), datasets, measured, edges, examples_of, strict=True
        )
    ]
    content = {
        "sides": sides,
        "groups": groups,
        "rows": {group: [row for row in table if row.group == group] for group in groups},
        "plots": {
            "spectrum": _spectra(datasets, names, pixels),
            "histograms": _histograms(measured, names),
        },
        "scale": scale_uri(),
    }
    write_page("data_compare.html.jinja", target, content)
    return table


def _examples(dataset: Dataset, groups: Sequence[str]) -> dict[str, list[str]]:
    """Pictures of each group; of any slices for ``all``."""
    random = np.random.default_rng(0)
    shown = dataset.labelled if dataset.labelled.any() else np.ones(len(dataset), np.bool_)
    masks = {OVERALL: shown}
    for factor in dataset.meta.space.factors:
        column = dataset.column(factor.name)
        masks |= {f"{factor.name} {v}": np.asarray(column == v) for v in factor.values}
    return {
        group: [
            slice_uri(dataset.images[row])
            for row in examples(dataset, np.flatnonzero(masks[group]), _PER_GROUP, random)
        ]
        for group in groups
    }


def _spectra(
    datasets: tuple[Dataset, Dataset], names: tuple[str, str], pixels: tuple[float, float] | None
) -> str:
    """Median radial power with the middle half, logarithmic."""
    plot, (axis,) = new_plot(7.6, 3.2)
    edges = pixels or (1.0, 1.0)
    frequencies = np.linspace(0, 1 / (2 * max(edges)), _POINTS)
    for dataset, name, edge, colour in zip(datasets, names, edges, (FIRST, SECOND), strict=True):
        images = dataset.images[dataset.labelled if dataset.labelled.any() else slice(None)]
        power = radial_power(images, edge, frequencies.tolist())
        power = power[np.isfinite(power).all(axis=1)]
        if len(power):
            low, middle, high = np.percentile(power, [25, 50, 75], axis=0)
            axis.fill_between(frequencies, low, high, color=colour, alpha=0.2, lw=0)
            axis.plot(frequencies, middle, color=colour, label=name, lw=1.8)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter("")
    axis.set_xlim(0, frequencies[-1])
    axis.set_xlabel("cycles/mm" if pixels else "cycles/pixel")
    axis.set_ylabel("power, of DC")
    axis.grid(color="#e8ebef", lw=0.7)
    axis.legend(frameon=False, fontsize=9)
    return plot_uri(plot)


def _histograms(measured: Sequence[Measured], names: tuple[str, str]) -> list[str]:
    """The distributions of every measure but the powers, two rows of panels."""
    shown = [name for name in measured[0].values if not name.startswith("power")]
    rows = [shown[i : i + 3] for i in range(0, len(shown), 3)]
    return [_row_of_histograms(row, measured, names) for row in rows]


def _row_of_histograms(
    row: Sequence[str], measured: Sequence[Measured], names: tuple[str, str]
) -> str:
    plot, axes = new_plot(9.6, 2.1, 3)
    for axis in axes[len(row) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, row, strict=False):
        sides = [side.values[name] for side in measured]
        sides = [values[np.isfinite(values)] for values in sides]
        _overlay(axis, sides, names)
        unit = measured[0].units[name]
        axis.set_title(f"{name}, {unit}" if unit else name, fontsize=10)
        axis.set_yticks([])
    axes[0].legend(frameon=False, fontsize=8)
    return plot_uri(plot)


def _overlay(axis: Any, sides: Sequence[NDArray[np.float64]], names: tuple[str, str]) -> None:
    """Two histograms of area one, without far outliers."""
    both = np.concatenate(list(sides)) if any(map(len, sides)) else np.zeros(1)
    first, third = np.percentile(both, [25, 75])
    reach = _REACH * (third - first)
    low, high = max(both.min(), first - reach), min(both.max(), third + reach)
    bins = np.linspace(low, high if high > low else low + 1, _BINS)
    for values, name, colour in zip(sides, names, (FIRST, SECOND), strict=True):
        inside = values[(values >= bins[0]) & (values <= bins[-1])]
        if len(inside):
            axis.hist(inside, bins, density=True, color=colour, alpha=0.35, label=name)
            axis.hist(inside, bins, density=True, color=colour, histtype="step", lw=1.2)
