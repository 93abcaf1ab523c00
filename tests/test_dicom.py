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
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers import dicom_reader, volumes
from fastgan_aug.data.importers.dicom import import_dicom
from fastgan_aug.data.importers.importing import Import
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.errors import DataError, MissingPatientIds

KEY = PseudonymKey(bytes(32))


def bring(root: Path, **options: Any) -> Import:
    chosen = {"factors": ["kind"], "key": KEY, "size": SIZE} | options
    return import_dicom(root, Path("labels.csv"), **chosen)


def restored(dataset: Dataset) -> np.ndarray:
    """(N, S, S) counts, in ascending order of z."""
    counts = dataset.images.astype(float) * dataset.column("scale")[:, None, None]
    return counts[np.argsort(dataset.column("z"))]


def whole(root: Path, name: str = "a.dcm") -> Import:
    write_labels(root, *(f"{name},{i},x" for i in range(SLICES)))
    return bring(root)


def assert_true(imported: Import) -> None:
    assert imported.dataset is not None, imported.items
    assert_true_volume(imported.dataset)
    assert imported.dataset.meta.laterality == "radiological"
    assert imported.dataset.meta.pixel_mm == PIXEL_MM


def volumes_of(imported: Import) -> list[Dataset]:
    """The data set of each scan."""
    assert imported.dataset is not None, imported.items
    scans = imported.dataset.column("scan_id").astype(str)
    return [imported.dataset.take(scans == scan) for scan in dict.fromkeys(scans)]


def assert_true_volume(dataset: Dataset) -> None:
    np.testing.assert_allclose(restored(dataset), truth(), rtol=1e-6)
    assert sorted(dataset.column("z")) == [GAP_MM * k for k in range(SLICES)]


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


@pytest.mark.parametrize("burned", ["NO", "YES", None])
@pytest.mark.parametrize("synthetic", ["YES", "NO", None])
@pytest.mark.parametrize("conversion", ["SYN", "WSD", None])
def test_secondary_captures_are_taken_of_nobody_alone(
    tmp_path: Path, burned: str | None, synthetic: str | None, conversion: str | None
):
    header = nm_header(1, NumberOfFrames=None, SliceVector=None, FrameIncrementPointer=None)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    told = {"BurnedInAnnotation": burned, "SyntheticData": synthetic, "ConversionType": conversion}
    for name, value in told.items():
        if value is not None:
            setattr(header, name, value)
    write_dicom(tmp_path / "a.dcm", header, truth()[3])
    imported = whole(tmp_path)
    if (burned, synthetic) == ("NO", "YES"):
        assert imported.dataset is not None
        assert imported.dataset.column("synthetic").all()
        assert imported.dataset.meta.laterality == "unverified"
        return
    assert imported.dataset is None
    assert "pixels" in imported.items[0].refused


TILTED = [1, 0, 0, 0, float(np.cos(0.6)), float(np.sin(0.6))]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]}, "raw projections"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "DYNAMIC"]}, "dynamic"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "RECON GATED TOMO"]}, "gated"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "STATIC"]}, "planar"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "TRANSMISSION"]}, "transmission"),
    ({"ImageType": ["ORIGINAL"]}, "does not say what kind"),
    ({"ImageType": None}, "does not say what kind"),
    ({"Modality": "OT"}, "modality"),
    ({"Modality": "CT"}, "enhanced multi-frame"),
    ({"BurnedInAnnotation": "YES"}, "burned into"),
    ({"RecognizableVisualFeatures": "YES"}, "recognised"),
    ({"ConversionType": "WSD"}, "secondary capture"),
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "secondary capture"),
    ({"SamplesPerPixel": 3}, "colour"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "no grey values"),
    ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted"),
    ({"Rows": 0}, "declares 6 frames of 0 x 16"),
    ({"Rows": 60000, "Columns": 60000}, "declares 6 frames of 60000"),
    ({"NumberOfFrames": 2**31 - 1}, "declares 2147483647 frames"),
    ({"NumberOfFrames": 7, "SliceVector": list(range(1, 8))}, "cut short"),
    ({"SliceVector": [1, 1, 2, 2, 3, 3]}, "SliceVector"),
    ({"FrameIncrementPointer": 0x00540070}, "follow each other by slice"),
    ({"SpacingBetweenSlices": None}, "how far its slices lie apart"),
    ({"PixelSpacing": None}, "no pixel spacing"),
    ({"PixelSpacing": [0, 0]}, "no pixel spacing"),
    ({"DetectorInformationSequence": None}, "no orientation"),
    ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "several orientations"),
    ({"SeriesType": ["GATED", "IMAGE"]}, "gated or dynamic"),
    ({"PatientID": None}, "PatientID"),
    ({"SeriesInstanceUID": None}, "no UID"),
]  # fmt: skip


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Import:
    """All of ``REFUSED`` in one import, with a good volume among them."""
    root = tmp_path_factory.mktemp("refused")
    for i, (changes, _) in enumerate(REFUSED):
        header = nm_header()
        header.PixelData = truth().tobytes()
        header["PixelData"].VR = "OW"
        for name, value in changes.items():
            if value is None:
                delattr(header, name)
            else:
                setattr(header, name, value)
        header.save_as(root / f"{i:02d} JANE DOE.dcm", enforce_file_format=True)
    write_nm(root / "good.dcm")
    names = [f"{i:02d} JANE DOE.dcm" for i in range(len(REFUSED))]
    write_labels(root, *(f"{name},1,x" for name in [*names, "good.dcm"]))
    return bring(root)


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[why for _, why in REFUSED])
def test_what_is_no_readable_tomogram_is_refused_with_its_reason(refused: Import, number: int):
    reasons = {item.where: item.refused for item in refused.refused}
    assert REFUSED[number][1] in reasons[f"file {number + 1}"]


