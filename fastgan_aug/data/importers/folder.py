"""Import of a folder of images with a CSV of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.gathering import Gathered, Progress, in_order
from fastgan_aug.data.importers.importing import Import, Item
from fastgan_aug.data.importers.labels import (
    Label,
    Labels,
    read_labels,
    require_once,
    require_patients,
)
from fastgan_aug.data.importers.pictures import read_picture
from fastgan_aug.data.importers.resample import (
    cut_share,
    fit_field,
    normalise,
    remarks,
    square_pixel,
)
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import (
    BY_PATIENT,
    RADIOLOGICAL,
    UNGROUPED,
    UNVERIFIED,
    DatasetMeta,
)
from fastgan_aug.errors import DataError, MissingPatientIds, UnreadableImage


@dataclass(frozen=True)
class _Columns:
    """Names of columns of the CSV; None where there is none."""

    file: str
    patient: str | None
    scan: str | None
    z: str | None

    @property
    def wanted(self) -> list[str]:
        return [name for name in (self.file, self.scan, self.z) if name]


@dataclass
class _Folder:
    """One import: what every line of the labels is read with.

    Attributes:
        pixel_mm: Edge of a source pixel, None where unknown.
        target_mm: Edge of a pixel of the data set; the first image taken decides.
    """

    root: Path
    columns: _Columns
    key: PseudonymKey
    rows: Gathered
    pixel_mm: float | None
    target_mm: float | None = None
    items: list[Item] = field(default_factory=list)

    def take(self, label: Label) -> Item:
        """Reads the image of one line, whatever is wrong with it."""
        where = f"line {label.line}"
        try:
            warnings = self._take(label)
        except (DataError, OSError) as error:
            # Only this project's own words: an OSError's text holds the path.
            why = error.what if isinstance(error, DataError) else "it cannot be read"
            return Item(where, refused=why)
        return Item(where, int(label.labelled), int(not label.labelled), warnings=tuple(warnings))

    def _take(self, label: Label) -> list[str]:
        patient, scan = self._people(label)
        z = self._position(label)
        picture = read_picture(self._locate(label.row[self.columns.file]))
        spacing = (self.pixel_mm or 1.0, self.pixel_mm or 1.0)
        shape = picture.counts.shape
        pixel = square_pixel((shape[0], shape[1]), spacing, self.rows.size)
        if self.pixel_mm is not None:
            pixel = self.target_mm = self.target_mm or pixel
        counts = fit_field(picture.counts, spacing, self.rows.size, pixel)
        image, scale, clipped = normalise(counts)
        self.rows.add(
            image, values=label.values, patient=patient, scan=scan, z=z, scale=scale,
            synthetic=picture.synthetic or label.synthetic,
        )  # fmt: skip
        self.rows.eight_bit += picture.eight_bit
        cut = cut_share(picture.counts, counts, spacing, pixel)
        return remarks(clipped, cut)

    def _people(self, label: Label) -> tuple[str, str]:
        """The pseudonyms of patient and scan."""
        if self.columns.patient is None:
            name = label.row[self.columns.file]
            return self.key.patient(f"image {name}"), self.key.scan(f"image {name}", "")
        patient = label.row[self.columns.patient]
        if not patient:
            raise MissingPatientIds(f"there is no {self.columns.patient}")
        scan = label.row[self.columns.scan] if self.columns.scan else ""
        return self.key.patient(patient), self.key.scan(patient, scan)

    def _position(self, label: Label) -> float:
        if self.columns.z is None:
            return 0.0
        try:
            z = float(label.row[self.columns.z])
        except ValueError:
            z = float("nan")
        if not abs(z) < 1e6:
            raise DataError(f"there is no finite number in {self.columns.z}")
        return z

    def _locate(self, name: str) -> Path:
        for path in (self.root / name, self.root / "images" / name):
            if name and path.is_file():
                return path
        raise UnreadableImage("there is no image of the name that stands there")


def import_folder(
    root: Path,
    labels_csv: Path,
    *,
    factors: Sequence[str],
    key: PseudonymKey,
    values: Mapping[str, Sequence[str]] | None = None,
    size: int = 64,
    patient_column: str | None = "patient_id",
    scan_column: str | None = None,
    z_column: str | None = None,
    file_column: str = "file",
    pixel_mm: float | None = None,
    laterality: str = UNVERIFIED,
    source: str = "folder of images",
    progress: Progress | None = None,
) -> Import:
    """Reads images (PNG or TIFF of 8 or 16 bit, or ``.npy``) named by a CSV.

    Rows in which any factor is empty become neighbours. A line that cannot be taken is refused
    with its reason and stops nothing else. File names and identifiers may tell who a patient is:
    neither is kept or shown.

    Args:
        root: Folder of the images; the CSV's file is relative to it or to its ``images`` folder.
        labels_csv: The CSV; a name that is no file here is looked up in ``root``.
        factors: Columns that label a slice, in the order of the condition vector.
        key: Makes the pseudonyms of patients and scans.
        values: Declared values per factor; a factor left out takes its values in order of first
            appearance.
        size: Rows and columns wanted. Others are resampled by area mean, and padded to a square.
        patient_column: Identifier of each row's patient; None for images without patients, of
            which each is then a group of its own (``grouping`` is ``none``).
        scan_column: Scan of each row; without it a patient is one scan.
        z_column: Position, ascending towards the vertex: mm where ``pixel_mm`` is given, else the
            slice index. Without it every z is 0, and no slice has a neighbour.
        file_column: Name of the image's file.
        pixel_mm: Edge of the images' pixels, mm. Then all images are brought to the pixel that
            the first one has at ``size``; without it each is brought to ``size`` by itself.
        laterality: ``radiological`` only if row 0 is known to be anterior and column 0 the
            patient's right.
        source: In words, without identifiers.
        progress: Called with lines done and their number.

    Raises:
        DataError: the CSV is missing, empty, or lacks a column, or names an image twice; no z is a
            number; the laterality is none of the two; the pixel is not above zero.
        MissingPatientIds: no row has a patient.
        UnknownFactorValue: a value that ``values`` does not declare.
    """
    if laterality not in (RADIOLOGICAL, UNVERIFIED):
        raise DataError(f"laterality is {laterality!r}", allowed=f"{RADIOLOGICAL}, {UNVERIFIED}")
    if pixel_mm is not None and not 0 < pixel_mm < 1000:
        raise DataError(f"pixel_mm is {pixel_mm:g}", allowed="the edge of a pixel in mm, above 0")
    columns = _Columns(file_column, patient_column, scan_column, z_column)
    labels = read_labels(root, labels_csv, factors=factors, columns=columns.wanted, values=values)
    _check(labels, columns)
    rows = Gathered(size, labels.space.names)
    folder = _Folder(root, columns, key, rows, pixel_mm)
    folder.items += labels.refused
    for done, label in enumerate(labels.lines, 1):
        folder.items.append(folder.take(label))
        if progress:
            progress(done, len(labels.lines))
    meta = DatasetMeta(
        labels.space, size, source, folder.target_mm, laterality=laterality,
        grouping=BY_PATIENT if patient_column else UNGROUPED, pseudonym_key=key.id,
        extra={"eight_bit": rows.eight_bit},
    )  # fmt: skip
    dataset = rows.dataset(meta)
    return Import(dataset, in_order(folder.items), tuple(_warnings(folder, dataset)))


def _check(labels: Labels, columns: _Columns) -> None:
    """Verifies what holds for the labels as a whole."""
    require_once(labels, [columns.file])
    if columns.patient is not None:
        require_patients(labels, columns.patient)
    if columns.z is not None and not any(_is_number(r.row[columns.z]) for r in labels.lines):
        raise DataError(
            f"the labels have no finite number in {columns.z} (first: line {labels.lines[0].line})",
            allowed="a position on every row",
        )


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _warnings(folder: _Folder, dataset: Dataset | None) -> list[str]:
    if dataset is None:
        return []
    said = []
    if folder.rows.eight_bit:
        said.append(
            f"{folder.rows.eight_bit} of {len(dataset)} images have 8 bits: mean counts are coarse "
            "(1/255); import the original counts where you can"
        )
    if folder.columns.patient is None:
        said.append(
            "there are no patients: each image is a group of its own, and nothing may be "
            "claimed from splits of this data set"
        )
    elif folder.columns.z is not None:
        said += _of_positions(dataset)
    return said


def _of_positions(dataset: Dataset) -> list[str]:
    """Says where z cannot tell neighbours: Eq. 6 then uses the slice itself."""
    places = Counter(zip(dataset.column("scan_id"), dataset.column("z"), strict=True))
    shared = sum(n for n in places.values() if n > 1)
    if shared:
        return [
            f"{shared} of {len(dataset)} slices share their position with another slice of their "
            "scan and have no neighbours; give rest and stress, or repeated scans, a scan column "
            "of their own"
        ]
    if not any(len(rows) for rows in dataset.neighbours()):
        return [
            "no slice has a neighbour; positions must be slice indices, 1 apart, or mm where the "
            "pixel is given in mm"
        ]
    return []
