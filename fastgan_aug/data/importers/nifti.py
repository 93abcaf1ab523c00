"""Import of NIfTI volumes (``.nii``, ``.nii.gz``) with a CSV of chosen slices."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.importers.gathering import Gathered, Progress, in_order, numbered_files
from fastgan_aug.data.importers.importing import Import, Item
from fastgan_aug.data.importers.labels import (
    Label,
    one_value,
    read_labels,
    require_once,
    require_patients,
)
from fastgan_aug.data.importers.volumes import (
    SLICE_COLUMN,
    Source,
    Volume,
    axes,
    check_voxels,
    common_pixel,
    radiological,
    take_volumes,
)
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import RADIOLOGICAL, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import DataError, MissingPatientIds

SUFFIXES = (".nii", ".nii.gz")
# Extensions stand between header and voxels; they may hold whole DICOM headers, and are skipped.
MAX_EXTENSION_BYTES = 16 * 2**20
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Header:
    """What is used of a NIfTI header.

    Attributes:
        shape: Three dimensions, as stored.
        dtype: Of the stored voxels, in their byte order.
        offset: Of the voxels, bytes.
        slope: Of the stored values.
        intercept: Of the stored values.
        steps: (3, 3) the step along each axis in DICOM's patient system, mm.
        verified: Whether sform or qform tell left from right.
        synthetic: Whether it is marked as this project's exports are.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    steps: NDArray[np.float64]
    verified: bool
    synthetic: bool


def import_nifti(
    root: Path,
    labels_csv: Path,
    *,
    factors: Sequence[str],
    key: PseudonymKey,
    values: Mapping[str, Sequence[str]] | None = None,
    size: int = 64,
    patient_column: str = "patient_id",
    scan_column: str | None = None,
    file_column: str = "file",
    source: str = "NIfTI volumes",
    progress: Progress | None = None,
) -> Import:
    """Reads chosen slices of volumes, and the slices beside them as neighbours.

    The CSV has a line per slice: the file (relative to ``root``), ``slice`` (from 0, ascending
    towards the vertex once the volume is in the radiological convention), the patient and the
    factors. A volume or a line that cannot be taken is refused and stops nothing else.

    Args:
        root: Folder of the volumes.
        labels_csv: The CSV; a name that is no file here is looked up in ``root``.
        factors: Columns that label a slice, in the order of the condition vector.
        key: Makes the pseudonyms of patients and scans.
        values: Declared values per factor.
        size: Rows and columns wanted; all slices are brought to one pixel size.
        patient_column: Identifier of the patient.
        scan_column: Identifier of the scan; without it each volume is one, named by its path.
        file_column: Name of the volume's file.
        source: In words, without identifiers.
        progress: Called with volumes done and their number.

    Raises:
        DataError: the CSV is missing, empty, lacks a column, or names a slice twice.
        MissingPatientIds: no line has a patient.
        UnknownFactorValue: a value that ``values`` does not declare.
    """
    columns = [file_column, SLICE_COLUMN, *([scan_column] if scan_column else [])]
    labels = read_labels(root, labels_csv, factors=factors, columns=columns, values=values)
    require_patients(labels, patient_column)
    require_once(labels, [file_column, SLICE_COLUMN])
    found = _Found(root, key, patient_column, scan_column)
    for label in labels.lines:
        found.named.setdefault(os.path.normpath(label.row[file_column]), []).append(label)
    for number, path in numbered_files(root):
        if path.name.lower().endswith(SUFFIXES):
            found.look_at(number, path)
    items = found.items + found.unmatched() + labels.refused
    rows = Gathered(size, labels.space.names)
    pixel = common_pixel(found.sources, size)
    if pixel is not None:
        items = take_volumes(found.sources, rows, pixel, progress) + items
    laterality = UNVERIFIED if found.unverified else RADIOLOGICAL
    meta = DatasetMeta(
        labels.space, size, source, pixel, laterality=laterality, pseudonym_key=key.id,
        extra={"eight_bit": rows.eight_bit},
    )  # fmt: skip
    return Import(rows.dataset(meta), in_order(items), tuple(found.warnings()))


class _Found:
    """The volumes below the root, and the lines that name them."""

    def __init__(self, root: Path, key: PseudonymKey, patient: str, scan: str | None) -> None:
        self.root, self.key, self.patient, self.scan = root, key, patient, scan
        self.named: dict[str, list[Label]] = {}
        self.sources: list[Source] = []
        self.items: list[Item] = []
        self.unverified = 0

    def look_at(self, number: int, path: Path) -> None:
        """Reads the header of one file, and makes it a source or a refused item."""
        where, name = f"file {number}", os.path.relpath(path, self.root)
        lines = self.named.pop(name, None)
        try:
            header = read_header(path)
            if lines is None:
                slices = header.shape[axes(header.steps)[0][0]]
                self.items.append(
                    Item(where, refused="no line of the labels names it", slices=slices)
                )
                return
            self.sources.append(self._source(where, path, name, header, lines))
            self.unverified += not header.verified
        except DataError as error:
            self.items.append(Item(where, refused=error.what))

    def _source(
        self, where: str, path: Path, name: str, header: Header, lines: list[Label]
    ) -> Source:
        order, _ = axes(header.steps)
        spacing = [float(np.linalg.norm(header.steps[axis])) for axis in order]
        patient = one_value(lines, self.patient)
        if not patient:
            raise MissingPatientIds(f"its lines have no {self.patient}")
        scan = self.key.scan(patient, one_value(lines, self.scan) if self.scan else name)
        if any(known.scan == scan for known in self.sources):
            raise DataError("another volume has the same patient and scan")
        untold = "its header does not tell left from right (no valid sform or qform)"
        return Source(
            where=where,
            slices=header.shape[order[0]],
            field_mm=max(header.shape[order[i]] * spacing[i] for i in (1, 2)),
            load=lambda: read_volume(path, header),
            lines=lines,
            patient=self.key.patient(patient),
            scan=scan,
            warnings=() if header.verified else (untold,),
            synthetic=header.synthetic,
            eight_bit=header.dtype.itemsize == 1,
        )

    def unmatched(self) -> list[Item]:
        """An item for each line that names no volume."""
        lines = sorted(label.line for labels in self.named.values() for label in labels)
        why = "there is no NIfTI volume (.nii, .nii.gz) of the name that stands there"
        return [Item(f"line {line}", refused=why) for line in lines]

    def warnings(self) -> list[str]:
        """What holds for the whole import."""
        if not self.unverified:
            return []
        return [
            f"{self.unverified} volumes do not tell left from right: the laterality of the whole "
            f"data set is {UNVERIFIED}"
        ]


