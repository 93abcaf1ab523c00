from __future__ import annotations

import gzip
import itertools
import resource
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from clinical import GAP_MM, PIXEL_MM, SIZE, SLICES, truth, write_labels, write_nifti

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.importing import Import
from fastgan_aug.data.importers.nifti import import_nifti
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.errors import DataError, MissingPatientIds

KEY = PseudonymKey(bytes(32))
COLUMNS = "file,slice,kind,patient_id"


def bring(root: Path, **options: Any) -> Import:
    chosen = {"factors": ["kind"], "key": KEY, "size": SIZE} | options
    return import_nifti(root, Path("labels.csv"), **chosen)


def whole(root: Path, name: str = "a.nii") -> Import:
    write_labels(root, *(f"{name},{k},x,p" for k in range(SLICES)), columns=COLUMNS)
    return bring(root)


def restored(dataset: Dataset) -> np.ndarray:
    counts = dataset.images.astype(float) * dataset.column("scale")[:, None, None]
    return counts[np.argsort(dataset.column("z"))]


def patched(path: Path, offset: int, content: bytes) -> Path:
    """The file with other bytes at ``offset`` of its header."""
    old = path.read_bytes()
    path.write_bytes(old[:offset] + content + old[offset + len(content) :])
    return path


ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_gives_the_same_slices(tmp_path: Path, codes: str):
    name = "a.nii.gz" if codes.startswith("L") else "a.nii"
    write_nifti(tmp_path / name, codes)
    imported = whole(tmp_path, name)
    assert imported.dataset is not None, imported.items
    np.testing.assert_allclose(restored(imported.dataset), truth(), rtol=1e-6)
    assert sorted(imported.dataset.column("z")) == [GAP_MM * k for k in range(SLICES)]
    assert imported.dataset.meta.laterality == "radiological"
    assert imported.dataset.meta.pixel_mm == PIXEL_MM
    assert imported.items[0].slices == SLICES


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64, ">i2", ">f4"])
def test_every_type_and_byte_order_gives_the_same_slices(tmp_path: Path, kind: Any):
    image = nibabel.load(write_nifti(tmp_path / "b.nii", dtype=np.float32))
    data = np.minimum(np.asarray(image.dataobj), 250)
    order = ">" if str(kind).startswith(">") else "<"
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.dtype(kind))
    nibabel.save(nibabel.Nifti1Image(data.astype(kind), image.affine, header), tmp_path / "a.nii")
    imported = whole(tmp_path)
    assert imported.dataset is not None, imported.items
    np.testing.assert_allclose(restored(imported.dataset), np.minimum(truth(), 250), rtol=1e-6)
    eight_bit = kind is np.uint8
    assert ("8 bits" in str(imported.items[0].warnings)) == eight_bit
    assert imported.dataset.meta.extra == {"eight_bit": SLICES * eight_bit}


def test_scaling_and_nifti_2_and_metres(tmp_path: Path):
    image = nibabel.load(write_nifti(tmp_path / "b.nii"))
    affine = image.affine / 1000
    affine[3, 3] = 1
    second = nibabel.Nifti2Image(np.asarray(image.dataobj), affine)
    second.header.set_xyzt_units("meter")
    second.header.set_slope_inter(0.5, 3)
    nibabel.save(second, tmp_path / "a.nii")
    patched(tmp_path / "a.nii", 176, np.asarray([0.5, 3.0], "<f8").tobytes())
    imported = whole(tmp_path)
    assert imported.dataset is not None, imported.items
    np.testing.assert_allclose(restored(imported.dataset), truth() * 0.5 + 3, rtol=1e-6)
    assert imported.dataset.meta.pixel_mm == PIXEL_MM


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1)])
def test_left_and_right_are_claimed_only_where_a_form_tells_them(
    tmp_path: Path, codes: tuple[int, int]
):
    write_nifti(tmp_path / "a.nii", "LAS", sform=codes[0], qform=codes[1])
    imported = whole(tmp_path)
    assert imported.dataset is not None
    if any(codes):
        assert imported.dataset.meta.laterality == "radiological"
        np.testing.assert_allclose(restored(imported.dataset), truth(), rtol=1e-6)
    else:
        assert imported.dataset.meta.laterality == "unverified"
        assert "left from right" in imported.items[0].warnings[0]
        assert "unverified" in imported.warnings[0]


