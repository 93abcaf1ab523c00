"""DICOM files with a CSV of labels; `import_dicom` reads them back.

A phantom's scan on an even grid becomes one reconstructed tomogram (NM Image, RECON TOMO), which
viewers show as a volume. Whatever has no geometry, above all generated slices, becomes a Secondary
Capture of one frame each, so that each file carries its own cell and seed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import NOTICE, row_facts, write_labels
from fastgan_aug.data.exporters.stacks import Stack, stacks
from fastgan_aug.data.schema import RADIOLOGICAL

if TYPE_CHECKING:
    import pydicom

NM_IMAGE = "1.2.840.10008.5.1.4.1.1.20"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
FULL = 65535  # the largest stored value
NOBODY = "this patient does not exist"


def write_dicom(folder: Path, dataset: Dataset, provenance: Mapping[str, Any]) -> None:
    """Writes ``NUMBER.dcm`` and ``labels.csv``.

    Stored values times Rescale Slope are counts (image times scale), within half a slope. UIDs
    follow from the data set's digest: the same export gives the same files.

    Args:
        folder: There already.
        dataset: Marked slices.
        provenance: Goes into the header, with the cell (and seed) of a Secondary Capture.
    """
    files, numbers = [""] * len(dataset), [0] * len(dataset)
    written = 0
    for stack in stacks(dataset):
        as_volume = _has_geometry(stack, dataset)
        parts = [stack] if as_volume else _single(stack)
        for part in parts:
            name, written = f"{written:06d}.dcm", written + 1
            document = _common(part, dataset, provenance)
            if as_volume:
                _tomogram(document, part, dataset)
            else:
                _secondary_capture(document, part, dataset, provenance)
            document.save_as(folder / name, enforce_file_format=True)
            for row, plane in zip(part.rows.tolist(), part.planes.tolist(), strict=True):
                files[row], numbers[row] = name, plane
    write_labels(folder, dataset, files, numbers)


def _has_geometry(stack: Stack, dataset: Dataset) -> bool:
    meta = dataset.meta
    known = stack.spacing is not None and meta.pixel_mm is not None
    return known and meta.laterality == RADIOLOGICAL and "seed" not in dataset.table.column_names


def _single(stack: Stack) -> list[Stack]:
    """Each slice on its own."""
    zero, step = np.zeros(1, np.int64), stack.spacing or 0.0
    return [
        Stack(stack.rows[i : i + 1], zero, stack.start + float(plane) * step, None)
        for i, plane in enumerate(stack.planes)
    ]


# -- what every file says --------------------------------------------------------------------------


def _common(stack: Stack, dataset: Dataset, provenance: Mapping[str, Any]) -> pydicom.FileDataset:
    """Patient, study, series, equipment, provenance and pixels."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    row = int(stack.rows[0])
    patient, scan = (str(dataset.table[n][row].as_py()) for n in ("patient_id", "scan_id"))
    digest = str(provenance["dataset"])

    def uid(*parts: str) -> str:
        return str(generate_uid(entropy_srcs=[digest, *parts]))

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    found.SyntheticData = "YES"
    found.PatientName = f"SYNTHETIC^{patient}"[:64]
    found.PatientID = f"SYNTHETIC-{patient}"[:64]
    found.PatientBirthDate = found.PatientSex = ""
    found.PatientIdentityRemoved, found.DeidentificationMethod = "YES", NOBODY
    found.StudyInstanceUID, found.SeriesInstanceUID = uid("study", patient), uid("series", scan)
    found.SOPInstanceUID = uid("image", scan, str(row))
    found.StudyDate = found.StudyTime = found.ReferringPhysicianName = ""
    found.StudyID = found.AccessionNumber = ""
    found.StudyDescription = found.SeriesDescription = NOTICE
    found.SeriesNumber, found.InstanceNumber = 1, row + 1
    found.BurnedInAnnotation, found.LossyImageCompression = "NO", "00"
    _tell_origin(found, provenance)
    _set_pixels(found, stack.counts(dataset))
    found.RescaleType = "US"  # unspecified: counts have no defined term
    return found