def test_the_good_volume_among_the_refused_is_taken(refused: Import):
    assert refused.dataset is not None
    assert len(refused.dataset) == 3
    assert refused.dataset.patients == [KEY.patient("H-4711")]
    assert "DOE" not in repr(refused.items)


@pytest.mark.parametrize(
    ("orientation", "why"),
    [
        (TILTED, "turned by 34 degrees"),
        ([1, 0, 0, 0, 0, -1], "turned by 90 degrees"),
        ([0.8, 0.6, 0, -0.6, 0.8, 0], "turned by 37 degrees"),
        ([1, 0, 0, 1, 0, 0], "right angles"),
        ([0, 0, 0, 0, 0, 0], "right angles"),
    ],
)
def test_slices_that_are_not_transverse_are_refused(
    tmp_path: Path, orientation: list[float], why: str
):
    header = nm_header()
    header.DetectorInformationSequence[0].ImageOrientationPatient = orientation
    write_dicom(tmp_path / "a.dcm", header, truth())
    assert why in whole(tmp_path).refused[0].refused


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless, generate_uid()])
def test_compression_that_loses_or_cannot_be_read_is_refused(tmp_path: Path, syntax: Any):
    path = write_nm(tmp_path / "a.dcm")
    old, new = b"1.2.840.10008.1.2.1\0", str(syntax).encode()
    content = path.read_bytes()
    start = content.index(old) - 2
    length = len(new) + len(new) % 2
    field = length.to_bytes(2, "little") + new.ljust(length, b"\0")
    group = int.from_bytes(content[140:144], "little") + length - len(old)
    head = content[:140] + group.to_bytes(4, "little") + content[144:start]
    path.write_bytes(head + field + content[start + 2 + len(old) :])
    imported = whole(tmp_path)
    assert imported.dataset is None
    assert "compression" in imported.items[0].refused


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ImagePositionPatient": lambda k: [0, 0, k + 0.3 * k**2]}, "unevenly"),
        ({"ImagePositionPatient": lambda k: [0, 0, k // 2]}, "in one place"),
        ({"ImagePositionPatient": lambda k: [0, 3 * k, 3 * k]}, "shifted"),
        ({"ImageOrientationPatient": lambda k: [1, 0, 0, 0, -1 if k else 1, 0]}, "orientation"),
        ({"PixelSpacing": lambda k: [1 + k, 1 + k]}, "differ in spacing"),
        ({"SeriesType": ["DYNAMIC", "IMAGE"]}, "gated or dynamic"),
    ],
)
def test_slices_that_are_no_stack_are_refused(tmp_path: Path, changes: dict[str, Any], why: str):
    write_series(tmp_path / "s", **changes)
    imported = whole(tmp_path, "s")
    assert imported.dataset is None
    assert any(why in item.refused for item in imported.refused)


def test_lines_that_name_no_slice_are_refused_one_by_one(tmp_path: Path):
    write_nm(tmp_path / "a.dcm")
    write_nm(tmp_path / "two" / "b.dcm")
    write_nm(tmp_path / "two" / "c.dcm")
    (tmp_path / "d.dcm").write_bytes(b"nothing")
    lines = ["a.dcm,1,x", "a.dcm,6,x", "a.dcm,-1,x", "a.dcm,JANE,x", "JANE.dcm,1,x", "two,1,x",
             "d.dcm,1,x", "a.dcm,01,x"]  # fmt: skip
    write_labels(tmp_path, *lines)
    imported = bring(tmp_path)
    assert imported.dataset is not None
    assert int(imported.dataset.labelled.sum()) == 1
    refused = {item.where: item.refused for item in imported.refused}
    assert "they are 0 to 5" in refused["line 3"]
    assert "no whole number" in refused["line 4"]
    assert "no whole number" in refused["line 5"]
    assert "no readable DICOM" in refused["line 6"]
    assert "folder of 2 volumes" in refused["line 7"]
    assert "file 2, which was refused" in refused["line 8"]
    assert "same slice" in refused["line 9"]
    assert refused["file 2"] == "it is no DICOM file"
    assert "no line of the labels" in refused["file 4"]
    assert "JANE" not in repr(imported)


def test_a_copy_is_refused(tmp_path: Path):
    path = write_nm(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(path.read_bytes())
    imported = whole(tmp_path)
    assert imported.dataset is not None
    assert imported.refused[0].refused == "it is a copy of file 1"


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


def test_the_labels_and_unreadable_folders_are_no_items(tmp_path: Path):
    write_nm(tmp_path / "a.dcm")
    write_labels(tmp_path, "a.dcm,1,x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.dcm").symlink_to(tmp_path / "a.dcm")
    assert [item.where for item in bring(tmp_path).items] == ["file 1"]


def test_labels_as_a_whole_must_be_right(tmp_path: Path):
    write_nm(tmp_path / "a.dcm")
    for columns in ("file,kind", "slice,kind", "file,slice"):
        write_labels(tmp_path, "a.dcm,1", columns=columns)
        with pytest.raises(DataError):
            bring(tmp_path)
    write_labels(tmp_path, "a.dcm,1,x", "a.dcm,1,y")
    with pytest.raises(DataError, match="line 2"):
        bring(tmp_path)


def test_reader_and_importer_have_one_limit():
    assert dicom_reader.MAX_VOXELS == volumes.MAX_VOXELS
