"""Laws of the NPZ import: nothing is invented, bad arrays and bombs are refused at no cost."""

from __future__ import annotations

import contextlib
import io
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastgan_aug.data.importers.npz import import_npz
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import UNGROUPED, UNKEYED
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.errors import DataError, FastGANAugError, UnknownFactorValue


def arrays(**changes: Any) -> dict[str, Any]:
    """A small archive: 6, 3 and 2 images of 28 pixels with labels 0 to 2."""
    random = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        made[f"{split}_images"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    return {name: value for name, value in (made | changes).items() if value is not None}


def archive(folder: Path, **changes: Any) -> Path:
    path = folder / "set.npz"
    np.savez_compressed(path, **arrays(**changes))
    return path


def test_everything_is_taken_and_nothing_invented(tmp_path: Path) -> None:
    given = arrays()
    np.savez_compressed(tmp_path / "set.npz", **given)
    found = import_npz(tmp_path / "set.npz", size=28, values=["cyst", "polyp", "none"])
    dataset = found.dataset
    assert dataset is not None
    counts = np.round(dataset.images * dataset.column("scale")[:, None, None])
    whole = np.concatenate([given[f"{s}_images"] for s in ("train", "val", "test")])
    assert np.array_equal(counts, whole)
    assert [str(c) for c in dataset.cells[:3]] == ["cyst", "polyp", "none"]
    assert dataset.column("given_split").tolist() == ["train"] * 6 + ["val"] * 3 + ["test"] * 2
    assert dataset.meta.grouping == UNGROUPED
    assert dataset.meta.pseudonym_key == UNKEYED
    assert len(dataset.patients) == len(dataset)
    assert not any(len(rows) for rows in dataset.neighbours())
    assert any("no patients" in warning for warning in found.warnings)
    assert [(item.where, item.labelled) for item in found.items] == [
        ("train", 6), ("val", 3), ("test", 2),
    ]  # fmt: skip


def test_other_sizes_and_values(tmp_path: Path) -> None:
    path = archive(tmp_path, test_images=None, test_labels=None)
    dataset = import_npz(path, factor="organ", size=64, key=PseudonymKey(bytes(32))).dataset
    assert dataset is not None
    assert dataset.images.shape == (9, 64, 64)
    assert dataset.meta.space.to_dict() == {"organ": ["0", "1", "2"]}
    assert dataset.meta.pseudonym_key == PseudonymKey(bytes(32)).id
    with pytest.raises(UnknownFactorValue, match="up to 2"):
        import_npz(path, values=["a", "b"])
    for factor in ("image", "given_split"):
        with pytest.raises(DataError, match="named"):
            import_npz(path, factor=factor)


def test_same_archive_same_data_set_and_other_archives_share_no_id(tmp_path: Path) -> None:
    path = archive(tmp_path)
    first, second = (import_npz(path).dataset for _ in range(2))
    other = import_npz(archive(tmp_path, test_images=None)).dataset
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.digest == second.digest
    assert not set(first.patients) & set(other.patients)


def test_without_patients_nothing_is_split(tmp_path: Path) -> None:
    dataset = import_npz(archive(tmp_path)).dataset
    assert dataset is not None
    with pytest.raises(DataError, match="no patients"):
        split_by_patient(dataset, 0.3, 0)
    train, test = split_by_patient(dataset, 0.3, 0, unsafe_no_groups=True)
    assert len(train) + len(test) == len(dataset)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"val_images": np.zeros((3, 28, 28, 3), np.uint8)}, "colour"),
        ({"val_images": np.zeros((3, 28, 20), np.uint8)}, "shape"),
        ({"val_images": np.zeros((3, 28, 28), np.int16)}, "uint8"),
        ({"val_images": np.zeros((0, 28, 28), np.uint8)}, "shape"),
        ({"val_images": np.zeros((3, 28, 28), np.float32)}, "whole numbers"),
        ({"val_images": None}, "missing"),
        ({"val_labels": None}, "missing"),
        ({"val_labels": np.zeros((3, 14), np.uint8)}, "14 labels"),
        ({"val_labels": np.zeros((2, 1), np.uint8)}, "for 3 images"),
        ({"val_labels": np.full((3, 1), -1)}, "negative"),
        ({"val_labels": np.asarray([["a"], ["b"], ["c"]])}, "whole numbers"),
    ],
)
def test_a_bad_array_is_refused_and_stops_nothing(
    changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    found = import_npz(archive(tmp_path, **changes))
    assert found.dataset is not None
    assert len(found.dataset) == 8
    (item,) = found.refused
    assert item.where.startswith("val_")
    assert why in item.refused


def test_constant_images_are_refused_one_by_one(tmp_path: Path) -> None:
    images = arrays()["train_images"]
    images[[1, 4]] = 7
    found = import_npz(archive(tmp_path, train_images=images))
    assert [item.where for item in found.refused] == ["train image 1", "train image 4"]
    assert found.items[0].warnings == ("2 of 6 images were refused",)
    assert found.dataset is not None
    assert len(found.dataset) == 9
    everything = {
        f"{s}_images": np.zeros((n, 28, 28), np.uint8)
        for s, n in (("train", 6), ("val", 3), ("test", 2))
    }
    assert import_npz(archive(tmp_path, **everything)).dataset is None


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "opened",)

    labels = np.asarray([Bomb()] * 6, object)
    found = import_npz(archive(tmp_path, train_labels=labels))
    assert [item.where for item in found.refused] == ["train_labels"]
    assert not (tmp_path / "opened").exists()


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(10**9, 28, 28), (10**6, 28, 28), (2**40, 2**40, 2**40)])
def test_headers_and_bombs_cost_no_memory(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        with made.open("train_images.npy", "w") as entry:
            entry.write(header(shape))
            for _ in range(64):
                entry.write(bytes(2**20))
        made.writestr("train_labels.npy", header((6,)) + bytes(6))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = import_npz(path)
    assert found.dataset is None
    assert "declares" in found.refused[0].refused
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"


def test_what_is_no_archive_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("missing.npz", "text.npz", "other.npz"):
        with pytest.raises(DataError) as error:
            import_npz(tmp_path / name)
        assert str(tmp_path) not in str(error.value)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_damaged_archives_give_typed_errors_or_refusals(
    tmp_path: Path, data: st.DataObject
) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays())
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.npz"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with contextlib.suppress(FastGANAugError):
        import_npz(path, size=28)
