"""Findings as metrics: stable names, bounds where they are due, floors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.quality.clinical.endpoint_metrics import (
    SHOWN,
    equivalence_metrics,
    sd_map_metrics,
    sensitivity_metrics,
)
from fastgan_aug.quality.clinical.endpoints import SENSITIVITY, measure_dataset, measure_synthetic
from fastgan_aug.quality.statistics.equivalence import at_training_counts, on_fresh_patients


def parts(toy: Dataset) -> tuple[Dataset, Dataset]:
    """Two halves of the toy's donors."""
    return toy.of_patients(toy.patients[::2]), toy.of_patients(toy.patients[1::2])


def labelled(dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    rows = np.flatnonzero(dataset.labelled)
    return dataset.images[rows], [str(dataset.cells[i]) for i in rows]


def test_two_metrics_a_row_and_bounds_in_the_second_table_alone(toy: Dataset):
    real, other = parts(toy)
    slices, made = measure_dataset(real), measure_synthetic(*labelled(other))
    second = on_fresh_patients(slices, made, toy.meta.space)
    metrics = equivalence_metrics(second)
    assert len(metrics) == 2 * len(second.rows)
    assert {m.name for m in metrics} == {f"{e}_equivalence" for e in SHOWN} | set(SHOWN.values())
    for metric in metrics:
        assert metric.bound == (0.05 if metric.name.endswith("_equivalence") else None)
        assert ("margin" in metric.note) is not bool(np.isnan(metric.value))
        assert metric.cell in map(str, toy.meta.space.cells)
    holds = [m.holds for m in metrics if m.bound is not None]
    assert holds == [row.test.passes for row in second.rows]
    first = equivalence_metrics(at_training_counts(slices, made, toy.meta.space))
    assert {m.bound for m in first} == {None}


def test_sd_map_ratio_by_region(toy: Dataset):
    real, other = parts(toy)
    images, cells = labelled(other)
    metrics = sd_map_metrics(real, images, cells)
    names = {m.name for m in metrics}
    assert names == {"sd_map_ratio" + s for s in ("", "_front", "_middle", "_back")}
    for metric in metrics:
        assert metric.n <= min((np.asarray(cells) == metric.cell).sum(), len(real))
        assert np.isnan(metric.value) or metric.low <= metric.value <= metric.high
    blurred = ndimage.gaussian_filter(images, (0, 3, 3))
    lower = {(m.name, m.cell): m.value for m in sd_map_metrics(real, blurred, cells)}
    whole = [m for m in metrics if m.name == "sd_map_ratio"]
    assert all(lower[(m.name, m.cell)] < m.value for m in whole)
    assert sd_map_metrics(real, images, cells) == metrics


def test_a_cell_without_figures_says_why(toy: Dataset):
    real, other = parts(toy)
    images, cells = labelled(other)
    slices, made = measure_dataset(real), measure_synthetic(images, cells)
    second = on_fresh_patients(slices, made, toy.meta.space)
    metrics = equivalence_metrics(second, {"elsewhere": "why", "disc": "there is one"})
    assert {m.note for m in metrics if m.cell == "elsewhere"} == {"why"}
    assert {m.name for m in metrics if m.cell == "elsewhere"} == {m.name for m in metrics}
    assert not any(np.isnan(m.value) for m in metrics if m.cell == "disc")
    (few,) = {m.note for m in metrics if m.cell == "cross" and np.isnan(m.value)}
    assert few.startswith("too few")
    nobody = real.take(np.zeros(0, np.int64))
    for without in (
        sd_map_metrics(real, images[:0], []),
        sd_map_metrics(nobody, images, cells, asked=["disc"]),
    ):
        assert all(np.isnan(m.value) and m.note for m in without)
        assert "disc" in {m.cell for m in without}
    assert sd_map_metrics(real, images[:0], [], asked=[]) == []


def test_sensitivity_names_its_threshold(toy: Dataset):
    real, other = parts(toy)
    wanted = [measure_dataset(real, t) for t in SENSITIVITY]
    made = [measure_synthetic(*labelled(other), t) for t in SENSITIVITY]
    cells = [str(c) for c in toy.meta.space.cells]
    metrics = sensitivity_metrics(wanted, made, cells)
    assert len(metrics) == 3 * 3 * len(cells)
    names = {f"{shown}_at_{t:g}" for shown in SHOWN.values() for t in SENSITIVITY}
    assert {m.name for m in metrics} == names
    by_name = {(m.name, m.cell): m.value for m in metrics}
    assert by_name["mc_ratio_at_0.3", cells[0]] == pytest.approx(1, abs=0.2)
