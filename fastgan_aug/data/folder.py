"""Import of a folder of images with a CSV of labels."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import RADIOLOGICAL, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import DataError, MissingPatientIds, UnknownFactorValue, UnreadableImage

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".npy")


@dataclass(frozen=True)
class _Image:
    """Counts of one file, (S, S) float64, and whether the file had eight bits."""

    counts: NDArray[np.float64]
    eight_bit: bool


def import_folder(
    root: Path,
    labels_csv: Path,
    *,
    factors: Sequence[str],
    values: Mapping[str, Sequence[str]] | None = None,
    size: int = 64,
    patient_column: str = "patient_id",
    scan_column: str | None = None,
    z_column: str | None = None,
    file_column: str = "file",
    laterality: str = UNVERIFIED,
    source: str = "folder of images",
) -> Dataset:
    """Reads images (PNG or TIFF of 8 or 16 bit, or ``.npy``) named by a CSV.

    Rows in which any factor is empty become neighbours. File names may hold patients' names: they
    are neither kept nor shown in an error, which names the line of the CSV instead.

    Args:
        root: Folder of the images; the CSV's file is relative to it or to its ``images`` folder.
        labels_csv: The CSV; a name that is no file here is looked up in ``root``.
        factors: Columns that label a slice, in the order of the condition vector.
        values: Declared values per factor; a factor left out takes its values in order of first
            appearance.
        size: Rows and columns wanted; images of another size are resampled by area mean.
        patient_column: Pseudonym of each row's patient.
        scan_column: Scan of each row; without it a patient is one scan.
        z_column: Slice index, ascending towards the vertex; slices one apart in a scan are
            neighbours. Without it every z is 0, and no slice has a neighbour.
        file_column: Name of the image's file.
        laterality: ``radiological`` only if row 0 is known to be anterior and column 0 the
            patient's right.
        source: In words, without identifiers.

    Raises:
        DataError: the CSV is missing, empty, or lacks a column, or names an image twice; a z is no
            number; the laterality is none of the two.
        MissingPatientIds: a row has no patient.
        UnknownFactorValue: a value that ``values`` does not declare.
        UnreadableImage: a file that is missing, no image, not square, not finite or constant.
    """
    if laterality not in (RADIOLOGICAL, UNVERIFIED):
        raise DataError(f"laterality is {laterality!r}", allowed=f"{RADIOLOGICAL}, {UNVERIFIED}")
    rows, lines = _read_csv(root, labels_csv)
    optional = [name for name in (scan_column, z_column) if name]
    if patient_column not in rows[0]:
        raise MissingPatientIds(
            f"the labels have no column {patient_column!r}",
            allowed="the columns there are: " + ", ".join(rows[0]),
            do="name the column that tells the patients apart, or add it",
        )
    _check_columns(rows, [file_column, *factors, *optional])
    _check_once([row[file_column] for row in rows], lines)
    patients = _patients(rows, lines, patient_column)
    space, labels = _labels(rows, factors, values or {})
    visits = [f"/{row[scan_column]}" if scan_column else "" for row in rows]
    scans = [p + v for p, v in zip(patients, visits, strict=True)]
    z = _positions(rows, lines, z_column)
    pictures = np.empty((len(rows), size, size), np.float32)
    scale = np.empty(len(rows))
    eight_bit = 0
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        image = _read_image(_locate(root, row[file_column], line), line)
        eight_bit += image.eight_bit
        counts = area_mean(image.counts, size)
        scale[i] = counts.max()
        pictures[i] = counts / scale[i]
    if eight_bit:
        log.warning(
            "%d of %d images have 8 bits: mean counts are coarse (1/255); "
            "import the original counts where you can", eight_bit, len(rows),
        )  # fmt: skip
    meta = DatasetMeta(space, size, source, laterality=laterality, extra={"eight_bit": eight_bit})
    dataset = Dataset.build(
        meta,
        images=pictures,
        labels=labels,
        patient_id=patients,
        scan_id=scans,
        z=z,
        scale=scale.tolist(),
    )
    if z_column:
        _warn_of_positions(dataset)
    return dataset


def _warn_of_positions(dataset: Dataset) -> None:
    """Says where z cannot tell neighbours: Eq. 6 then uses the slice itself."""
    places = Counter(zip(dataset.column("scan_id"), dataset.column("z"), strict=True))
    shared = sum(n for n in places.values() if n > 1)
    if shared:
        log.warning(
            "%d of %d slices share their position with another slice of their scan and have no "
            "neighbours; give rest and stress, or repeated scans, a scan column of their own",
            shared, len(dataset),
        )  # fmt: skip
    elif not any(len(rows) for rows in dataset.neighbours()):
        log.warning("no slice has a neighbour; positions must be slice indices, 1 apart")


def _read_csv(root: Path, labels_csv: Path) -> tuple[list[dict[str, str]], list[int]]:
    """The rows, and the line of the CSV on which each ends."""
    path = labels_csv if labels_csv.is_file() else root / labels_csv
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            numbered = [(row, reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the labels {labels_csv} cannot be read: {error}",
            allowed=f"a UTF-8 CSV with a header, here or in {root}",
            do="check the path",
        ) from None  # a decoding error would carry the whole file along
    if not numbered:
        raise DataError(f"{path} has no rows", allowed="a header and one row per image")
    rows = [
        {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)} for row, _ in numbered
    ]
    if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in rows[0]):
        raise DataError(
            "the first line of the labels names an image",
            allowed="a header and one row per image",
            do="put the names of the columns on the first line",
        )
    return rows, [line for _, line in numbered]


def _check_columns(rows: list[dict[str, str]], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in rows[0]]
    if missing:
        raise DataError(
            f"the labels have no column {', '.join(map(repr, missing))}",
            allowed="the columns there are: " + ", ".join(rows[0]),
            do="name the right columns, or add them to the CSV",
        )


def _check_once(names: list[str], lines: list[int]) -> None:
    listed = Counter(names)
    twice = [line for name, line in zip(names, lines, strict=True) if listed[name] > 1]
    if twice:
        raise DataError(
            f"{len(twice)} rows name an image that another row names too (first: line {twice[0]})",
            allowed="one row per image",
            do="remove the repeated rows: a slice on both sides of a split would be a leak",
        )


def _patients(rows: list[dict[str, str]], lines: list[int], column: str) -> list[str]:
    patients = [row[column] for row in rows]
    empty = [line for patient, line in zip(patients, lines, strict=True) if not patient]
    if empty:
        raise MissingPatientIds(
            f"{len(empty)} of {len(rows)} rows have no {column} (first: line {empty[0]})",
            allowed="a pseudonym on every row",
            do="fill the column: splits by patient are what every claim rests on",
        )
    return patients


def _labels(
    rows: list[dict[str, str]], factors: Sequence[str], values: Mapping[str, Sequence[str]]
) -> tuple[ConditionSpace, dict[str, list[str | None]]]:
    """The space, and each factor's value per row: all of them, or None for neighbours."""
    if unknown := set(values) - set(factors):
        raise DataError(
            f"values are declared for {sorted(unknown)}, which are no factors",
            allowed=", ".join(factors),
            do="name them as factors too",
        )
    declared: dict[str, Sequence[str]] = {}
    for name in factors:
        found = list(dict.fromkeys(row[name] for row in rows if row[name]))
        declared[name] = values.get(name, found)
        unknown = set(found) - set(declared[name])
        if unknown:
            raise UnknownFactorValue(
                f"{name} has the unknown values {sorted(unknown)}",
                allowed=", ".join(declared[name]),
                do=f"correct the {name} column, or declare the values",
            )
        if not declared[name]:
            raise DataError(
                f"the column {name!r} is empty on every row",
                do="label some slices, or name another factor",
            )
    complete = [all(row[name] for name in factors) for row in rows]
    labels = {
        name: [row[name] if full else None for row, full in zip(rows, complete, strict=True)]
        for name in factors
    }
    return ConditionSpace.of(declared), labels


