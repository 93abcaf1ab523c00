from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy import COUNTS, SIZE, make_toy_folder, toy_dataset

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.importers.importing import Import
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.errors import (
    DataError,
    FastGANAugError,
    MissingPatientIds,
    UnknownFactorValue,
)

KEY = PseudonymKey(bytes(32))

PICTURE = np.arange(64, dtype=np.uint8).reshape(8, 8)


def folder(root: Path, csv: str, **images: Any) -> Path:
    """A folder with a CSV and images, each an array (by suffix) or bytes."""
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(csv, encoding="utf-8")
    for name, content in images.items():
        path = root / name.replace("_", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".npy":
            np.save(path, content)
        else:
            Image.fromarray(content).save(path)
    return root


def bring(root: Path, **options: Any) -> Import:
    chosen = {"factors": ["kind"], "size": 8, "key": KEY} | options
    return import_folder(root, Path("labels.csv"), **chosen)


def take(root: Path, **options: Any) -> Dataset:
    imported = bring(root, **options)
    assert imported.dataset is not None, imported.items
    assert not imported.refused
    return imported.dataset


def picture(root: Path, content: Any, name: str = "a_png") -> Path:
    csv = f"file,patient_id,kind\n{name.replace('_', '.')},p,x\n"
    return folder(root, csv, **{name: content})


def one(root: Path, content: Any, name: str = "a_png") -> Dataset:
    return take(picture(root, content, name))


def test_the_toy_folder_comes_in_whole(toy: Dataset):
    assert {str(c): n for c, n in toy.class_counts.items()} == COUNTS
    assert toy.meta.size == SIZE
    assert toy.meta.laterality == "unverified"
    assert (toy.images.max((1, 2)) == 1).all()
    assert (~toy.labelled).sum() > 0


def test_the_same_folder_gives_the_same_digest(toy: Dataset, tmp_path: Path):
    assert toy_dataset(tmp_path).digest == toy.digest
    assert toy_dataset(tmp_path, seed=1).digest != toy.digest


def test_image_times_scale_is_the_source(toy: Dataset, tmp_path: Path):
    root = make_toy_folder(tmp_path)
    source = np.asarray(Image.open(root / "images" / "0000.png"), np.float64)
    restored = toy.images[0].astype(np.float64) * toy.column("scale")[0]
    np.testing.assert_allclose(restored, source, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a_png", np.uint8), ("a_png", np.uint16), ("a_tif", np.uint8), ("a_tif", np.uint16),
     ("a_tiff", np.float32), ("a_npy", np.uint8), ("a_npy", np.uint16), ("a_npy", np.float32),
     ("a_npy", np.float64)],
)  # fmt: skip
def test_every_format_gives_the_same_slice(tmp_path: Path, name: str, kind: type):
    dataset = one(tmp_path, PICTURE.astype(kind), name)
    np.testing.assert_array_equal(dataset.images[0], (PICTURE / 63).astype(np.float32))
    assert dataset.column("scale").tolist() == [63.0]


def test_eight_bit_sources_are_taken_with_a_warning(tmp_path: Path):
    assert not bring(picture(tmp_path, PICTURE.astype(np.uint16))).warnings
    imported = bring(picture(tmp_path, PICTURE))
    assert imported.dataset is not None
    assert "1 of 1 images have 8 bits" in imported.warnings[0]
    assert imported.dataset.meta.extra == {"eight_bit": 1}


def test_rows_with_an_empty_factor_are_neighbours(tmp_path: Path):
    csv = "file,patient_id,kind,grade,slice\na.png,p,x,1,2\nb.png,p,x,,1\nc.png,p,,,3\n"
    root = folder(tmp_path, csv, a_png=PICTURE, b_png=PICTURE, c_png=PICTURE)
    dataset = take(root, factors=["kind", "grade"], z_column="slice")
    assert dataset.column("role").tolist() == ["labelled", "neighbour", "neighbour"]
    assert dataset.table["kind"].to_pylist() == ["x", None, None]
    assert sorted(dataset.neighbours()[0].tolist()) == [1, 2]


def test_values_stand_in_order_of_appearance_or_as_declared(tmp_path: Path):
    csv = "file,patient_id,kind\na.png,p,late\nb.png,q,early\n"
    root = folder(tmp_path, csv, a_png=PICTURE, b_png=PICTURE)
    assert take(root).meta.space.to_dict() == {"kind": ["late", "early"]}
    declared = take(root, values={"kind": ["early", "late", "never"]})
    assert [str(c) for c in declared.class_counts] == ["early", "late", "never"]
    with pytest.raises(UnknownFactorValue, match=r"line 2\)\. Allowed: early"):
        take(root, values={"kind": ["early"]})


def test_scans_of_different_patients_may_have_the_same_name(tmp_path: Path):
    csv = "file,patient_id,kind,visit\na.png,p,x,1\nb.png,q,x,1\n"
    dataset = take(folder(tmp_path, csv, a_png=PICTURE, b_png=PICTURE), scan_column="visit")
    assert len(set(dataset.column("scan_id"))) == 2


