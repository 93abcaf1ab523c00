"""From volumes to labelled slices and their neighbours, in one convention for every format.

A volume is brought to the radiological convention by flips and transpositions alone, never by
interpolation: slices ascend towards the vertex, row 0 is anterior, column 0 the patient's right.
The labels count slices from 0 in that order.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.importers.gathering import Gathered, Progress
from fastgan_aug.data.importers.importing import Item
from fastgan_aug.data.importers.labels import Label
from fastgan_aug.data.importers.resample import cut_share, fit_field, normalise, remarks
from fastgan_aug.data.schema import ADJACENT_MM
from fastgan_aug.errors import DataError

SLICE_COLUMN = "slice"
# 512 slices of 512 x 512, float32: what an import may hold in memory of one volume.
MAX_VOXELS = 512**3
MAX_BYTES = 4 * MAX_VOXELS
MAX_TILT_DEGREES = 30.0
# Directions of the three array axes in the radiological convention, in DICOM's patient system
# (x to the patient's left, y posterior, z to the head): slices up, rows back, columns left.
_RADIOLOGICAL = np.asarray([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float64)


@dataclass(frozen=True)
class Volume:
    """Slices in the radiological convention.

    Attributes:
        array: (K, R, C), any real type; counts are ``slope * array + intercept``.
        z: (K,) mm above the lowest slice, ascending.
        spacing: Distance between rows and between columns, mm.
        slope: Of the stored values.
        intercept: Of the stored values.
    """

    array: NDArray[Any]
    z: NDArray[np.float64]
    spacing: tuple[float, float]
    slope: float = 1.0
    intercept: float = 0.0

    def counts(self, index: int) -> NDArray[np.float64]:
        """Slice ``index``, (R, C)."""
        return np.asarray(self.array[index], np.float64) * self.slope + self.intercept

    def adjacent(self, index: int) -> list[int]:
        """The slices directly below and above, unless a gap lies between (Eq. 6)."""
        gaps = np.diff(self.z)
        limit = min(1.5 * float(gaps.min(initial=np.inf)), ADJACENT_MM)
        below = [index - 1] if index > 0 and gaps[index - 1] <= limit else []
        above = [index + 1] if index < len(gaps) and gaps[index] <= limit else []
        return below + above


@dataclass(frozen=True)
class Source:
    """A volume whose header was read, and the lines of the labels that name it.

    Attributes:
        where: How the report names it.
        slices: Their number.
        field_mm: The longer side of a slice.
        load: Reads the voxels; raises DataError.
        lines: Lines of the labels.
        patient: Pseudonym.
        scan: Pseudonym.
        warnings: Of its header.
        synthetic: Whether it was generated.
        eight_bit: Whether its values have eight bits.
    """

    where: str
    slices: int
    field_mm: float
    load: Callable[[], Volume]
    lines: list[Label]
    patient: str
    scan: str
    warnings: tuple[str, ...] = ()
    synthetic: bool = False
    eight_bit: bool = False


def axes(steps: NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """How the axes of an array become slices, rows and columns.

    Args:
        steps: (3, 3) row a: the step along array axis a, in DICOM's patient system (x to the
            patient's left, y posterior, z to the head).

    Returns:
        For slices, rows and columns: which array axis, and 1 or -1 where it must be flipped.

    Raises:
        DataError: no step may be zero, and none lies further than 30 degrees from an axis of
            the body.
    """
    lengths = np.linalg.norm(steps, axis=1)
    if not np.isfinite(steps).all() or (lengths < 1e-3).any() or (lengths > 1e3).any():
        raise DataError("its header gives no usable spacing and orientation")
    cosines = (steps / lengths[:, None]) @ _RADIOLOGICAL.T
    order = max(
        itertools.permutations(range(3)),
        key=lambda p: sum(abs(cosines[axis, to]) for to, axis in enumerate(p)),
    )
    chosen = [float(cosines[axis, to]) for to, axis in enumerate(order)]
    tilt = math.degrees(math.acos(min(1.0, min(map(abs, chosen)))))
    if tilt > MAX_TILT_DEGREES:
        raise DataError(
            f"it is turned by {tilt:.0f} degrees from the body's axes",
            allowed=f"at most {MAX_TILT_DEGREES:.0f} degrees",
            do="reconstruct transverse slices",
        )
    flips = tuple(1 if c > 0 else -1 for c in chosen)
    return (order[0], order[1], order[2]), (flips[0], flips[1], flips[2])


def radiological(array: NDArray[Any], steps: NDArray[np.float64]) -> NDArray[Any]:
    """A view of (three-dimensional) ``array`` in the radiological convention.

    Args:
        array: Any order of axes.
        steps: As in ``axes``.

    Raises:
        DataError: as ``axes``.
    """
    order, flips = axes(steps)
    return np.transpose(array, order)[:: flips[0], :: flips[1], :: flips[2]]


def check_voxels(shape: Sequence[int], item_bytes: int) -> None:
    """Verifies a declared size, before anything is allocated for it.

    Raises:
        DataError: no voxels, or too many.
    """
    voxels = math.prod(shape)
    if min(shape) < 1 or voxels > MAX_VOXELS or voxels * item_bytes > MAX_BYTES:
        raise DataError(
            f"its header declares {' x '.join(map(str, shape))} voxels of {item_bytes} bytes",
            allowed=f"at least one and at most {MAX_VOXELS} voxels and {MAX_BYTES} bytes",
        )


def common_pixel(sources: Sequence[Source], size: int) -> float | None:
    """The pixel of the data set, mm: the one most volumes have at ``size``; None without any.

    Where several are equally common, the largest, so that no head is cut.
    """
    exact = {round(source.field_mm / size, 4): source.field_mm / size for source in sources}
    common = Counter(round(source.field_mm / size, 4) for source in sources)
    return exact[max(common, key=lambda p: (common[p], p))] if common else None


def take_volumes(
    sources: Sequence[Source], rows: Gathered, pixel_mm: float, progress: Progress | None = None
) -> list[Item]:
    """Takes the chosen slices of each volume, and their neighbours, into ``rows``.

    Returns:
        For each volume its item, then one for each line that was refused.
    """
    items: list[Item] = []
    for done, source in enumerate(sources, 1):
        try:
            items += _Taking(source, rows, pixel_mm).items()
        except DataError as error:
            items.append(Item(source.where, refused=error.what, slices=source.slices))
        except MemoryError:
            why = "it needs more memory than there is"
            items.append(Item(source.where, refused=why, slices=source.slices))
        if progress:
            progress(done, len(sources))
    return items


class _Taking:
    """One volume on its way into the rows."""

    def __init__(self, source: Source, rows: Gathered, pixel_mm: float) -> None:
        self.source, self.rows, self.pixel_mm = source, rows, pixel_mm
        self.volume = source.load()
        self.warnings = list(source.warnings)
        if source.eight_bit:
            self.warnings.append("8 bits: mean counts are coarse (1/255)")
        self.refused: list[Item] = []
        self.synthetic = source.synthetic or any(line.synthetic for line in source.lines)

    def items(self) -> list[Item]:
        """Takes what can be taken; the volume's item, and those of its refused lines."""
        chosen = self._chosen()
        taken: dict[int, tuple[Label | None, NDArray[np.float32], float]] = {}
        for index, label in chosen.items():
            try:
                taken[index] = (label, *self._slice(index))
            except DataError as error:
                self._refuse(label, error.what)
        labelled = [i for i, (label, _, _) in taken.items() if label and label.labelled]
        for index in sorted({j for i in labelled for j in self.volume.adjacent(i)} - set(chosen)):
            try:
                taken[index] = (None, *self._slice(index))
            except DataError:
                self._warn("a neighbour is empty or no image of counts, and is left out")
        if labelled:
            self._add(taken)
        return [self._item(len(labelled), len(taken) - len(labelled)), *self.refused]

    def _item(self, labelled: int, neighbours: int) -> Item:
        source = self.source
        if not labelled:
            why = "none of its slices could be taken with a label"
            return Item(source.where, refused=why, slices=source.slices)
        return Item(
            source.where, labelled, neighbours, warnings=tuple(self.warnings), slices=source.slices
        )

    def _chosen(self) -> dict[int, Label]:
        """The lines by the slice they name."""
        chosen: dict[int, Label] = {}
        for label in self.source.lines:
            text, last = label.row[SLICE_COLUMN], len(self.volume.z) - 1
            if not (text.isascii() and text.isdigit() and len(text) < 7):
                self._refuse(label, "its slice is no whole number from 0")
            elif int(text) > last:
                self._refuse(label, f"there is no slice {int(text)}: they are 0 to {last}")
            elif int(text) in chosen:
                self._refuse(label, "another line names the same slice")
            else:
                chosen[int(text)] = label
        return chosen

    def _slice(self, index: int) -> tuple[NDArray[np.float32], float]:
        """The slice at the data set's size and pixel, and its scale."""
        spacing, counts = self.volume.spacing, self.volume.counts(index)
        if not np.isfinite(counts).all():
            raise DataError("it holds values that are not finite")
        resampled = fit_field(counts, spacing, self.rows.size, self.pixel_mm)
        image, scale, clipped = normalise(resampled)
        for remark in remarks(clipped, cut_share(counts, resampled, spacing, self.pixel_mm)):
            self._warn(remark)
        return image, scale

    def _add(self, taken: dict[int, tuple[Label | None, NDArray[np.float32], float]]) -> None:
        nobody = (None,) * len(self.rows.factors)
        self.rows.eight_bit += len(taken) if self.source.eight_bit else 0
        for index in sorted(taken):
            label, image, scale = taken[index]
            self.rows.add(
                image,
                values=label.values if label else nobody,
                patient=self.source.patient,
                scan=self.source.scan,
                z=float(self.volume.z[index]),
                scale=scale,
                synthetic=self.synthetic,
            )

    def _refuse(self, label: Label, why: str) -> None:
        self.refused.append(Item(f"line {label.line}", refused=why))

    def _warn(self, text: str) -> None:
        kind = text.partition(":")[0]  # the first of several slices stands for all
        if not any(known.startswith(kind) for known in self.warnings):
            self.warnings.append(text)