def read_header(path: Path) -> Header:
    """Reads and checks a header; nothing is allocated for what it declares.

    Raises:
        DataError: no NIfTI-1 or NIfTI-2 file, damaged, not three-dimensional, too large, or
            without usable spacing and orientation.
    """
    import nibabel

    try:
        with _opened(path) as stream:
            start = stream.read(540)
        size = {int.from_bytes(start[:4], order) for order in ("little", "big")}
        kind = nibabel.Nifti2Header if 540 in size else nibabel.Nifti1Header
        if not size & {348, 540}:
            raise DataError("it is no NIfTI file")
        # The header alone: extensions are skipped.
        raw = kind.from_fileobj(io.BytesIO(start[: kind.sizeof_hdr]), check=False)
        header = _header(raw)
    except DataError:
        raise
    except Exception as error:  # nibabel and zlib raise nearly anything on damaged headers
        raise DataError(f"its header cannot be read ({type(error).__name__})") from None
    axes(header.steps)
    return header


def _header(raw: Any) -> Header:
    """The checked header; ``raw`` is nibabel's."""
    if bytes(raw["magic"].item())[:2] != b"n+":
        raise DataError("it is no NIfTI file of one part (its voxels would lie in another file)")
    sizes = [int(n) for n in raw["dim"]]
    shape = sizes[1 : 1 + sizes[0]] if 1 <= sizes[0] <= 7 else []
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise DataError(f"its dimensions are {' x '.join(map(str, shape)) or 'none'}, not three")
    dtype = raw.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError("its voxels are no real numbers (colour or complex)")
    check_voxels(shape[:3], dtype.itemsize)
    offset = float(raw["vox_offset"])
    if not len(raw.structarr.tobytes()) <= offset <= MAX_EXTENSION_BYTES:
        raise DataError("its voxels begin at no usable place")
    slope, intercept = raw.get_slope_inter()
    affine, verified = _affine(raw)
    factor = _MILLIMETRES[raw.get_xyzt_units()[0]]
    steps = (_RAS_TO_LPS @ affine[:3, :3]).T * factor
    return Header(
        (shape[0], shape[1], shape[2]), dtype, int(offset),
        1.0 if slope is None else float(slope), float(intercept or 0.0), steps, verified,
        raw["intent_name"].item() == b"SYNTHETIC",
    )  # fmt: skip


def _affine(raw: Any) -> tuple[NDArray[np.float64], bool]:
    """Nibabel's affine, and whether left and right can be told: a form is there, and both agree."""
    found = []
    for name in ("sform", "qform"):
        affine = getattr(raw, f"get_{name}")(coded=True)[0]
        if affine is not None and np.isfinite(affine).all():
            determinant = float(np.linalg.det(affine[:3, :3]))
            if abs(determinant) > 1e-9:
                found.append((np.asarray(affine, np.float64), determinant > 0))
    if not found:
        return np.asarray(raw.get_base_affine(), np.float64), False
    return found[0][0], len({handed for _, handed in found}) == 1


def read_volume(path: Path, header: Header) -> Volume:
    """Reads the voxels that a checked header declares.

    Raises:
        DataError: the file is shorter, or its compression is damaged.
    """
    wanted = int(np.prod(header.shape)) * header.dtype.itemsize
    try:
        with _opened(path) as stream:
            stream.seek(header.offset)
            content = stream.read(wanted + 1)  # at the end, gzip compares its checksum
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"its voxels cannot be read ({type(error).__name__})") from None
    if len(content) < wanted:
        raise DataError(f"it is cut short: {len(content)} of {wanted} bytes of voxels")
    stored = np.frombuffer(content, header.dtype, wanted // header.dtype.itemsize).reshape(
        header.shape, order="F"
    )
    array = radiological(stored, header.steps)
    order, _ = axes(header.steps)
    gap, *spacing = (float(np.linalg.norm(header.steps[axis])) for axis in order)
    z = np.arange(len(array), dtype=np.float64) * gap
    return Volume(array, z, (spacing[0], spacing[1]), header.slope, header.intercept)


def _opened(path: Path) -> IO[bytes]:
    """The file, decompressed on the way where its first bytes say so."""
    with closing(path.open("rb")) as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")