def test_no_file_name_is_kept(tmp_path: Path):
    csv = "file,patient_id,kind\njane-doe.png,p,x\n"
    root = folder(tmp_path, csv)
    Image.fromarray(PICTURE).save(root / "jane-doe.png")
    dataset = take(root)
    dataset.write(tmp_path / "d.parquet")
    assert "jane" not in str(dataset.table.to_pylist()) + dataset.meta.to_json()
    assert b"jane" not in (tmp_path / "d.parquet").read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a_npy", PICTURE.astype(complex)),
        ("a_npy", np.zeros((0, 8))),
        ("a_npy", np.zeros(8)),
        ("a_png", np.zeros((8, 8), np.uint8)),  # empty
        ("a_png", np.full((8, 8), 7, np.uint8)),  # constant
        ("a_png", np.zeros((8, 8, 3), np.uint8)),  # colours are no counts
        ("a_png", b"no picture"),
        ("a_png", b""),
        ("a_npy", b"no array"),
        ("a_npy", b""),
        ("a_npy", np.full((8, 8), np.nan)),
        ("a_npy", PICTURE - 10.0),  # negative
        ("a_npy", np.zeros((2, 8, 8))),
        ("a_npy", np.asarray(["text"])),
        ("a_jpg", PICTURE),
    ],
)
def test_what_is_no_slice_is_refused(tmp_path: Path, name: str, content: Any):
    imported = bring(picture(tmp_path, content, name))
    assert imported.dataset is None
    (item,) = imported.items
    assert item.where == "line 2"
    assert item.refused


NAME = "SMITH_JOHN_19520101"
DAMAGED = [
    b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40), b"II*\0\x08\0\0\0\xff\xff" + bytes(30), None,
    np.zeros((8, 9), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("suffix", ["png", "tif", "npy", NAME])
def test_a_bad_file_is_refused_without_its_name_and_stops_nothing(
    tmp_path: Path, content: Any, suffix: str
):
    path = tmp_path / f"{NAME}.{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None and suffix == "npy":
        np.save(path, content)
    elif content is not None:
        Image.fromarray(content).save(path, "tiff" if suffix == "tif" else "png")
    np.save(tmp_path / "good.npy", PICTURE)
    csv = f"file,patient_id,kind\n\ngood.npy,p,x\n{path.name},p,x\n"
    imported = bring(folder(tmp_path, csv))
    assert imported.dataset is not None
    assert [(item.where, bool(item.refused)) for item in imported.items] == [
        ("line 3", False),
        ("line 4", True),
    ]
    assert NAME not in repr(imported)


@pytest.mark.parametrize(
    "csv",
    [
        f"file,patient_id,kind\n{NAME}.png,p,x\n{NAME}.png,p,x\n",
        f"{NAME}.png,p,x\nb.png,p,x\n",
        f"file,patient_id,kind\n{NAME}.png,,x\n",
        f"file,patient_id,kind,z\n{NAME}.png,p,x,{NAME}.png\n",
    ],
)
def test_no_error_of_the_labels_shows_a_file_s_name(tmp_path: Path, csv: str):
    folder(tmp_path, csv, **{f"{NAME}.png": PICTURE})
    with pytest.raises(DataError, match="line") as caught:
        bring(tmp_path, z_column="z" if "kind,z" in csv else None)
    assert NAME not in "".join(traceback.format_exception(caught.value))


def test_a_pickled_array_is_never_loaded(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.asarray([[{"an": "object"}]]), allow_pickle=True)
    imported = bring(picture(tmp_path, (tmp_path / "a.npy").read_bytes(), "a_npy"))
    assert imported.dataset is None
    assert "cannot be decoded" in imported.items[0].refused


@pytest.mark.parametrize(
    ("csv", "error"),
    [
        ("", DataError),
        ("file,patient_id,kind\n", DataError),
        ("file,kind\na.png,x\n", MissingPatientIds),
        ("file,patient_id,kind\na.png,,x\n", MissingPatientIds),
        ("file,patient_id\na.png,p\n", DataError),
        ("patient_id,kind\np,x\n", DataError),
        ("file,patient_id,kind\na.png,p,\n", DataError),
        ("file,patient_id,kind\na.png,p,x\na.png,q,x\n", DataError),
    ],
)
def test_bad_labels_are_refused(tmp_path: Path, csv: str, error: type[FastGANAugError]):
    with pytest.raises(error):
        bring(folder(tmp_path, csv, a_png=PICTURE))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("b.png,p,x,1", "no image of the name"),
        (",p,x,1", "no image of the name"),
        ("a.png,,x,1", "no patient_id"),
        ("a.png,p,x,", "no finite number"),
        ("a.png,p,x,inf", "no finite number"),
    ],
)
def test_a_bad_line_is_refused_and_stops_nothing(tmp_path: Path, line: str, why: str):
    csv = f"file,patient_id,kind,z\nc.png,p,x,1\n{line}\n"
    imported = bring(folder(tmp_path, csv, a_png=PICTURE, c_png=PICTURE), z_column="z")
    assert imported.dataset is not None
    assert len(imported.dataset) == 1
    assert [item.where for item in imported.refused] == ["line 3"]
    assert why in imported.refused[0].refused


