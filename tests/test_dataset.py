from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import METADATA_KEY, DatasetMeta
from fastgan_aug.errors import (
    ConfigError,
    DataError,
    FastGANAugError,
    MissingPatientIds,
    StorageError,
    UnknownFactorValue,
)

META = DatasetMeta(ConditionSpace.of({"kind": ["a", "b"]}), 4, "made here", pixel_mm=4.0)


def build(**changes: Any) -> Dataset:
    """Five slices of two patients; the last is a neighbour."""
    images = np.random.default_rng(0).random((5, 4, 4)).astype(np.float32)
    given: dict[str, Any] = {
        "images": images,
        "labels": {"kind": ["a", "a", "b", "b", None]},
        "patient_id": ["p", "p", "q", "q", "q"],
        "scan_id": ["p1", "p2", "q1", "q1", "q1"],
        "z": [0.0, 0.0, 10.0, 0.0, 5.0],
        "scale": [10.0, 20.0, 30.0, 40.0, 50.0],
    }
    return Dataset.build(META, **(given | changes))


def test_factors_keep_their_order_in_the_file() -> None:
    """Cells are numbered by it, and the last factor is what is predicted."""
    space = ConditionSpace.of({"view": ["PA", "AP"], "finding": ["none", "nodule"]})
    meta = replace(META, space=space, extra={"b": 1, "a": 2})
    again = DatasetMeta.from_json(meta.to_json())
    assert again.space.names == ("view", "finding")
    assert again == meta
    other = replace(meta, extra={"a": 2, "b": 1})  # the order of what is not counted is nothing
    assert other.to_json() == meta.to_json()
    turned = replace(meta, space=ConditionSpace.of(dict(reversed(space.to_dict().items()))))
    assert turned.to_json() != meta.to_json()


def test_a_round_trip_through_the_file_is_exact(tmp_path: Path):
    dataset = build()
    dataset.write(tmp_path / "d.parquet")
    again = Dataset.read(tmp_path / "d.parquet")
    assert again.digest == dataset.digest
    assert again.meta == dataset.meta
    assert again.table.equals(dataset.table)
    assert again.images.tobytes() == dataset.images.tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["d.parquet"]


def test_the_digest_does_not_depend_on_the_file_s_encoding(tmp_path: Path):
    dataset = build()
    described = dataset.table.replace_schema_metadata({METADATA_KEY: dataset.meta.to_json()})
    pq.write_table(described, tmp_path / "d.parquet", compression="gzip", row_group_size=2)
    assert Dataset.read(tmp_path / "d.parquet").digest == dataset.digest


def test_the_digest_tells_one_pixel_one_label_and_the_metadata():
    dataset = build()
    images = dataset.images.copy()
    images[2, 1, 3] = np.nextafter(images[2, 1, 3], np.float32(1))
    digests = {
        dataset.digest,
        build(images=images).digest,
        build(labels={"kind": ["a", "b", "b", "b", None]}).digest,
        Dataset(dataset.table, replace(dataset.meta, source="made elsewhere")).digest,
    }
    assert len(digests) == 4


def test_class_counts_hold_every_cell_and_no_neighbour():
    space = ConditionSpace.of({"kind": ["a", "b", "never"]})
    dataset = Dataset(build().table, replace(META, space=space))
    assert {str(c): n for c, n in dataset.class_counts.items()} == {"a": 2, "b": 2, "never": 0}
    assert sum(dataset.class_counts.values()) == dataset.labelled.sum()


def test_neighbours_are_those_above_and_below_in_the_same_scan():
    assert beside(build()) == [[], [], [4], [4], [2, 3]]


def beside(dataset: Dataset) -> list[list[int]]:
    return [sorted(rows.tolist()) for rows in dataset.neighbours()]


def scan(z: list[float], pixel_mm: float | None) -> list[list[int]]:
    """The neighbours within one scan of these positions."""
    n = len(z)
    dataset = Dataset.build(
        replace(META, pixel_mm=pixel_mm),
        images=np.zeros((n, 4, 4), np.float32),
        labels={"kind": ["a"] * n},
        patient_id=["p"] * n,
        scan_id=["s"] * n,
        z=z,
        scale=[1.0] * n,
    )
    return beside(dataset)


def test_slices_that_are_not_adjacent_are_no_neighbours():
    assert scan([-35.0, 5.0, 45.0], 4.0) == [[], [], []]
    assert scan([-35.0, 5.0, 45.0], None) == [[], [], []]
    assert scan([0.0, 5.0, 10.0, 18.0, 23.0], 4.0) == [[1], [0, 2], [1], [4], [3]]
    assert scan([3.0, 1.0, 2.0, 4.0, 6.0], None) == [[2, 3], [2], [0, 1], [0], []]
    assert scan([0.0, 5.0], None) == [[], []]  # without mm, z is an index
    assert scan([], 4.0) == []


def test_slices_that_share_a_position_have_no_neighbours_and_are_none():
    assert scan([0.0, 1.0, 1.0, 2.0, 3.0], None) == [[], [], [], [4], [3]]
    assert scan([2.0, 2.0, 2.0], 4.0) == [[], [], []]


def test_neighbourhood_is_mutual(small_phantom: Dataset):
    neighbours = small_phantom.neighbours()
    assert all(row in neighbours[other] for row, ns in enumerate(neighbours) for other in ns)


def test_restricting_turns_other_slices_into_neighbours():
    kept = build().restrict({"kind": ["b"]})
    kept.check()
    assert kept.cell_index.tolist() == [-1, -1, 0, 0, -1]
    assert len(kept) == 5
    with pytest.raises(UnknownFactorValue, match="Allowed"):
        build().restrict({"kind": ["c"]})
    with pytest.raises(ConfigError):
        build().restrict({"colour": ["a"]})


def test_taking_rows_and_patients():
    dataset = build()
    assert dataset.of_patients(["q"]).patients == ["q"]
    assert dataset.take(np.asarray([3, 0])).column("z").tolist() == [0.0, 0.0]
    assert len(dataset.take(np.zeros(5, bool))) == 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"patient_id": ["p", "", "q", "q", "q"]}, MissingPatientIds),
        ({"patient_id": ["p", None, "q", "q", "q"]}, MissingPatientIds),
        ({"scan_id": ["s", "s", "s", "s", "s"]}, DataError),
        ({"labels": {"kind": ["a", "x", "b", "b", None]}}, UnknownFactorValue),
        ({"z": [0.0]}, DataError),
        ({"images": np.full((5, 4, 4), 1.5, np.float32)}, DataError),
        ({"images": np.full((5, 4, 4), np.nan, np.float32)}, DataError),
        ({"images": np.zeros((5, 3, 3), np.float32)}, DataError),
        ({"role": ["labelled"] * 5}, DataError),
    ],
)
def test_bad_rows_are_refused(changes: dict[str, Any], error: type[FastGANAugError]):
    with pytest.raises(error):
        build(**changes)


def test_files_that_are_no_data_sets_are_refused(tmp_path: Path):
    (tmp_path / "text.parquet").write_text("no parquet")
    pq.write_table(build().table, tmp_path / "bare.parquet")
    for name in ("missing", "text", "bare"):
        with pytest.raises(DataError):
            Dataset.read(tmp_path / f"{name}.parquet")


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        build().write(tmp_path / "file" / "d.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_patient_digests_name_nobody():
    dataset = build()
    assert len(dataset.patient_digests) == 2
    assert not set(dataset.patients) & set(dataset.patient_digests)
