"""Import of an NPZ archive in MedMNIST's layout: images and labels of three splits, no patients."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.importing import Import, Item
from fastgan_aug.data.importers.resample import area_mean, normalise
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import OWN_COLUMNS, UNGROUPED, UNKEYED, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import DataError, UnknownFactorValue, UnreadableImage

SPLITS = ("train", "val", "test")
GIVEN_SPLIT = "given_split"
# Of one array, decompressed. A few kilobytes of a zip archive may hold gigabytes of zeros.
MAX_BYTES = 2 * 2**30
# Of all images together, as float32 of the target size.
MAX_IMAGE_BYTES = 8 * 2**30
EIGHT_BIT = "the images have 8 bits: mean counts are coarse (1/255)"
NO_PATIENTS = (
    "there are no patients: each image is a group of its own, and nothing may be claimed from "
    "splits of this data set"
)


@dataclass
class _Rows:
    """What was taken."""

    images: list[NDArray[np.float32]] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    number: list[int] = field(default_factory=list)


def import_npz(
    path: Path,
    *,
    factor: str = "label",
    values: Sequence[str] | None = None,
    size: int = 64,
    key: PseudonymKey | None = None,
    source: str = "NPZ archive in MedMNIST's layout",
) -> Import:
    """Reads ``train_images``, ``train_labels`` and so on for ``val`` and ``test``.

    Images are (N, S, S) uint8, labels (N, 1) or (N,) whole numbers. There are no patients:
    ``grouping`` is ``none`` and each image has an id of its own. The split it came in is kept in
    the column ``given_split``. An array or image that cannot be taken is refused and stops nothing
    else.

    Args:
        path: The archive.
        factor: Name of the factor that the labels are of.
        values: Names of the labels 0, 1 and so on; by default the numbers found, as text.
        size: Rows and columns wanted; others are resampled by area mean.
        key: Makes the images' ids; without one they follow from the archive's digest.
        source: In words, without identifiers.

    Raises:
        DataError: it is no NPZ archive, holds no split, or the factor's name is taken.
        UnknownFactorValue: a label for which ``values`` has no name.
    """
    if factor in (*OWN_COLUMNS, GIVEN_SPLIT):
        raise DataError(f"the factor is named {factor!r}", do="choose another name")
    rows, items = _Rows(), []
    for split in _splits(path):
        with zipfile.ZipFile(path) as archive:
            items += _take_split(archive, split, size, rows)
    if not rows.images:
        return Import(None, items)
    space, labels = _named(rows.label, factor, values)
    ids = _ids(path, rows, key)
    meta = DatasetMeta(
        space, size, source, laterality=UNVERIFIED, grouping=UNGROUPED,
        pseudonym_key=UNKEYED if key is None else key.id, extra={"eight_bit": len(rows.images)},
    )  # fmt: skip
    dataset = Dataset.build(
        meta,
        images=np.stack(rows.images),
        labels={factor: labels},
        patient_id=ids,
        scan_id=ids,
        z=[0.0] * len(ids),
        scale=rows.scale,
        extra={GIVEN_SPLIT: pa.array(rows.split, pa.string())},
    )
    return Import(dataset, items, (EIGHT_BIT, NO_PATIENTS))


def _splits(path: Path) -> list[str]:
    """The splits that the archive has any array of."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        # Not the error itself: it may hold the path.
        raise DataError(
            f"the archive cannot be read ({type(error).__name__})",
            allowed="an .npz file with train_images, train_labels and so on",
            do="download it again",
        ) from None
    there = [s for s in SPLITS if {f"{s}_images.npy", f"{s}_labels.npy"} & set(names)]
    if not there:
        raise DataError(
            "the archive has no array of MedMNIST's layout",
            allowed=", ".join(f"{s}_images, {s}_labels" for s in SPLITS),
            do="save the arrays under these names with numpy.savez_compressed",
        )
    return there


