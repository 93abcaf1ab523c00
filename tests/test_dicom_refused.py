"""DICOM files, and lines of the labels, that are refused with their reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clinical import nm_header, truth, write_dicom, write_labels, write_nm, write_series
from dicom_imports import KEY, bring, whole
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

from fastgan_aug.data.importers.importing import Import
from fastgan_aug.errors import DataError


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
