"""Laws of stacks: every slice stands in one file, at its place, beside its neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.stacks import MAX_PLANES, slice_numbers, stacks
from fastgan_aug.data.schema import DatasetMeta

SCANS = st.lists(
    st.one_of(
        st.lists(st.integers(-30, 30), min_size=1, max_size=9).map(lambda z: [4.5 * v for v in z]),
        st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=4,
)


def dataset_of(scans: list[list[float]], pixel_mm: float | None, order: int) -> Dataset:
    rows = [(f"s{i}", z) for i, scan in enumerate(scans) for z in scan]
    rows = [rows[i] for i in np.random.default_rng(order).permutation(len(rows))]
    n = len(rows)
    return Dataset.build(
        DatasetMeta(ConditionSpace.of({"shape": ["disc"]}), 2, "made here", pixel_mm=pixel_mm),
        images=(np.arange(1, 4 * n + 1).reshape(n, 2, 2) / (4 * n)).astype(np.float32),
        labels={"shape": ["disc"] * n},
        patient_id=[scan for scan, _ in rows],
        scan_id=[scan for scan, _ in rows],
        z=[z for _, z in rows],
        scale=np.arange(1, n + 1).tolist(),
    )


def pairs(dataset: Dataset) -> set[tuple[int, int]]:
    return {(i, int(j)) for i, beside in enumerate(dataset.neighbours()) for j in beside}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SCANS, st.sampled_from([None, 4.0]), st.integers(0, 99))
def test_every_slice_stands_once_at_its_place(
    scans: list[list[float]], pixel_mm: float | None, order: int
) -> None:
    dataset = dataset_of(scans, pixel_mm, order)
    found = stacks(dataset)
    assert sorted(int(r) for stack in found for r in stack.rows) == list(range(len(dataset)))
    for stack in found:
        assert len(set(dataset.column("scan_id")[stack.rows])) == 1
        assert stack.planes[0] == 0
        assert (np.diff(stack.planes) > 0).all()
        assert stack.planes[-1] < MAX_PLANES
        if stack.spacing is None:
            assert len(stack.rows) == 1
        else:
            z = stack.start + stack.planes * stack.spacing
            assert np.abs(z - dataset.column("z")[stack.rows]).max() <= 0.051 * stack.spacing
        volume = stack.counts(dataset)
        expected = dataset.images[stack.rows].astype(float)
        expected *= dataset.column("scale")[stack.rows][:, None, None]
        assert np.allclose(volume[stack.planes], expected, rtol=1e-6)
        assert np.count_nonzero(volume.any((1, 2))) == len(stack.rows)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SCANS, st.sampled_from([None, 4.0]), st.integers(0, 99))
def test_slice_numbers_keep_the_neighbours(
    scans: list[list[float]], pixel_mm: float | None, order: int
) -> None:
    dataset = dataset_of(scans, pixel_mm, order)
    numbers = pa.array(slice_numbers(dataset).astype(np.float32))
    position = dataset.table.column_names.index("z")
    renamed = dataset.table.set_column(position, "z", numbers)
    assert pairs(Dataset(renamed, replace(dataset.meta, pixel_mm=None))) == pairs(dataset)


@pytest.mark.parametrize("scans", [[[0.0, 1e-4, 200.0]], [[0.0, 5.0, 5.0]], [[3.0]]])
def test_what_is_no_stack_is_taken_apart(scans: list[list[float]]) -> None:
    found = stacks(dataset_of(scans, 4.0, 0))
    assert [stack.spacing for stack in found] == [None] * len(scans[0])