def _take_split(archive: zipfile.ZipFile, split: str, size: int, rows: _Rows) -> list[Item]:
    """Adds a split's images to ``rows``; an item for the split and one per refused image."""
    where = f"{split}_images"
    try:
        images = _read(archive, where)
        _check_images(images, size, len(rows.images))
        where = f"{split}_labels"
        labels = _read(archive, where)
        _check_labels(labels, len(images))
    except DataError as error:
        return [Item(where, refused=error.what)]
    refused = []
    before = len(rows.images)
    for number, (image, label) in enumerate(zip(images, labels.reshape(-1), strict=True)):
        try:
            picture, scale, _ = normalise(area_mean(image.astype(np.float64), size))
        except UnreadableImage as error:
            refused.append(Item(f"{split} image {number}", refused=error.what))
            continue
        rows.images.append(picture)
        rows.scale.append(scale)
        rows.label.append(int(label))
        rows.split.append(split)
        rows.number.append(number)
    taken = len(rows.images) - before
    said = (f"{len(refused)} of {len(images)} images were refused",) if refused else ()
    none = "none of its images can be taken" if not taken else ""
    return [Item(split, labelled=taken, refused=none, warnings=said), *refused]


def _check_images(images: NDArray[Any], size: int, before: int) -> None:
    if images.dtype != np.uint8:
        raise DataError(f"its values are {images.dtype}, not uint8")
    if images.ndim == 4:
        raise DataError("its images are in colour: colours are no counts")
    if images.ndim != 3 or images.shape[1] != images.shape[2] or not images.size:
        raise DataError(f"its shape is {images.shape}, not (N, S, S)")
    if (before + len(images)) * size**2 * 4 > MAX_IMAGE_BYTES:
        raise DataError(
            f"its {len(images)} images of {size} x {size} take more than {MAX_IMAGE_BYTES} bytes"
        )


def _check_labels(labels: NDArray[Any], images: int) -> None:
    if labels.dtype.kind not in "iu":
        raise DataError(f"its values are {labels.dtype}, not whole numbers")
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(f"each image has {labels.shape[1]} labels; one image is of one cell")
    if labels.ndim not in (1, 2) or labels.size != images:
        raise DataError(f"its shape is {labels.shape}, for {images} images")
    if labels.min() < 0:
        raise DataError("a label is negative")


def _named(
    labels: list[int], factor: str, values: Sequence[str] | None
) -> tuple[ConditionSpace, list[str]]:
    found = sorted(set(labels))
    if values is None:
        names = {number: str(number) for number in found}
        return ConditionSpace.of({factor: names.values()}), [names[n] for n in labels]
    if found[-1] >= len(values):
        raise UnknownFactorValue(
            f"the labels go up to {found[-1]}, but {len(values)} values are declared",
            allowed="a name for each of 0, 1 and so on",
            do="declare the values of all labels, in the order of their numbers",
        )
    return ConditionSpace.of({factor: values}), [values[n] for n in labels]


def _ids(path: Path, rows: _Rows, key: PseudonymKey | None) -> list[str]:
    """An id per image: images of two archives never share one."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    places = zip(rows.split, rows.number, strict=True)
    names = [f"{digest}-{split}-{number:06d}" for split, number in places]
    return names if key is None else [key.patient(name) for name in names]


# -- one array -------------------------------------------------------------------------------------


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array, its size checked against what header and archive declare before it is read.

    Raises:
        DataError: it is missing, damaged, of Python objects (a pickle), or too large.
    """
    entries = [entry for entry in archive.infolist() if entry.filename == f"{name}.npy"]
    if len(entries) != 1:
        raise DataError("it is missing" if not entries else "the archive has it twice")
    try:
        with archive.open(entries[0]) as stream:
            return _read_npy(stream, entries[0].file_size)
    except DataError:
        raise
    except MemoryError:
        raise DataError("it needs more memory than there is") from None
    except Exception as error:  # zipfile, zlib and numpy raise nearly anything on damaged files
        raise DataError(f"it cannot be read ({type(error).__name__})") from None


def _read_npy(stream: IO[bytes], declared: int) -> NDArray[Any]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise DataError("its format version is another")
    if dtype.hasobject or dtype.kind not in "iu":
        raise DataError(f"its values are of kind {dtype.kind!r}, not whole numbers")
    wanted = dtype.itemsize
    for length in shape:
        wanted *= int(length)
    if wanted > MAX_BYTES or wanted > declared:
        raise DataError(f"its header declares {wanted} bytes, the archive {declared}")
    content = stream.read(wanted)
    if len(content) < wanted:
        raise DataError(f"it is cut short: {len(content)} of {wanted} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
