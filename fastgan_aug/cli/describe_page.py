"""The page of `fastgan-aug data describe`: what is in a data set, to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.cli.page import (
    FIRST,
    INK,
    SPREAD,
    new_plot,
    plot_uri,
    scale_uri,
    slice_uri,
    write_page,
)
from fastgan_aug.data.contact_sheet import examples
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT, RADIOLOGICAL
from fastgan_aug.data.validation.finding import Finding
from fastgan_aug.quality.clinical.counts import laterality_note, left_right_ratio, mean_counts
from fastgan_aug.quality.clinical.maps import cell_maps

_DOTS = 400  # shown of a cell in a strip plot


def write_describe_page(
    dataset: Dataset, findings: Sequence[Finding], target: Path, per_cell: int, seed: int
) -> None:
    """Writes one self-contained HTML page; nobody is named in it.

    Args:
        dataset: What to show.
        findings: Of its validation.
        target: HTML file.
        per_cell: Example slices of each cell.
        seed: Of the choice of examples.

    Raises:
        StorageError: it cannot be written.
    """
    maps = cell_maps(dataset)
    peak = float(max((m.sd.max() for m in maps), default=0.0))
    random = np.random.default_rng(seed)
    cells = []
    for each in maps:
        index = dataset.meta.space.index(dataset.meta.space.parse(each.cell))
        rows = np.flatnonzero(dataset.cell_index == index)
        chosen = examples(dataset, rows, per_cell, random)
        cells.append(
            {
                "name": each.cell,
                "n": each.n,
                "patients": len(set(dataset.column("patient_id")[rows])),
                "scans": len(set(dataset.column("scan_id")[rows])),
                "examples": [slice_uri(dataset.images[row]) for row in chosen],
                "mean": slice_uri(each.mean),
                "sd": slice_uri(each.sd, peak, SPREAD),
            }
        )
    content = {
        "dataset": dataset,
        "cells": cells,
        "empty": [str(c) for c, n in dataset.class_counts.items() if not n],
        "most": max((m.n for m in maps), default=1),
        "findings": findings,
        "facts": _facts(dataset),
        "extra": json.dumps(dict(dataset.meta.extra), indent=1, sort_keys=True),
        "sides": dataset.meta.laterality == RADIOLOGICAL,
        "laterality": laterality_note(dataset.meta),
        "by_patient": dataset.meta.grouping == BY_PATIENT,
        "sd_peak": peak,
        "scales": {"counts": scale_uri(), "sd": scale_uri(SPREAD)},
        "plots": _plots(dataset) if cells else {},
    }
    write_page("data_describe.html.jinja", target, content)


def _facts(dataset: Dataset) -> dict[str, str]:
    meta = dataset.meta
    pixel = "unknown" if meta.pixel_mm is None else f"{meta.pixel_mm:g} mm"
    synthetic = int(dataset.column("synthetic").sum())
    units = ", ".join(sorted(set(dataset.table["unit"].to_pylist())))
    return {
        "source": meta.source,
        "slices": f"{int(dataset.labelled.sum()):,} labelled, "
        f"{int((~dataset.labelled).sum()):,} neighbours; {synthetic:,} of them synthetic",
        "size": f"{meta.size} × {meta.size} pixels of {pixel}",
        "normalisation": f"{meta.normalisation}; scale in {units}",
        "laterality": meta.laterality,
        "grouping": meta.grouping,
        "pseudonym key": meta.pseudonym_key,
        "digest": dataset.digest,
    }


def _plots(dataset: Dataset) -> dict[str, str]:
    rows = np.flatnonzero(dataset.labelled)
    images, index = dataset.images[rows], dataset.cell_index[rows]
    ratio = left_right_ratio(images)
    measures = {
        "mean counts (MC)": mean_counts(images),
        "left/right ratio (LR)": ratio,
        "|log LR|": np.abs(np.log(ratio)),
    }
    present = [i for i in range(len(dataset.meta.space.cells)) if (index == i).any()]
    names = [str(dataset.meta.space.cells[i]) for i in present]
    plots = {"strips": _strips(measures, [index == i for i in present], names)}
    if dataset.meta.grouping == BY_PATIENT:
        plots["patients"] = _per_patient(dataset.column("patient_id")[rows])
    return plots


def _strips(
    measures: dict[str, NDArray[np.float64]], groups: list[NDArray[np.bool_]], names: list[str]
) -> str:
    """A box and its dots for each cell, one panel a measure."""
    plot, axes = new_plot(9.6, 1.2 + 0.34 * len(groups), len(measures))
    random = np.random.default_rng(0)
    for axis, (title, values) in zip(axes, measures.items(), strict=True):
        for place, group in enumerate(groups):
            these = values[group]
            these = these[np.isfinite(these)]
            shown = random.permutation(these)[:_DOTS]
            height = place + random.uniform(-0.26, 0.26, len(shown))
            axis.scatter(shown, height, s=5, color=FIRST, alpha=0.45, linewidths=0)
            if len(these):
                low, middle, high = np.percentile(these, [25, 50, 75])
                axis.barh(place, high - low, 0.62, low, color="none", edgecolor="#1c2430", lw=0.9)
                axis.plot([middle] * 2, [place - 0.31, place + 0.31], color="#1c2430", lw=2)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(len(groups) - 0.4, -0.6)
        first = axis is axes[0]
        axis.set_yticks(range(len(groups)), names if first else [""] * len(names))
        axis.grid(axis="x", color="#e8ebef", lw=0.7)
        axis.set_axisbelow(True)
    axes[1].axvline(1, color=INK, lw=0.8, ls=":")
    return plot_uri(plot)


def _per_patient(patients: NDArray[Any]) -> str:
    """How many patients have one labelled slice, two, ..."""
    counts = np.unique(patients.astype(str), return_counts=True)[1]
    plot, (axis,) = new_plot(4.6, 2.0)
    values, people = np.unique(counts, return_counts=True)
    axis.bar(values, people, width=0.6 * max(1, counts.max() / 60), color=FIRST)
    axis.set_xlim(values.min() - 2, values.max() + 2)
    axis.set_xlabel("labelled slices of a patient")
    axis.set_ylabel("patients")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.yaxis.get_major_locator().set_params(integer=True)
    return plot_uri(plot)