def _positions(rows: list[dict[str, str]], lines: list[int], column: str | None) -> list[float]:
    if column is None:
        return [0.0] * len(rows)
    z = [_number(row[column]) for row in rows]
    bad = [line for value, line in zip(z, lines, strict=True) if not np.isfinite(value)]
    if bad:
        raise DataError(
            f"{len(bad)} of {len(rows)} rows have no finite number in {column} "
            f"(first: line {bad[0]})",
            allowed="a slice index on every row",
        )
    return z


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _locate(root: Path, name: str, line: int) -> Path:
    for path in (root / name, root / "images" / name):
        if name and path.is_file():
            return path
    raise UnreadableImage(
        f"there is no image of the name on line {line} of the labels",
        allowed="a file in the folder or in its images folder",
        do="correct the file column, or copy the image there",
    )


def _read_image(path: Path, line: int) -> _Image:
    """Reads one grey image and checks that it is square, finite, not negative, not constant."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise _unreadable(line, "its type is another")
    try:
        image = _read_npy(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    except Exception as error:  # decoders raise nearly anything on damaged files
        # Not the error's text, nor the error itself: both may name the file.
        raise _unreadable(line, f"it cannot be decoded ({type(error).__name__})") from None
    if isinstance(image, str):
        raise _unreadable(line, image)
    counts = image.counts
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise _unreadable(line, f"its shape is {counts.shape}")
    if not np.isfinite(counts).all() or counts.min() < 0:
        raise _unreadable(line, "it holds negative values or values that are not finite")
    if counts.max() == counts.min():
        raise _unreadable(line, f"all its pixels are {counts.max():g}")
    return image


def _read_npy(path: Path) -> _Image:
    values = np.load(path, allow_pickle=False)
    return _Image(np.asarray(values, np.float64), values.dtype == np.uint8)


def _read_picture(path: Path) -> _Image | str:
    """The counts, or why they are none."""
    from PIL import Image

    with Image.open(path) as picture:
        # Colours and palettes are no counts; their order need not follow brightness.
        if picture.mode not in ("L", "F", "I") and not picture.mode.startswith("I;16"):
            return f"its mode is {picture.mode!r}"
        return _Image(np.asarray(picture, np.float64), picture.mode == "L")


def _unreadable(line: int, why: str) -> UnreadableImage:
    return UnreadableImage(
        f"the image on line {line} of the labels cannot be taken: {why}",
        allowed="a square grey image, PNG or TIFF of 8 or 16 bit or .npy, finite, not constant",
        do="export the slice again, or remove its row from the CSV",
    )


def area_mean(image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Resamples a square image so that each new pixel is the mean over its own area.

    Counts per area are kept: the mean over the picture does not change.

    Args:
        image: (N, N).
        size: Rows and columns wanted; equal to N, the image is returned as it is.

    Returns:
        (size, size).
    """
    if len(image) == size:
        return image
    edges = np.linspace(0, len(image), size + 1)
    source = np.arange(len(image))
    low = np.maximum(edges[:-1, None], source)
    high = np.minimum(edges[1:, None], source + 1)
    weights = np.clip(high - low, 0, None) * (size / len(image))
    return np.asarray(weights @ image @ weights.T)
