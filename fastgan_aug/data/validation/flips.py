"""Slices whose left and right are the other way round than in the slices beside them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.quality.clinical.counts import masks, symmetry_axes

# Of the asymmetry maps: nobody is symmetric, and adjacent slices share their asymmetry.
# At 0.5 none of 2,814 phantom slices is named (one is at 0.4), and 58 % of single flipped ones are.
OPPOSITE = 0.5
# Pixels: below it the asymmetry map is counting noise, which adjacent slices do not share.
_SMOOTH = 1.5
_LONGEST = 256  # slices of a scan looked at together: bounds memory


def flipped_slices(dataset: Dataset, opposite: float = OPPOSITE) -> NDArray[np.int64]:
    """Rows that look like the mirror image of what their scan says at that place.

    The asymmetry map of a slice is its right half minus its mirrored left half, about the axis of
    its own mask. A slice is named where its map correlates negatively with those of its two
    nearest slices, below ``-opposite``, while these two agree with each other, above ``opposite``.
    Half a scan flipped, or all of it, cannot be told this way.

    Args:
        dataset: Rows that share their z with another of the scan are left out.
        opposite: Least size of the correlations, in (0, 1).

    Returns:
        Positions of rows, ascending.
    """
    found: set[int] = set()
    for rows in _scans(dataset):
        maps = asymmetry_maps(dataset.images[rows])
        likeness = maps @ maps.T
        for i in range(len(rows)):
            j, k = _nearest_two(i, len(rows))
            apart = max(likeness[i, j], likeness[i, k])
            if apart < -opposite and likeness[j, k] > opposite:
                found.add(int(rows[i]))
    return np.asarray(sorted(found), np.int64)


def _nearest_two(i: int, count: int) -> tuple[int, int]:
    """The slices on both sides, or the next two at an end."""
    if i == 0:
        return 1, 2
    return (i - 1, i + 1) if i < count - 1 else (i - 1, i - 2)


def _scans(dataset: Dataset) -> Iterator[NDArray[np.int64]]:
    """Rows of each scan with three slices or more, in the order of z; long scans in parts."""
    scans, z = dataset.column("scan_id").astype(str), dataset.column("z").astype(np.float64)
    order = np.lexsort((z, scans))
    for rows in np.split(order, np.flatnonzero(scans[order][1:] != scans[order][:-1]) + 1):
        apart = np.diff(z[rows]) > 0
        alone = np.append(True, apart) & np.append(apart, True)
        rows = rows[alone]
        for start in range(0, len(rows) - 2, _LONGEST - 2):
            yield rows[start : start + _LONGEST]


def asymmetry_maps(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Right half minus mirrored left half, about each mask's own axis, smoothed, of norm 1.

    The axis is known to half a pixel, and heads are tilted. What a small shift or rotation of a
    symmetric slice would show is taken out: it says where the slice lies, not how its sides differ.

    Args:
        images: (N, S, S) counts.

    Returns:
        (N, S * S) float64; zero for a blank or perfectly symmetric slice. The product of two rows
        is their correlation.
    """
    twice = np.rint(2 * symmetry_axes(masks(images))).astype(np.int64)
    smooth = ndimage.gaussian_filter(images.astype(np.float64), (0, _SMOOTH, _SMOOTH))
    down, right = np.gradient(smooth, axis=(1, 2))
    place = np.arange(images.shape[-1])
    from_axis = (place - twice[:, None] / 2)[:, None, :]
    turned = from_axis * down - (place - place.mean())[:, None] * right
    maps, *small = (_asymmetry(each, twice) for each in (smooth, right, turned))
    for basis in (small[0], _without(small[1], small[0])):
        maps = _without(maps, basis)
    norm = np.linalg.norm(maps, axis=1, keepdims=True)
    return np.asarray(np.divide(maps, norm, out=np.zeros_like(maps), where=norm > 1e-9))


def _asymmetry(images: NDArray[np.float64], twice: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, S * S) each column right of the axis (in half pixels) minus its mirror image."""
    size = images.shape[-1]
    # Offsets 0, 1, ...: columns right and left of an axis that lies on a pixel or between two.
    right = (twice[:, None] + 1) // 2 + np.arange(size)
    left = twice[:, None] - right
    inside = (right < size) & (left >= 0)
    take = [np.where(inside, columns, 0)[:, None, :] for columns in (right, left)]
    halves = [np.take_along_axis(images, columns, axis=2) for columns in take]
    return np.where(inside[:, None], halves[0] - halves[1], 0).reshape(len(images), -1)


def _without(maps: NDArray[np.float64], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of each map is perpendicular to its basis map."""
    square = (basis**2).sum(axis=1, keepdims=True)
    share = (maps * basis).sum(axis=1, keepdims=True) / np.where(square > 1e-12, square, np.inf)
    return np.asarray(maps - share * basis)