def _tell_origin(found: pydicom.FileDataset, provenance: Mapping[str, Any]) -> None:
    """Equipment, derivation and comments; the whole provenance is JSON in the comments."""
    from pydicom.dataset import Dataset as Item

    model = provenance.get("generated_by") or {}
    name = f"{model['model']} version {model['version']}" if model else provenance["source"]
    software = str(model.get("code_version") or provenance["exported_by"])
    found.Manufacturer = "fastgan-aug"
    found.ManufacturerModelName, found.SoftwareVersions = str(name)[:64], software[:64]
    found.DerivationDescription = f"{NOTICE}: {name}; data set {provenance['dataset']}"[:1024]
    found.ImageComments = f"{NOTICE}. {json.dumps(provenance)}"[:10240]
    purpose, item = Item(), Item()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109102", "DCM"
    purpose.CodeMeaning = "Processing Equipment"
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer, item.ManufacturerModelName = "fastgan-aug", str(name)[:64]
    item.SoftwareVersions = str(provenance["exported_by"])[:64]
    item.ContributionDescription = f"Exported. {NOTICE}"
    found.ContributingEquipmentSequence = [item]


def _set_pixels(found: pydicom.FileDataset, counts: NDArray[np.float32]) -> None:
    """(planes, S, S) counts as 16 bits with a slope; one plane is no multi-frame."""
    from pydicom.valuerep import DSfloat

    slope = DSfloat(max(float(counts.max()), 1e-30) / FULL, auto_format=True)
    # The slope as written, which has 16 characters at most.
    stored = np.clip(np.round(counts.astype(np.float64) / float(str(slope))), 0, FULL)
    found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
    found.Rows, found.Columns = counts.shape[1:]
    found.BitsAllocated = found.BitsStored = 16
    found.HighBit, found.PixelRepresentation = 15, 0
    found.RescaleIntercept, found.RescaleSlope = 0, slope
    found.PixelData = stored.astype("<u2").tobytes()


# -- the two kinds of file -------------------------------------------------------------------------


def _tomogram(found: pydicom.FileDataset, stack: Stack, dataset: Dataset) -> None:
    """NM Image, RECON TOMO: frames ascend towards the vertex (PS3.3, A.5 and C.8.4)."""
    from pydicom.dataset import Dataset as Item
    from pydicom.uid import generate_uid

    planes, pixel = int(stack.planes[-1]) + 1, dataset.meta.pixel_mm
    assert pixel is not None
    assert stack.spacing is not None
    found.SOPClassUID, found.Modality = NM_IMAGE, "NM"
    found.file_meta.MediaStorageSOPClassUID = NM_IMAGE
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found.ImageType = ["DERIVED", "PRIMARY", "RECON TOMO", "EMISSION"]
    found.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", found.SeriesInstanceUID])
    found.PositionReferenceIndicator = ""
    found.PatientOrientationCodeSequence = found.PatientGantryRelationshipCodeSequence = []
    found.NumberOfFrames, found.FrameIncrementPointer = planes, 0x00540080  # Slice Vector
    found.NumberOfSlices, found.SliceVector = planes, list(range(1, planes + 1))
    found.NumberOfEnergyWindows = found.NumberOfDetectors = found.NumberOfRotations = 1
    found.EnergyWindowInformationSequence = []
    found.RadiopharmaceuticalInformationSequence = found.RotationInformationSequence = []
    found.CountsAccumulated = None
    found.PixelSpacing = [_decimal(pixel)] * 2
    found.SliceThickness = found.SpacingBetweenSlices = _decimal(stack.spacing)
    detector, corner = Item(), -(dataset.meta.size - 1) / 2 * pixel
    detector.CollimatorType = ""
    detector.FocalDistance = None
    detector.ImagePositionPatient = [_decimal(v) for v in (corner, corner, stack.start)]
    detector.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    found.DetectorInformationSequence = [detector]
    found.AcquisitionContextSequence = []


def _secondary_capture(
    found: pydicom.FileDataset, stack: Stack, dataset: Dataset, provenance: Mapping[str, Any]
) -> None:
    """Secondary Capture of one frame; conversion type SYN, a synthetic image (PS3.3, A.8.1)."""
    row, pixel = int(stack.rows[0]), dataset.meta.pixel_mm
    found.SOPClassUID, found.Modality, found.ConversionType = SECONDARY_CAPTURE, "OT", "SYN"
    found.file_meta.MediaStorageSOPClassUID = SECONDARY_CAPTURE
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found.ImageType = ["DERIVED", "SECONDARY"]
    facts = {**row_facts(dataset, row), **provenance}
    found.ImageComments = f"{NOTICE}. {json.dumps(facts)}"[:10240]
    # Columns run to the left, rows to the back; unknown stays empty.
    radiological = dataset.meta.laterality == RADIOLOGICAL
    found.PatientOrientation = ["L", "P"] if radiological else None
    if pixel is not None:
        found.PixelSpacing = [_decimal(pixel)] * 2


def _decimal(value: float) -> Any:
    from pydicom.valuerep import DSfloat

    return DSfloat(value, auto_format=True)
