"""The geometry of a DICOM volume: in which order its slices are stacked, and how they lie."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.importers.volumes import MAX_TILT_DEGREES, Volume, check_voxels, radiological
from fastgan_aug.errors import DataError

_SHIFT_MM = 1.0  # how far slices may lie beside their common normal
_UNEVEN = 0.05  # of a slice distance


@dataclass(frozen=True)
class Stack:
    """How stored slices become a volume.

    Attributes:
        order: Stored slices from the lowest to the vertex.
        z: (K,) mm above the lowest slice.
        across: (3, 3) steps along slices, rows and columns in DICOM's patient system.
        spacing: Distance between stored rows and between stored columns, mm.
        shape: Stored rows and columns.
        warnings: What the user should know.
    """

    order: NDArray[np.int64]
    z: NDArray[np.float64]
    across: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    warnings: tuple[str, ...] = ()

    @property
    def field_mm(self) -> float:
        """The longer side of a slice."""
        return max(self.shape[0] * self.spacing[0], self.shape[1] * self.spacing[1])

    def volume(
        self, stored: NDArray[np.float32], slope: float = 1.0, intercept: float = 0.0
    ) -> Volume:
        """The volume of ``stored``, (K, R, C) in the order of the files or frames."""
        array = radiological(stored[self.order], self.across)
        swapped = abs(self.across[1] @ [1.0, 0, 0]) > abs(self.across[1] @ [0, 1.0, 0])
        spacing = self.spacing[::-1] if swapped else self.spacing
        return Volume(array, self.z, (spacing[0], spacing[1]), slope, intercept)


def stack(headers: Sequence[Mapping[str, Any]]) -> Stack:
    """The stack of one multi-frame file, or of the single slices of a series.

    Args:
        headers: As ``dicom_reader.describe`` lists them.

    Raises:
        DataError: the slices do not fit each other, are not transverse, lie unevenly or twice in
            one place, or the header does not tell spacing, position or direction.
    """
    first = headers[0]
    for name in ("orientation", "spacing", "rows", "columns"):
        if any(not _same(header[name], first[name]) for header in headers):
            raise DataError(f"its slices differ in {name}")
    if first["spacing"] is None or not all(1e-2 < step < 1e2 for step in first["spacing"]):
        raise DataError("its header gives no pixel spacing")
    count = first["frames"] if len(headers) == 1 else len(headers)
    check_voxels((count, first["rows"], first["columns"]), 4)
    right, down, normal = _directions(first["orientation"])
    if count == 1:
        places = np.zeros(1)
    elif len(headers) == 1:
        places = _frame_places(first)
    else:
        places = _file_places(headers, normal)
    if normal[2] < 0:  # towards the feet
        places, normal = -places, -normal
    order = np.argsort(places, kind="stable")
    z = places[order] - places.min()
    gaps = np.diff(z)
    warnings = _check_gaps(gaps)
    if count > 1 and len(headers) == 1 and first["places"] is None:
        warnings.append("its header has no SliceVector: frames are taken in stored order")
    down_step, right_step = first["spacing"]
    up = normal * float(gaps.min(initial=np.inf) if count > 1 else 1.0)
    across = np.stack([up, down * down_step, right * right_step])
    return Stack(
        order, z, across, (down_step, right_step), (first["rows"], first["columns"]),
        tuple(warnings),
    )  # fmt: skip


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.allclose(one, other, rtol=1e-4, atol=1e-4))


def _directions(orientation: Sequence[float]) -> tuple[NDArray[np.float64], ...]:
    """Unit vectors along a row, along a column, and their normal.

    Raises:
        DataError: they are no directions, or the slices are not transverse.
    """
    right, down = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    lengths = np.linalg.norm(right), np.linalg.norm(down)
    if not np.allclose(lengths, 1, atol=0.01) or abs(right @ down) > 0.01:
        raise DataError("its orientation is not two directions at right angles")
    normal = np.cross(right, down)
    normal /= np.linalg.norm(normal)
    tilt = math.degrees(math.acos(min(1.0, abs(float(normal[2])))))
    if tilt > MAX_TILT_DEGREES:
        raise DataError(
            f"its slices are turned by {tilt:.0f} degrees from transverse",
            allowed=f"at most {MAX_TILT_DEGREES:.0f} degrees",
            do="reconstruct transverse slices",
        )
    return right / lengths[0], down / lengths[1], normal


def _frame_places(header: Mapping[str, Any]) -> NDArray[np.float64]:
    """Position of each frame along the normal, mm; a negative spacing stacks against it.

    The sign is that of Spacing Between Slices in the NM Reconstruction module (PS3.3 C.8.4.15).
    """
    between = header["between"]
    if between is None or not 1e-2 < abs(between) < 1e2:
        raise DataError("its header does not tell how far its slices lie apart, nor in which order")
    index = header["places"] or range(1, header["frames"] + 1)
    return np.asarray((np.asarray(index, np.float64) - 1) * float(between))


def _file_places(
    headers: Sequence[Mapping[str, Any]], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Position of each file's slice along the normal, mm."""
    if any(header["position"] is None for header in headers):
        raise DataError("some of its slices have no position")
    corners = np.asarray([header["position"] for header in headers], np.float64)
    places = corners @ normal
    beside = corners - np.outer(places, normal)
    if np.abs(beside - beside[0]).max() > _SHIFT_MM:
        raise DataError(
            "its slices are shifted against each other (gantry tilt, or several series)"
        )
    return np.asarray(places)


def _check_gaps(gaps: NDArray[np.float64]) -> list[str]:
    """Gaps are all one distance, or whole multiples of it where slices are missing."""
    if not len(gaps):
        return []
    step = float(gaps.min())
    if step < 1e-2:
        raise DataError("several of its slices lie in one place (gated, dynamic, or two series)")
    steps = gaps / step
    if np.abs(steps - np.round(steps)).max() > _UNEVEN:
        raise DataError(
            f"its slices lie unevenly, {step:.2f} to {float(gaps.max()):.2f} mm apart",
            do="reconstruct slices of one distance",
        )
    missing = int((np.round(steps) - 1).sum())
    if not missing:
        return []
    return [
        f"slices are missing between others ({missing} of them): slices are counted without them, "
        "and none is a neighbour across such a gap"
    ]
