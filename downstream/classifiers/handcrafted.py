"""Features that nobody learnt: means of blocks, differences of the sides, spectrum, quantiles.

They assume that slices are square pictures and nothing of what they show: no mask, no organ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

BLOCKS = 8
"""Along each side."""
BANDS = 8
"""Of the radial spectrum, evenly on a logarithmic scale up to Nyquist."""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Of a slice's pixels."""
N_FEATURES = BLOCKS**2 + BLOCKS**2 // 2 + 2 * (BLOCKS // 2) ** 2 + BANDS + len(QUANTILES)
_LEAST = 1e-12  # power: below all noise
_CHUNK = 512  # slices measured at once


def handcrafted(images: NDArray[np.float32]) -> F64:
    """Describes slices by a fixed vector; nothing is fitted.

    Args:
        images: (N, S, S) in [0, 1], S of 16 or more.

    Returns:
        (N, ``N_FEATURES``) float64, finite: 64 means of 8 x 8 blocks; 32 absolute differences of
        such a mean from that of the mirrored block; SD and maximum of 4 x 4 blocks; 8 log powers;
        6 quantiles.
    """
    parts = [_described(images[i : i + _CHUNK]) for i in range(0, len(images), _CHUNK)]
    return np.concatenate(parts) if parts else np.empty((0, N_FEATURES))


def _described(images: NDArray[np.float32]) -> F64:
    pixels = images.astype(np.float64)
    fine = _over_blocks(np.add, pixels, BLOCKS) / _over_blocks(np.add, np.ones_like(pixels), BLOCKS)
    sides = np.abs(fine - fine[:, :, ::-1])[:, :, : BLOCKS // 2]
    coarse = BLOCKS // 2
    area = _over_blocks(np.add, np.ones_like(pixels), coarse)
    mean = _over_blocks(np.add, pixels, coarse) / area
    variance = _over_blocks(np.add, pixels**2, coarse) / area - mean**2
    columns = [
        fine,
        sides,
        np.sqrt(np.maximum(variance, 0)),
        _over_blocks(np.maximum, pixels, coarse),
        _radial_power(pixels),
        np.quantile(pixels.reshape(len(pixels), -1), QUANTILES, axis=1).T,
    ]
    return np.concatenate([c.reshape(len(pixels), -1) for c in columns], axis=1)


def _over_blocks(reduce: np.ufunc, pixels: F64, blocks: int) -> F64:
    """(N, S, S) to (N, blocks, blocks): sums or maxima; mirrored blocks are of mirrored pixels."""
    if pixels.shape[-1] % 2:  # the middle line is of both sides
        middle = pixels.shape[-1] // 2
        for axis in (1, 2):
            pixels = np.insert(pixels, middle, pixels.take(middle, axis), axis)
    size = pixels.shape[-1]
    half = np.linspace(0, size / 2, blocks // 2 + 1).astype(np.int64)[:-1]
    starts = np.concatenate([half, (size - half)[:0:-1], [size // 2]])
    starts = np.unique(starts)
    return np.asarray(reduce.reduceat(reduce.reduceat(pixels, starts, axis=1), starts, axis=2))


def _radial_power(pixels: F64) -> F64:
    """(N, S, S) to (N, BANDS) log of the mean power in rings of frequency."""
    size = pixels.shape[-1]
    power = np.abs(np.fft.rfft2(pixels)) ** 2 / size**4
    down, right = np.fft.fftfreq(size), np.fft.rfftfreq(size)
    radius = np.hypot(down[:, None], right[None, :]).ravel()
    edges = np.geomspace(0.5 / size, 0.5, BANDS + 1)
    ring = np.digitize(radius, edges[1:-1])
    inside = (radius >= edges[0]) & (radius <= edges[-1])
    member = (ring[:, None] == np.arange(BANDS)) & inside[:, None]
    mean = power.reshape(len(pixels), -1) @ (member / np.maximum(member.sum(axis=0), 1))
    return np.asarray(np.log(mean + _LEAST))
