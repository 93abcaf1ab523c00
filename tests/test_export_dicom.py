"""Laws of the DICOM export: valid files, marked, the patient's right where it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.config import RAISE, settings
from pydicom.tag import Tag
from test_export import batch, generated, lines, scans  # noqa: F401

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.dicom import NM_IMAGE, SECONDARY_CAPTURE
from fastgan_aug.data.exporters.export import NOTICE, export

# DICOM PS3.3, table A.5-1 (NM Image, RECON TOMO) and A.8-1 (Secondary Capture Image).
COMMON_FULL = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality",
    "PixelData", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "ImageType",
]  # fmt: skip
COMMON_THERE = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber",
    "Manufacturer",
]  # fmt: skip
NM_FULL = [
    "FrameOfReferenceUID", "NumberOfFrames", "FrameIncrementPointer", "NumberOfEnergyWindows",
    "NumberOfDetectors", "SliceVector", "NumberOfSlices", "NumberOfRotations",
]  # fmt: skip
NM_THERE = [
    "PositionReferenceIndicator", "PatientOrientationCodeSequence", "PixelSpacing",
    "CountsAccumulated", "PatientGantryRelationshipCodeSequence",
    "EnergyWindowInformationSequence", "SliceThickness", "RadiopharmaceuticalInformationSequence",
    "DetectorInformationSequence", "SpacingBetweenSlices", "RotationInformationSequence",
    "AcquisitionContextSequence",
]  # fmt: skip


def read(path: Path) -> pydicom.FileDataset:
    """A file whose every value is valid for its representation."""
    before = settings.reading_validation_mode
    settings.reading_validation_mode = RAISE
    try:
        found = pydicom.dcmread(path)
        for element in found.iterall():
            assert element.value is not NotImplemented
    finally:
        settings.reading_validation_mode = before
    return found


def check_marks(found: pydicom.FileDataset, dataset: Dataset) -> None:
    assert found[0x0008001C].value == "YES", "Synthetic Data"
    assert str(found.PatientName).startswith("SYNTHETIC^")
    assert found.PatientID.startswith("SYNTHETIC-")
    assert found.PatientIdentityRemoved == "YES"
    assert found.DeidentificationMethod
    assert found.ImageComments.startswith(NOTICE)
    assert found.SeriesDescription == NOTICE
    assert dataset.digest in found.DerivationDescription
    assert found.ContributingEquipmentSequence[0].Manufacturer == "fastgan-aug"
    assert found.BurnedInAnnotation == "NO"
    assert not [e for e in found.iterall() if e.VR in ("DA", "TM", "DT") and e.value], "no date"
    assert not [e for e in found.iterall() if Tag(e.tag).is_private]


def check_filled(found: pydicom.FileDataset, full: list[str], there: list[str]) -> None:
    for name in full:
        assert name in found, name
        assert found[name].value not in ("", None, []), name
    for name in there:
        assert name in found, name


@pytest.mark.filterwarnings("error")
def test_a_phantom_s_scan_is_a_valid_tomogram(scans: Dataset, tmp_path: Path) -> None:  # noqa: F811
    export(scans, tmp_path / "out", "dicom")
    rows = lines(tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.dcm"))
    assert len(files) == 3
    uids = set()
    for path in files:
        found = read(path)
        check_marks(found, scans)
        check_filled(found, COMMON_FULL + NM_FULL, COMMON_THERE + NM_THERE)
        assert found.SOPClassUID == found.file_meta.MediaStorageSOPClassUID == NM_IMAGE
        assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID
        assert list(found.ImageType) == ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
        assert len(found.SliceVector) == found.NumberOfFrames == len(found.pixel_array)
        uids |= {found.SOPInstanceUID, found.SeriesInstanceUID}
        assert found.SOPInstanceUID.is_valid
    assert len(uids) == 6
    first = read(files[0])
    assert first.PixelSpacing == [3, 3]
    assert first.SpacingBetweenSlices == 4
    detector = first.DetectorInformationSequence[0]
    assert detector.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert detector.ImagePositionPatient == [-34.5, -34.5, 10]
    for i, row in enumerate(rows[:5]):
        counts = first.pixel_array[int(row["slice"])] * float(first.RescaleSlope)
        expected = scans.images[i] * scans.column("scale")[i]
        assert np.abs(counts - expected).max() <= 0.51 * float(first.RescaleSlope)


@pytest.mark.filterwarnings("error")
def test_a_generated_slice_is_a_valid_secondary_capture(
    generated: Dataset,  # noqa: F811
    tmp_path: Path,
) -> None:
    export(generated, tmp_path / "out", "dicom")
    rows = lines(tmp_path / "out")
    assert len({row["file"] for row in rows}) == len(generated)
    for i, row in enumerate(rows):
        found = read(tmp_path / "out" / row["file"])
        check_marks(found, generated)
        check_filled(found, [*COMMON_FULL, "ConversionType"], COMMON_THERE)
        assert found.SOPClassUID == SECONDARY_CAPTURE
        assert found.ConversionType == "SYN"
        assert found.ManufacturerModelName == "toy version 7"
        assert found.SoftwareVersions == "0.1.0"
        told = json.loads(found.ImageComments.removeprefix(f"{NOTICE}. "))
        assert (told["cell"], told["seed"]) == (row["shape"], int(row["seed"]))
        assert told["generated_by"]["checkpoint"] == "c" * 64
        values = found.pixel_array * float(found.RescaleSlope)
        assert np.abs(values - generated.images[i]).max() <= 0.51 * float(found.RescaleSlope)
