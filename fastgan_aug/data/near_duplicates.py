"""Slices that are copies of one another: exact, or after rounding, scaling, a shift, a mirror.

The distance of two slices is ``| a / |a| - b / |b| |`` at the best shift of up to two pixels, over
the part that both show: 0 for copies whatever their scale, about 1.4 for slices without anything
in common. A shift leaves the magnitudes of the Fourier transform as they are, so the distance of
the magnitudes is never above that of the slices (the reverse triangle inequality): products of
small matrices find every candidate among all pairs, and only those are shifted and compared.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Copies after 8-bit rounding and a shift of up to 2 pixels are at most 0.006 apart, those rounded
# in half their range 0.011. The nearest slices of different patients are more than 0.10 apart in
# phantoms of 250 patients (2,800 slices) and 0.22 among 220 real slices of 9 patients.
NEAR = 0.03
SHIFT = 2  # pixels, each way
# A shift pushes a little of a cut head out of the picture: candidates may be further apart.
_CANDIDATE = 2.0  # times as far
_FREQUENCIES = 8  # lowest of each axis: most of the power, a sharp bound
_BLOCK = 1024  # slices on each side of a matrix product
_PAIRS = 64  # compared at once
# Enough to see that something is wrong with a whole data set, in bounded time.
MOST_PAIRS = 2000


@dataclass(frozen=True)
class Copy:
    """Two rows that show the same slice.

    Attributes:
        first: The lower row.
        second: The higher row.
        distance: See the module.
        exact: Whether they are equal byte by byte.
        mirrored: Whether one is the other's mirror image.
    """

    first: int
    second: int
    distance: float
    exact: bool = False
    mirrored: bool = False


def find_copies(
    images: NDArray[np.float32], series: NDArray[np.int64], near: float = NEAR
) -> list[Copy]:
    """Finds exact copies and near copies.

    Within a series (a scan) only exact and mirrored copies count: thin slices one beside the other
    are alike by nature. Blank slices are no copies. At most ``MOST_PAIRS`` near pairs are compared.

    Args:
        images: (N, S, S) non-negative counts.
        series: (N,) which series each slice is of.
        near: Largest distance of a near copy.

    Returns:
        Copies, exact ones first, then in the order of rows. Of slices that are all equal, each is
        paired with the first.
    """
    groups: dict[bytes, list[int]] = {}
    for row in np.flatnonzero(images.any(axis=(1, 2))):
        key = hashlib.blake2b(np.ascontiguousarray(images[row]).tobytes()).digest()
        groups.setdefault(key, []).append(int(row))
    exact = [Copy(rows[0], row, 0.0, exact=True) for rows in groups.values() for row in rows[1:]]
    single = np.asarray(sorted(rows[0] for rows in groups.values()), np.int64)
    if len(single) < 2:
        return exact
    found = _candidates(images[single], series[single], _CANDIDATE * near)
    candidates = itertools.islice(found, MOST_PAIRS)
    pairs = np.asarray(list(candidates), np.int64).reshape(-1, 2)
    return exact + list(_compare(images, single[pairs], series, near))


def _magnitudes(images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, D) magnitudes of the low frequencies of the slices of norm 1, and of their mirrors."""
    size = images.shape[-1]
    most = min(_FREQUENCIES, (size - 1) // 2)
    rows = np.arange(-most, most + 1)
    # Columns below zero are conjugates of the ones above, and the first column of itself.
    weight = np.sqrt(np.append(1.0, np.full(most, 2.0)))
    found = np.empty((len(images), len(rows), most + 1), np.float32)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK].astype(np.float64)
        power = np.abs(np.fft.rfft2(block, norm="ortho"))[:, rows, : most + 1] * weight
        found[start : start + _BLOCK] = power / np.linalg.norm(block, axis=(1, 2), keepdims=True)
    flat = (len(images), -1)
    return found.reshape(flat), np.ascontiguousarray(found[:, ::-1]).reshape(flat)


def _candidates(
    images: NDArray[np.float32], series: NDArray[np.int64], near: float
) -> Iterator[tuple[int, int]]:
    """Pairs whose magnitudes, as they are or mirrored, are near enough."""
    plain, mirrored = _magnitudes(images)
    squares = (plain.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    blocks = range(0, len(images), _BLOCK)
    for i, j in ((i, j) for i in blocks for j in blocks if j >= i):
        first, second = slice(i, i + _BLOCK), slice(j, j + _BLOCK)
        # |a - b|^2 <= c^2 is a . b >= (|a|^2 + |b|^2 - c^2) / 2.
        least = (squares[first, None] + squares[second] - np.float32(near**2)) / 2
        apart = series[first, None] != series[second]
        alike = (plain[first] @ plain[second].T >= least) & apart
        alike |= plain[first] @ mirrored[second].T >= least
        rows, columns = np.nonzero(alike)
        upper = rows + i < columns + j
        yield from zip(rows[upper] + i, columns[upper] + j, strict=True)


def _compare(
    images: NDArray[np.float32],
    pairs: NDArray[np.int64],
    series: NDArray[np.int64],
    near: float,
) -> Iterator[Copy]:
    """The copies among pairs of rows."""
    for start in range(0, len(pairs), _PAIRS):
        batch = pairs[start : start + _PAIRS]
        first, second = images[batch[:, 0]], images[batch[:, 1]]
        straight, mirrored = distances(first, second), distances(first, second[:, :, ::-1])
        within = series[batch[:, 0]] == series[batch[:, 1]]
        for (a, b), plain, turned, same in zip(
            batch.tolist(), straight.tolist(), mirrored.tolist(), within, strict=True
        ):
            # A symmetric slice is near its mirror image too: the better of both tells.
            flip = turned < plain / 2
            if (flip and turned <= near) or (plain <= near and not same):
                yield Copy(a, b, turned if flip else plain, mirrored=flip)


def distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of each pair at its best shift.

    Args:
        first: (N, S, S) counts.
        second: (N, S, S) counts.

    Returns:
        (N,) in [0, sqrt 2].
    """
    best = np.zeros(len(first))
    for down, right in itertools.product(range(-SHIFT, SHIFT + 1), repeat=2):
        here, there = _overlap(first, down, right), _overlap(second, -down, -right)
        product = np.einsum("nij,nij->n", here, there, dtype=np.float64)
        norms = [np.linalg.norm(part.astype(np.float64), axis=(1, 2)) for part in (here, there)]
        length = np.maximum(norms[0] * norms[1], 1e-12)
        best = np.maximum(best, product / length)
    return np.sqrt(np.clip(2 - 2 * best, 0, None))


def _overlap(images: NDArray[np.float32], down: int, right: int) -> NDArray[np.float32]:
    """The part of the pictures that a picture moved by these pixels covers."""
    size = images.shape[-1]
    return images[:, max(down, 0) : size + min(down, 0), max(right, 0) : size + min(right, 0)]
