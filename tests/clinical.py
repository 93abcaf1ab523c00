"""An asymmetric volume, and the same volume written as DICOM and NIfTI in any orientation.

Its one bright blob is at the patient's left, in front, towards the vertex, on an L of two bars, so
that no flip, transposition or reversal leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import Dataset as Header
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SLICES, SIZE = 6, 16
PIXEL_MM, GAP_MM = 4.0, 3.5


def truth() -> NDArray[np.uint16]:
    """(6, 16, 16) counts in the radiological convention, slices ascending towards the vertex."""
    volume = np.ones((SLICES, SIZE, SIZE), np.uint16)
    volume += 10 * np.arange(1, SLICES + 1, dtype=np.uint16)[:, None, None]
    volume[:, 2:14, 3] += 300  # a long bar at the patient's right
    volume[:, 12:14, 3:10] += 200  # the foot of the L, behind
    volume[SLICES - 2 :, 2:5, 11:14] += 5000  # left, in front, above
    return volume


def nm_header(frames: int = SLICES, **changes: Any) -> Header:
    """A reconstructed NM tomogram without its pixels; ``changes`` by keyword."""
    header = Header()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.20"
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    header.SeriesInstanceUID = generate_uid()
    header.PatientID, header.PatientName = "H-4711", "Doe^Jane"
    header.Modality, header.PatientPosition = "NM", "HFS"
    header.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    header.Rows = header.Columns = SIZE
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.PixelSpacing, header.SpacingBetweenSlices = [PIXEL_MM, PIXEL_MM], GAP_MM
    header.NumberOfFrames = frames
    header.FrameIncrementPointer = 0x00540080
    header.SliceVector = list(range(1, frames + 1))
    detector = Header()
    detector.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    detector.ImagePositionPatient = [-30, -30, 0]
    header.DetectorInformationSequence = [detector]
    for name, value in changes.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    return header


def write_dicom(path: Path, header: Header, stored: NDArray[Any]) -> Path:
    """Writes ``stored`` values under ``header``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = "<" if header.file_meta.TransferSyntaxUID.is_little_endian else ">"
    header.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    header["PixelData"].VR = "OW"
    header.save_as(path, enforce_file_format=True)
    return path


def write_nm(
    path: Path, flips: Sequence[int] = (1, 1, 1), order: Sequence[int] | None = None,
    transposed: bool = False, **changes: Any,
) -> Path:  # fmt: skip
    """The truth as one multi-frame file.

    Args:
        path: To write.
        flips: 1 or -1 for slices, rows and columns.
        order: Slice that each frame shows, from 0 (told by SliceVector).
        transposed: Whether rows and columns change places.
        changes: Of the header.
    """
    stored = truth()[:: flips[0], :: flips[1], :: flips[2]]
    along_row, along_column = np.array([flips[2], 0, 0]), np.array([0, flips[1], 0])
    if transposed:
        stored, along_row, along_column = stored.transpose(0, 2, 1), along_column, along_row
    normal = np.cross(along_row, along_column)[2]
    header = nm_header()
    detector = header.DetectorInformationSequence[0]
    detector.ImageOrientationPatient = [float(v) for v in (*along_row, *along_column)]
    header.SpacingBetweenSlices = float(GAP_MM * flips[0] * normal)
    if order is not None:
        stored, header.SliceVector = stored[list(order)], [i + 1 for i in order]
    for name, value in changes.items():
        setattr(header, name, value)
    return write_dicom(path, header, np.ascontiguousarray(stored))


def write_series(
    folder: Path, flips: Sequence[int] = (1, 1, 1), modality: str = "PT", reverse: bool = False,
    skip: Sequence[int] = (), **changes: Any,
) -> Path:  # fmt: skip
    """The truth as one file a slice, in files whose names say nothing of their order."""
    stored = truth()[:, :: flips[1], :: flips[2]]
    series = generate_uid()
    for k in range(SLICES):
        if k in skip:
            continue
        header = nm_header(1, SliceVector=None, FrameIncrementPointer=None, NumberOfFrames=None)
        del header.DetectorInformationSequence, header.SpacingBetweenSlices
        header.Modality, header.SeriesInstanceUID = modality, series
        if modality != "NM":
            header.ImageType = ["ORIGINAL", "PRIMARY"]
            header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        header.ImageOrientationPatient = [float(flips[2]), 0, 0, 0, float(flips[1]), 0]
        header.ImagePositionPatient = [-30.0, -30.0, 100 + GAP_MM * k]
        for name, value in changes.items():
            setattr(header, name, value(k) if callable(value) else value)
        number = (SLICES - k if reverse else (k * 5) % 7) + 1
        write_dicom(folder / f"i{number}.dcm", header, np.ascontiguousarray(stored[k]))
    return folder


def write_nifti(path: Path, codes: str = "RAS", dtype: Any = np.uint16, **changes: Any) -> Path:
    """The truth as NIfTI with these directions of its axes; ``changes`` are codes of its forms."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = nibabel.Nifti1Image(
        truth().transpose(2, 1, 0).astype(dtype), np.diag([-PIXEL_MM, -PIXEL_MM, GAP_MM, 1])
    )
    turned = lps.as_reoriented(ornt_transform(axcodes2ornt("LPS"), axcodes2ornt(tuple(codes))))
    image = nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine)
    image.header.set_data_dtype(dtype)
    image.set_sform(turned.affine, changes.get("sform", 1))
    image.set_qform(turned.affine, changes.get("qform", 1))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def write_labels(root: Path, *lines: str, columns: str = "file,slice,kind") -> Path:
    """``labels.csv`` with these lines."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "labels.csv"
    path.write_text("\n".join([columns, *lines]) + "\n", encoding="utf-8")
    return path
