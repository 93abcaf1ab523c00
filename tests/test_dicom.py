"""What is read of DICOM files: the true slices, whatever way they are stored."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clinical import (
    GAP_MM,
    PIXEL_MM,
    SIZE,
    SLICES,
    nm_header,
    truth,
    write_dicom,
    write_labels,
    write_nm,
    write_series,
)
from dicom_imports import KEY, assert_true, assert_true_volume, bring, restored, volumes_of, whole
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from fastgan_aug.data.importers import dicom_reader, volumes
from fastgan_aug.errors import MissingPatientIds


def test_every_orientation_of_a_tomogram_gives_the_same_slices(tmp_path: Path):
    lines = []
    for flips in itertools.product((1, -1), repeat=3):
        for transposed in (False, True):
            name = f"{len(lines) // SLICES}.dcm"
            write_nm(tmp_path / name, flips, transposed=transposed)
            lines += [f"{name},{k},x" for k in range(SLICES)]
    write_labels(tmp_path, *lines)
    found = volumes_of(bring(tmp_path))
    assert len(found) == 16
    for dataset in found:
        assert_true_volume(dataset)


def test_slice_vector_and_feet_first_are_followed(tmp_path: Path):
    write_nm(tmp_path / "a.dcm", (-1, 1, -1), order=[3, 0, 5, 1, 4, 2], PatientPosition="FFS")
    assert_true(whole(tmp_path))


def test_every_orientation_of_a_series_gives_the_same_slices(tmp_path: Path):
    lines, cases = [], itertools.product(("PT", "NM", "MR"), (1, -1), (1, -1), (False, True))
    for i, (modality, rows, columns, reverse) in enumerate(cases):
        write_series(tmp_path / f"p/{i}", (1, rows, columns), modality, reverse)
        lines += [f"p/{i},{k},x" for k in range(SLICES)]
    write_labels(tmp_path, *lines)
    imported = bring(tmp_path)
    found = volumes_of(imported)
    assert len(found) == 24
    for dataset in found:
        assert_true_volume(dataset)
    first = imported.items[0]
    assert (first.where, first.slices, first.labelled) == ("files 2 to 7", SLICES, SLICES)


def test_the_blob_is_left_in_front_above(tmp_path: Path):
    write_nm(tmp_path / "a.dcm", (-1, -1, 1))
    dataset = whole(tmp_path).dataset
    assert dataset is not None
    top = dataset.images[np.argmax(dataset.column("z"))]
    rows, columns = np.nonzero(top > 0.9)
    assert rows.max() < SIZE / 2 < columns.min()


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless],
)
def test_every_lossless_syntax_that_can_be_read_gives_the_same_slices(tmp_path: Path, syntax: Any):
    if syntax == RLELossless:
        write_nm(tmp_path / "a.dcm")
        from pydicom import dcmread

        packed = dcmread(tmp_path / "a.dcm")
        packed.compress(RLELossless, generate_instance_uid=False)
        packed.save_as(tmp_path / "a.dcm")
    else:
        header = nm_header()
        header.file_meta.TransferSyntaxUID = syntax
        write_dicom(tmp_path / "a.dcm", header, truth())
    assert_true(whole(tmp_path))


def test_rescaling_is_applied(tmp_path: Path):
    write_nm(tmp_path / "a.dcm", RescaleSlope=0.5, RescaleIntercept=3)
    dataset = whole(tmp_path).dataset
    assert dataset is not None
    np.testing.assert_allclose(restored(dataset), truth() * 0.5 + 3, rtol=1e-6)


def test_each_slice_of_a_series_has_its_own_slope(tmp_path: Path):
    write_series(tmp_path / "s", RescaleSlope=lambda k: k + 1, RescaleIntercept=0, Units="BQML")
    dataset = whole(tmp_path, "s").dataset
    assert dataset is not None
    slopes = np.arange(1, SLICES + 1)[:, None, None]
    np.testing.assert_allclose(restored(dataset), truth() * slopes, rtol=1e-6)
    assert set(dataset.column("unit")) == {"Bq/ml"}


def test_neighbours_come_from_the_volume_each_once(tmp_path: Path):
    write_nm(tmp_path / "a.dcm")
    write_labels(tmp_path, "a.dcm,1,x", "a.dcm,3,y", "a.dcm,5,")
    dataset = bring(tmp_path).dataset
    assert dataset is not None
    places = (dataset.column("z") / GAP_MM).round().astype(int)
    assert places.tolist() == [0, 1, 2, 3, 4, 5]
    assert dataset.labelled.tolist() == [False, True, False, True, False, False]
    assert [sorted(n.tolist()) for n in dataset.neighbours()][1] == [0, 2]


def test_a_missing_slice_has_no_neighbours_across_it(tmp_path: Path):
    write_series(tmp_path / "s", skip=[2])
    write_labels(tmp_path, "s,1,x", "s,3,x")
    imported = bring(tmp_path)
    assert imported.dataset is not None
    (item,) = imported.items
    assert item.slices == SLICES - 1
    assert "slices are missing between others (1 of them)" in item.warnings[0]
    places = (imported.dataset.column("z") / GAP_MM).round().astype(int).tolist()
    assert places == [0, 1, 3, 4, 5]
    assert imported.dataset.labelled.tolist() == [False, True, False, True, False]
    beside = imported.dataset.neighbours()
    assert beside[1].tolist() == [0]
    assert sorted(beside[3].tolist()) == [2, 4]


def test_patients_and_scans_become_pseudonyms(tmp_path: Path):
    for name, visit in (("rest", 1), ("stress", 2)):
        write_nm(tmp_path / f"{name}.dcm", StudyDate=f"2020010{visit}")
    write_nm(tmp_path / "other.dcm", PatientID="H-1", IssuerOfPatientID="elsewhere")
    write_labels(tmp_path, "rest.dcm,1,x", "stress.dcm,1,x", "other.dcm,1,x")
    dataset = bring(tmp_path).dataset
    assert dataset is not None
    assert set(dataset.patients) == {KEY.patient("H-4711"), KEY.patient("elsewhere\0H-1")}
    assert len(set(dataset.column("scan_id"))) == 3
    assert dataset.meta.pseudonym_key == KEY.id
    dataset.write(tmp_path / "d.parquet")
    content = (tmp_path / "d.parquet").read_bytes()
    for secret in (b"4711", b"Doe", b"Jane", b"2020", b"elsewhere", b"rest.dcm"):
        assert secret not in content


def test_the_patient_may_stand_in_the_labels(tmp_path: Path):
    write_nm(tmp_path / "a.dcm", PatientID="")
    write_nm(tmp_path / "b.dcm", PatientID="")
    columns = "file,slice,kind,patient_id"
    write_labels(tmp_path, "a.dcm,1,x,p", "b.dcm,1,x,", columns=columns)
    imported = bring(tmp_path)
    assert imported.dataset is not None
    assert imported.dataset.patients == [KEY.patient("p")]
    assert imported.refused[0].refused == "its lines have no patient_id"
    write_labels(tmp_path, "a.dcm,1,x,", columns=columns)
    with pytest.raises(MissingPatientIds):
        bring(tmp_path)
    write_labels(tmp_path, "a.dcm,1,x")
    assert bring(tmp_path).refused[0].refused == "its header has no PatientID"


def test_eight_bits_and_lost_counts_are_taken_with_a_warning(tmp_path: Path):
    small = np.minimum(truth(), 255).astype(np.uint8)
    header = nm_header(BitsAllocated=8, BitsStored=8, HighBit=7, LossyImageCompression="01")
    write_dicom(tmp_path / "a.dcm", header, small)
    imported = whole(tmp_path)
    assert imported.dataset is not None
    np.testing.assert_allclose(restored(imported.dataset), small, rtol=1e-6)
    assert imported.dataset.meta.extra == {"eight_bit": SLICES}
    assert [text.partition(":")[0] for text in imported.items[0].warnings] == [
        "it was compressed with losses before", "8 bits",
    ]  # fmt: skip


def test_synthetic_data_stay_marked(tmp_path: Path):
    write_nm(tmp_path / "a.dcm", SyntheticData="YES")
    dataset = whole(tmp_path).dataset
    assert dataset is not None
    assert dataset.column("synthetic").all()


def test_volumes_of_other_pixels_come_to_the_common_one(tmp_path: Path):
    for name in "ab":
        write_nm(tmp_path / f"{name}.dcm")
    write_nm(tmp_path / "c.dcm", PixelSpacing=[8.0, 8.0])
    write_labels(tmp_path, *(f"{name}.dcm,4,x" for name in "abc"))
    imported = bring(tmp_path)
    assert imported.dataset is not None
    assert imported.dataset.meta.pixel_mm == PIXEL_MM
    assert "cuts it" in imported.items[2].warnings[0]


def test_oblong_pixels_become_square_whatever_the_stored_order(tmp_path: Path):
    oblong = np.repeat(truth(), 2, axis=1)  # rows half as far apart as columns
    header = nm_header(Rows=2 * SIZE, PixelSpacing=[PIXEL_MM / 2, PIXEL_MM])
    write_dicom(tmp_path / "a.dcm", header, oblong)
    turned = nm_header(Columns=2 * SIZE, PixelSpacing=[PIXEL_MM, PIXEL_MM / 2])
    turned.DetectorInformationSequence[0].ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
    turned.SpacingBetweenSlices = -GAP_MM
    write_dicom(tmp_path / "b.dcm", turned, oblong.transpose(0, 2, 1).copy())
    write_labels(tmp_path, *(f"{name}.dcm,{k},x" for name in "ab" for k in range(SLICES)))
    found = volumes_of(bring(tmp_path))
    assert len(found) == 2
    for dataset in found:
        assert_true_volume(dataset)
        assert dataset.meta.pixel_mm == PIXEL_MM


def test_reader_and_importer_have_one_limit():
    assert dicom_reader.MAX_VOXELS == volumes.MAX_VOXELS
