from __future__ import annotations

import numpy as np
import pytest
from test_validate import columns, make

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.quality.clinical.comparison import Comparison, compare, measure, pixel_edges
from fastgan_aug.quality.clinical.maps import cell_maps


def by_name(table: list[Comparison], group: str = "all") -> dict[str, Comparison]:
    return {row.measure: row for row in table if row.group == group}


def test_a_data_set_does_not_differ_from_itself(small_phantom: Dataset):
    same = measure(small_phantom, small_phantom.meta.pixel_mm)
    table = compare(same, same)
    assert all(row.ks == 0 and row.difference in (0, pytest.approx(0)) for row in table)
    assert all(row.first == row.second for row in table)
    groups = list(dict.fromkeys(row.group for row in table))
    assert groups[0] == "all"
    assert {"level BG", "pattern bilateral"} <= set(groups)


def test_what_was_changed_is_what_differs(toy: Dataset):
    one, other = measure(toy, 2.0), measure(toy, 4.0)
    rows = by_name(compare(one, other))
    width = rows["width"]
    assert width.second == pytest.approx([2 * v for v in width.first])
    assert width.difference < 0
    assert rows["MC"].difference == rows["LR"].ks == 0
    assert by_name(compare(other, one))["width"].difference == pytest.approx(-width.difference)


def test_brightness_is_told_within_the_scan():
    c = columns()
    factor = np.tile([1.0, 1.0, 1.0, 2.0], 12)
    doubled = make(**c | {"scale": factor.tolist()})
    column = measure(doubled, None).values["p99 over the scan's"].reshape(12, 4)
    assert column[:, 3] == pytest.approx(2, rel=0.05)
    assert np.median(column, axis=1) == pytest.approx(1, rel=0.05)
    lost = measure(make(**c | {"scale": [0.0] * 48}), None)
    assert np.isnan(lost.values["p99 over the scan's"]).all()
    row = by_name(compare(lost, lost))["p99 over the scan's"]
    assert row.n == (0, 0)
    assert np.isnan([row.ks, row.difference, *row.first]).all()


def test_pixel_edges_need_both(toy: Dataset, small_phantom: Dataset):
    assert pixel_edges(toy, small_phantom, None, None) is None
    assert pixel_edges(toy, small_phantom, 3.0, None) == (3.0, small_phantom.meta.pixel_mm)
    units = measure(toy, None).units
    assert units["width"] == "of the picture"
    assert "power at 0.2 cycles/pixel" in units


def test_slices_without_labels_can_be_compared_too():
    c = columns() | {"labels": {"kind": [None] * 48}}
    table = compare(measure(make(**c), None), measure(make(), None))
    assert {row.group for row in table} == {"all"}
    assert by_name(table)["MC"].n == (48, 48)


def test_maps_are_the_pixelwise_mean_and_sd(toy: Dataset):
    maps = {m.cell: m for m in cell_maps(toy)}
    assert list(maps) == ["disc", "ring", "bar", "cross"]
    images = toy.images[toy.column("shape") == "ring"].astype(np.float64)
    assert maps["ring"].n == len(images)
    assert maps["ring"].mean == pytest.approx(images.mean(axis=0))
    assert maps["ring"].sd == pytest.approx(images.std(axis=0, ddof=1))
    one = cell_maps(toy.take(np.flatnonzero(toy.column("shape") == "bar")[:1]))
    assert one[0].sd.max() == 0