def test_ids_become_pseudonyms_of_the_key(tmp_path: Path):
    csv = "file,patient_id,kind,visit\na.png,JANE DOE,x,day-one\nb.png,JANE DOE,x,day-two\n"
    dataset = take(folder(tmp_path, csv, a_png=PICTURE, b_png=PICTURE), scan_column="visit")
    assert dataset.patients == [KEY.patient("JANE DOE")]
    assert dataset.column("scan_id").tolist() == [
        KEY.scan("JANE DOE", "day-one"), KEY.scan("JANE DOE", "day-two"),
    ]  # fmt: skip
    assert dataset.meta.pseudonym_key == KEY.id


def test_images_without_patients_are_each_a_group(tmp_path: Path):
    root = folder(tmp_path, "file,kind\na.png,x\nb.png,x\n", a_png=PICTURE, b_png=PICTURE)
    imported = bring(root, patient_column=None)
    assert imported.dataset is not None
    assert imported.dataset.meta.grouping == "none"
    assert len(imported.dataset.patients) == len(set(imported.dataset.column("scan_id"))) == 2
    assert any("nothing may be claimed" in warning for warning in imported.warnings)


def test_known_pixels_are_all_brought_to_one(tmp_path: Path):
    csv = "file,patient_id,kind,z\na.npy,p,x,0\nb.npy,p,x,4\nc.npy,p,x,20\n"
    head = np.zeros((16, 12))
    head[4:12, 3:9] = 1
    large = np.zeros((32, 32))
    large[:18] = 1
    root = folder(tmp_path, csv, a_npy=head, b_npy=head, c_npy=large)
    imported = bring(root, z_column="z", pixel_mm=2.0)
    assert imported.dataset is not None
    assert imported.dataset.meta.pixel_mm == 4.0
    assert [len(rows) for rows in imported.dataset.neighbours()] == [1, 1, 0]
    assert imported.dataset.images[0].sum() == 12
    assert [item.warnings != () for item in imported.items] == [False, False, True]
    assert "the new field cuts it" in imported.items[2].warnings[0]


@pytest.mark.parametrize("pixel", [0.0, -1.0, float("nan"), 1e9])
def test_a_pixel_has_a_size(tmp_path: Path, pixel: float):
    with pytest.raises(DataError, match="pixel"):
        bring(folder(tmp_path, ""), pixel_mm=pixel)


@pytest.mark.parametrize("z", ["", "low", "nan"])
def test_a_position_must_be_a_number(tmp_path: Path, z: str):
    csv = f"file,patient_id,kind,z\na.png,p,x,{z}\n"
    with pytest.raises(DataError, match="z"):
        bring(folder(tmp_path, csv, a_png=PICTURE), z_column="z")


@pytest.mark.parametrize(
    ("places", "z", "neighbours", "said"),
    [
        ("123", "z", [[1], [0, 2], [1]], None),
        ("112", "z", [[], [], []], "2 of 3 slices share"),
        ("159", "z", [[], [], []], "no slice has a neighbour"),
        ("123", None, [[], [], []], None),
    ],
)
def test_positions_tell_neighbours_and_what_cannot_be_told_is_said(
    tmp_path: Path,
    places: str,
    z: str | None,
    neighbours: list[list[int]],
    said: str | None,
):
    rows = "".join(f"{i}.npy,p,x,{place}\n" for i, place in enumerate(places))
    root = folder(tmp_path, "file,patient_id,kind,z\n" + rows)
    for i in range(3):
        np.save(root / f"{i}.npy", PICTURE.astype(np.float32))
    imported = bring(root, z_column=z)
    assert imported.dataset is not None
    assert [sorted(found.tolist()) for found in imported.dataset.neighbours()] == neighbours
    assert said in imported.warnings[0] if said else not imported.warnings


def test_a_missing_csv_and_a_wrong_laterality_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="labels"):
        take(tmp_path)
    with pytest.raises(DataError, match="radiological"):
        take(folder(tmp_path, ""), laterality="left")


def test_a_slice_keeps_its_orientation(tmp_path: Path):
    corner = np.zeros((16, 16), np.uint16)
    corner[:4, 12:] = 1000
    dataset = one(tmp_path, corner)
    assert np.argwhere(dataset.images[0] == 1).tolist() == [[0, 6], [0, 7], [1, 6], [1, 7]]


def test_the_mark_of_synthetic_images_is_kept(tmp_path: Path):
    csv = "file,patient_id,kind,synthetic\na.npy,p,x,True\nb.npy,q,x,False\nc.npy,r,x,\n"
    dataset = take(folder(tmp_path, csv, a_npy=PICTURE, b_npy=PICTURE, c_npy=PICTURE))
    assert dataset.column("synthetic").tolist() == [True, False, False]