def test_forms_that_disagree_claim_nothing(tmp_path: Path):
    image = nibabel.load(write_nifti(tmp_path / "a.nii", "RAS"))
    flipped = image.affine @ np.diag([-1, 1, 1, 1])
    image.set_qform(flipped, 1)
    image.set_sform(image.affine, 1)
    nibabel.save(image, tmp_path / "b.nii")
    imported = whole(tmp_path, "b.nii")
    assert imported.dataset is not None
    assert imported.dataset.meta.laterality == "unverified"


def test_patients_and_scans_become_pseudonyms(tmp_path: Path):
    for name in ("DOE-rest.nii", "DOE-stress.nii", "c.nii"):
        write_nifti(tmp_path / name)
    lines = ["DOE-rest.nii,1,x,DOE", "DOE-stress.nii,1,x,DOE", "c.nii,1,x,q"]
    write_labels(tmp_path, *lines, columns=COLUMNS)
    imported = bring(tmp_path)
    assert imported.dataset is not None
    assert set(imported.dataset.patients) == {KEY.patient("DOE"), KEY.patient("q")}
    assert len(set(imported.dataset.column("scan_id"))) == 3
    imported.dataset.write(tmp_path / "d.parquet")
    assert b"DOE" not in (tmp_path / "d.parquet").read_bytes()
    assert "DOE" not in repr(imported.items)


def test_a_scan_column_names_scans_and_one_scan_is_one_volume(tmp_path: Path):
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii")
    lines = [f"{name}.nii,1,x,p,{visit}" for name, visit in (("a", 1), ("b", 1), ("c", 2))]
    write_labels(tmp_path, *lines, columns=COLUMNS + ",visit")
    imported = bring(tmp_path, scan_column="visit")
    assert imported.dataset is not None
    assert set(imported.dataset.column("scan_id")) == {KEY.scan("p", "1"), KEY.scan("p", "2")}
    assert imported.refused[0].refused == "another volume has the same patient and scan"


def test_neighbours_are_taken_and_bad_ones_left_out(tmp_path: Path):
    image = nibabel.load(write_nifti(tmp_path / "b.nii", dtype=np.float32))
    data = np.asarray(image.dataobj).copy()
    data[:, :, 3] = 0
    data[:, :, 1] = np.nan
    data[0, 0, 2] = -1e-3
    data[0, 0, 5] = -500
    nibabel.save(nibabel.Nifti1Image(data, image.affine), tmp_path / "a.nii")
    write_labels(tmp_path, *(f"a.nii,{k},x,p" for k in (2, 5, 1)), columns=COLUMNS)
    imported = bring(tmp_path)
    assert imported.dataset is not None
    assert len(imported.dataset) == 1
    volume, unnamed, *refused = imported.items
    assert unnamed.where == "file 2"
    assert volume.warnings == (
        "tiny negative values were set to zero",
        "a neighbour is empty or no image of counts, and is left out",
    )
    assert {item.where: item.refused for item in refused} == {
        "line 3": "it holds negative values",
        "line 4": "it holds values that are not finite",
    }


def bomb(path: Path, dims: list[int], datatype: int = 16, bits: int = 32) -> Path:
    """A NIfTI of these dimensions whose voxels, if any, are zeros."""
    write_nifti(path.with_name("b.nii"))
    header = bytearray(path.with_name("b.nii").read_bytes()[:352])
    header[40:56] = np.asarray([len(dims), *dims, 1, 1, 1, 1, 1][:8], "<i2").tobytes()
    header[70:74] = np.asarray([datatype, bits], "<i2").tobytes()
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header)
        for _ in range(64):
            stream.write(bytes(2**20))
    path.with_name("b.nii").unlink()
    return path


@pytest.mark.parametrize(
    ("dims", "datatype", "why"),
    [
        ([32767, 32767, 32767], 16, "declares 32767 x 32767 x 32767"),
        ([1024, 512, 512], 16, "declares"),
        ([512, 512, 512], 64, "declares"),
        ([0, 4, 4], 16, "declares 0 x 4"),
        ([-4, 4, 4], 16, "declares -4 x 4"),
        ([4, 4], 16, "not three"),
        ([4, 4, 4, 2], 16, "not three"),
        ([4, 4, 4], 128, "no real numbers"),
        ([4, 4, 4], 32, "no real numbers"),
        ([4, 4, 4], 999, "cannot be read"),
        ([300, 300, 300], 16, "cut short"),
    ],
)
def test_bombs_and_what_is_no_volume_are_refused(
    tmp_path: Path, dims: list[int], datatype: int, why: str
):
    bomb(tmp_path / "a.nii.gz", dims, datatype)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    imported = whole(tmp_path, "a.nii.gz")
    assert imported.dataset is None
    assert why in imported.items[0].refused
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024


