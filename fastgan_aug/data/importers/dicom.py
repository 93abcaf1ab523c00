"""Import of DICOM: reconstructed multi-frame tomograms (NM), and series of one file a slice."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.exporters.export import PROVENANCE
from fastgan_aug.data.importers.dicom_worker import DicomWorker
from fastgan_aug.data.importers.gathering import Gathered, Progress, in_order, numbered_files
from fastgan_aug.data.importers.importing import Import, Item
from fastgan_aug.data.importers.labels import (
    Label,
    Labels,
    labels_path,
    one_value,
    read_labels,
    require_once,
    require_patients,
)
from fastgan_aug.data.importers.stacking import Stack, stack
from fastgan_aug.data.importers.volumes import (
    SLICE_COLUMN,
    Source,
    Volume,
    common_pixel,
    take_volumes,
)
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import RADIOLOGICAL, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import DataError, MissingPatientIds

# A secondary capture need not tell how it lies, nor its scale: it is then taken as it is stored.
_AS_STORED = {"orientation": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "spacing": [1.0, 1.0]}
_UNTOLD = "its header does not tell left from right (a secondary capture)"
_LOST = "it was compressed with losses before: counts are not what was measured"


@dataclass
class _Series:
    """The files of one volume: one multi-frame file, or the single slices of a series."""

    numbers: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    headers: list[dict[str, Any]] = field(default_factory=list)
    lines: list[Label] = field(default_factory=list)

    @property
    def where(self) -> str:
        first, last = self.numbers[0], self.numbers[-1]
        if first == last:
            return f"file {first}"
        if last - first + 1 == len(self.numbers):
            return f"files {first} to {last}"
        return f"file {first} and {len(self.numbers) - 1} others"

    def tells(self, name: str) -> bool:
        """Whether every header has it."""
        return all(header[name] is not None for header in self.headers)


def import_dicom(
    root: Path,
    labels_csv: Path,
    *,
    factors: Sequence[str],
    key: PseudonymKey,
    values: Mapping[str, Sequence[str]] | None = None,
    size: int = 64,
    patient_column: str = "patient_id",
    file_column: str = "file",
    source: str = "DICOM",
    progress: Progress | None = None,
) -> Import:
    """Reads chosen slices of volumes, and the slices beside them as neighbours.

    The CSV has a line per slice: the file, or the folder of a series (relative to ``root``),
    ``slice`` (from 0, ascending towards the vertex whatever the stored order) and the factors.
    The patient is the header's, unless the CSV has a column of that name. A volume or a line that
    cannot be taken is refused and stops nothing else. Real-world value maps are not applied, the
    rescale slope and intercept are. Secondary captures are taken where they are marked synthetic,
    as exports of generated slices are: each is a scan of its own.

    Args:
        root: Folder of the files; every file below it is looked at.
        labels_csv: The CSV; a name that is no file here is looked up in ``root``.
        factors: Columns that label a slice, in the order of the condition vector.
        key: Makes the pseudonyms of patients and scans.
        values: Declared values per factor.
        size: Rows and columns wanted; all slices are brought to one pixel size.
        patient_column: Identifier of the patient, instead of the header's.
        file_column: Name of the file or the folder.
        source: In words, without identifiers.
        progress: Called with files and volumes done and their number.

    Raises:
        DataError: the CSV is missing, empty, lacks a column, or names a slice twice.
        MissingPatientIds: the column of patients is empty.
        UnknownFactorValue: a value that ``values`` does not declare.
    """
    columns = [file_column, SLICE_COLUMN]
    labels = read_labels(root, labels_csv, factors=factors, columns=columns, values=values)
    require_once(labels, columns)
    in_labels = patient_column in labels.lines[0].row
    if in_labels:
        require_patients(labels, patient_column)
    rows = Gathered(size, labels.space.names)
    with DicomWorker() as worker:
        found = _Found(root, key, worker, patient_column if in_labels else None)
        found.look_at_all(labels_path(root, labels_csv), progress)
        found.match(labels, file_column)
        found.items += labels.refused
        sources = found.sources()
        pixel = common_pixel(sources, size)
        if pixel is not None:
            found.items = take_volumes(sources, rows, pixel, progress) + found.items
    meta = DatasetMeta(
        labels.space, size, source, None if found.unscaled else pixel,
        laterality=UNVERIFIED if found.unverified else RADIOLOGICAL, pseudonym_key=key.id,
        extra={"eight_bit": rows.eight_bit},
    )  # fmt: skip
    units = found.units
    unit = units.pop() if len(units) == 1 else "various"
    return Import(rows.dataset(meta, unit), in_order(found.items), tuple(found.warnings))


class _Found:
    """The series below the root."""

    def __init__(
        self, root: Path, key: PseudonymKey, worker: DicomWorker, patient_column: str | None
    ) -> None:
        self.root, self.key, self.worker, self.patient_column = root, key, worker, patient_column
        self.series: dict[tuple[str, ...], _Series] = {}
        self.refused: dict[str, int] = {}  # numbers of refused files by relative path
        self.instances: dict[tuple[str, str], int] = {}
        self.items: list[Item] = []
        self.units: set[str] = set()
        self.warnings: list[str] = []
        self.unverified = self.unscaled = False

    def look_at_all(self, labels: Path, progress: Progress | None) -> None:
        """Reads the header of every file but the labels and what an export puts beside them."""
        files = numbered_files(self.root)
        for done, (number, path) in enumerate(files, 1):
            if not _is_same(path, labels) and path.name != PROVENANCE:
                self._look_at(number, path)
            if progress:
                progress(done, len(files))
        issuers: dict[str, set[str]] = {}
        for patient, issuer, *_ in self.series:
            issuers.setdefault(patient, set()).add(issuer)
        mixed = sum(len(found) > 1 for found in issuers.values())
        if mixed and self.patient_column is None:
            self.warnings.append(
                f"{mixed} patient ids come with and without an issuer, or with several: each is "
                "taken as a patient of its own; name the patients in the labels if they are one"
            )

    def _look_at(self, number: int, path: Path) -> None:
        try:
            header = self.worker.header(path)
            instance = header["series"], header["instance"]
            if not all(instance):
                raise DataError("its series or its instance has no UID")
            if instance in self.instances:
                raise DataError(f"it is a copy of file {self.instances[instance]}")
            self.instances[instance] = number
        except DataError as error:
            self.items.append(Item(f"file {number}", refused=error.what))
            self.refused[os.path.relpath(path, self.root)] = number
            return
        # Each multi-frame file is a volume, single slices are one by their series.
        alone = header["instance"] if header["frames"] > 1 or header["capture"] else ""
        group = header["patient"], header["issuer"], header["series"], alone
        series = self.series.setdefault(group, _Series())
        series.numbers.append(number)
        series.paths.append(path)
        series.headers.append(header)

    def match(self, labels: Labels, file_column: str) -> None:
        """Gives each line to the series it names, by a file of it or by its folder."""
        files: dict[str, _Series] = {}
        folders: dict[str, list[_Series]] = {}
        for series in self.series.values():
            names = [os.path.relpath(path, self.root) for path in series.paths]
            files |= dict.fromkeys(names, series)
            for folder in _folders(names):
                folders.setdefault(folder, []).append(series)
        for label in labels.lines:
            name = os.path.normpath(label.row[file_column])
            if name in files:
                files[name].lines.append(label)
            elif len(inside := folders.get(name, [])) == 1:
                inside[0].lines.append(label)
            else:
                why = self._unmatched(name, len(inside))
                self.items.append(Item(f"line {label.line}", refused=why))

    def _unmatched(self, name: str, inside: int) -> str:
        if name in self.refused:
            return f"it names file {self.refused[name]}, which was refused"
        if inside:
            return f"it names a folder of {inside} volumes; name one file of the volume instead"
        return "there is no readable DICOM file or folder of the name that stands there"

    def sources(self) -> list[Source]:
        """The volumes that the labels name; the others become refused items."""
        found = []
        for group, series in self.series.items():
            try:
                stacked = stack([_as_stored(header) for header in series.headers])
                if series.lines:
                    found.append((self._source(group, series, stacked), series))
                else:
                    why = "no line of the labels names it"
                    item = Item(series.where, refused=why, slices=len(stacked.order))
                    self.items.append(item)
            except DataError as error:
                self.items.append(Item(series.where, refused=error.what))
        return self._of_one_kind(found)

    def _of_one_kind(self, found: list[tuple[Source, _Series]]) -> list[Source]:
        """All sources, or where only some tell their scale those alone."""
        untold = [source for source, series in found if not series.tells("spacing")]
        self.unscaled = len(untold) == len(found)
        if not self.unscaled:
            why = "its header gives no pixel spacing, as those of others do"
            self.items += [Item(s.where, refused=why, slices=s.slices) for s in untold]
            found = [(source, series) for source, series in found if series.tells("spacing")]
        self.unverified = not all(series.tells("orientation") for _, series in found)
        return [source for source, _ in found]

    def _source(self, group: tuple[str, ...], series: _Series, stacked: Stack) -> Source:
        name, issuer, *uids = group
        patient = f"{issuer}\0{name}" if issuer and name else name
        if self.patient_column is not None:
            patient = one_value(series.lines, self.patient_column)
        if not patient:
            raise MissingPatientIds(
                "its header has no PatientID"
                if self.patient_column is None
                else f"its lines have no {self.patient_column}"
            )
        headers = series.headers
        self.units |= {header["unit"] for header in headers}
        lossy = any(header["lossy"] for header in headers)
        return Source(
            where=series.where,
            slices=len(stacked.order),
            field_mm=stacked.field_mm,
            load=lambda: self._load(series, stacked),
            lines=series.lines,
            patient=self.key.patient(patient),
            scan=self.key.scan(patient, "/".join(uids)),
            warnings=(
                *stacked.warnings,
                *([_LOST] if lossy else []),
                *([] if series.tells("orientation") else [_UNTOLD]),
            ),
            synthetic=any(header["synthetic"] for header in headers),
            eight_bit=any(header["eight_bit"] for header in headers),
        )

    def _load(self, series: _Series, stacked: Stack) -> Volume:
        if len(series.headers) == 1:
            header = series.headers[0]
            array = self.worker.voxels(series.paths[0])
            return stacked.volume(array, header["slope"], header["intercept"])
        return stacked.volume(np.stack([self._slice(series, i) for i in range(len(series.paths))]))

    def _slice(self, series: _Series, index: int) -> NDArray[np.float32]:
        """One file of a series, rescaled: in PET every slice has its own slope."""
        header, stored = series.headers[index], self.worker.voxels(series.paths[index])
        counts = stored[0].astype(np.float64) * header["slope"] + header["intercept"]
        return np.asarray(counts, np.float32)


def _as_stored(header: Mapping[str, Any]) -> dict[str, Any]:
    """What a secondary capture may leave out, filled in."""
    untold = {name: value for name, value in _AS_STORED.items() if header[name] is None}
    return {**header, **(untold if header["capture"] else {})}


def _is_same(path: Path, labels: Path) -> bool:
    try:
        return os.path.samefile(path, labels)
    except OSError:  # one is not there
        return False


def _folders(names: Sequence[str]) -> list[str]:
    """The folders that hold all of these files, the root (``.``) included."""
    common = os.path.commonpath([os.path.dirname(name) or "." for name in names] or ["."])
    parts = Path(common).parts
    return [".", *(os.path.join(*parts[: i + 1]) for i in range(len(parts)))]