@pytest.mark.parametrize(
    ("offset", "content", "why"),
    [
        (0, b"JUNK", "no NIfTI"),
        (344, b"ni1\0", "one part"),
        (108, np.float32(1e9).tobytes(), "no usable place"),
        (108, np.float32(np.nan).tobytes(), "no usable place"),
        (108, np.float32(-8).tobytes(), "no usable place"),
        (280, np.full(12, np.inf, "<f4").tobytes(), ""),  # the qform is left
        (40, np.int16(9).tobytes(), "not three"),
    ],
)
def test_damaged_headers_are_refused(tmp_path: Path, offset: int, content: bytes, why: str):
    patched(write_nifti(tmp_path / "a.nii"), offset, content)
    imported = whole(tmp_path)
    assert (imported.dataset is None) == bool(why)
    assert why in imported.items[0].refused


def test_a_truncated_file_is_refused_and_stops_nothing(tmp_path: Path):
    good = write_nifti(tmp_path / "good.nii.gz").read_bytes()
    for i, length in enumerate((0, 1, 2, 10, 100, 200, len(good) - 9)):
        (tmp_path / f"bad{i}.nii.gz").write_bytes(good[:length])
    lines = [f"bad{i}.nii.gz,1,x,p" for i in range(7)] + ["good.nii.gz,4,x,p"]
    write_labels(tmp_path, *lines, columns=COLUMNS)
    imported = bring(tmp_path)
    assert imported.dataset is not None
    assert len(imported.dataset) == 3
    assert len(imported.refused) == 7


def test_an_oblique_volume_is_refused(tmp_path: Path):
    image = nibabel.load(write_nifti(tmp_path / "b.nii"))
    c, s = np.cos(0.6), np.sin(0.6)
    turned = np.asarray([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ image.affine
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), turned), tmp_path / "a.nii")
    assert "turned by 34 degrees" in whole(tmp_path, "a.nii").items[0].refused


def test_labels_must_fit_the_volumes(tmp_path: Path):
    for name in "abc":
        write_nifti(tmp_path / f"{name}.nii")
    lines = ["a.nii,1,x,p", "a.nii,9,x,p", "JANE.nii,1,x,p", "b.nii,1,x,p", "b.nii,2,x,q"]
    write_labels(tmp_path, *lines, columns=COLUMNS)
    imported = bring(tmp_path)
    assert imported.dataset is not None
    refused = {item.where: item.refused for item in imported.refused}
    assert "they are 0 to 5" in refused["line 3"]
    assert "no NIfTI volume" in refused["line 4"]
    assert "2 values of patient_id" in refused["file 2"]
    assert "no line of the labels" in refused["file 3"]
    assert "JANE" not in repr(imported)


def test_labels_as_a_whole_must_be_right(tmp_path: Path):
    write_nifti(tmp_path / "a.nii")
    write_labels(tmp_path, "a.nii,1,x")
    with pytest.raises(MissingPatientIds):
        bring(tmp_path)
    write_labels(tmp_path, "a.nii,1,x,p", "a.nii,1,x,p", columns=COLUMNS)
    with pytest.raises(DataError, match="line 2"):
        bring(tmp_path)


@pytest.mark.parametrize("how", ["header", "labels"])
def test_the_mark_of_synthetic_volumes_is_kept(tmp_path: Path, how: str):
    write_nifti(tmp_path / "a.nii")
    write_nifti(tmp_path / "b.nii")
    if how == "header":
        patched(tmp_path / "a.nii", 328, b"SYNTHETIC\0")
    mark = "True" if how == "labels" else ""
    lines = [f"a.nii,2,x,p,{mark}", "b.nii,2,x,q,False"]
    write_labels(tmp_path, *lines, columns=COLUMNS + ",synthetic")
    dataset = bring(tmp_path).dataset
    assert dataset is not None
    assert dataset.column("synthetic").tolist() == [True] * 3 + [False] * 3
