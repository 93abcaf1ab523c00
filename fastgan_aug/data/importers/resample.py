"""Resampling to the target matrix: counts and aspect are kept.

Each new pixel is the mean of the source over the new pixel's own area, so values keep their scale
(counts per source pixel) and the sum over the picture times the pixel's area is what it was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import UnreadableImage

# More than this share of a slice's counts outside the new field: the head is cut, not its margin.
CUT_SHARE = 0.005
# OSEM and interpolation leave tiny negative values; what is larger is no image of counts.
NEGATIVE_SHARE = 1e-3


def area_mean(image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Resamples a square image so that each new pixel is the mean over its own area.

    Args:
        image: (N, N).
        size: Rows and columns wanted; equal to N, the image is returned as it is.

    Returns:
        (size, size), with the mean of ``image``.
    """
    return fit_field(image, (1.0, 1.0), size, len(image) / size)


def square_pixel(shape: tuple[int, int], spacing: tuple[float, float], size: int) -> float:
    """Edge of a new pixel, in the unit of ``spacing``, that shows the whole of the source.

    Args:
        shape: Rows and columns of the source.
        spacing: Distance between its rows and between its columns.
        size: Rows and columns wanted.
    """
    return max(shape[0] * spacing[0], shape[1] * spacing[1]) / size


def fit_field(
    image: NDArray[np.float64], spacing: tuple[float, float], size: int, pixel: float
) -> NDArray[np.float64]:
    """Resamples to square pixels about the same centre; what lies beyond the source is zero.

    Args:
        image: (R, C).
        spacing: Distance between rows and between columns.
        size: Rows and columns wanted.
        pixel: Edge of a new pixel, in the unit of ``spacing``.

    Returns:
        (size, size): area means. An image that fits already is returned as it is.
    """
    rows = _weights(image.shape[0], pixel / spacing[0], size)
    columns = _weights(image.shape[1], pixel / spacing[1], size)
    if _is_identity(rows) and _is_identity(columns):
        return image
    return np.asarray(rows @ image @ columns.T)


def cut_share(
    image: NDArray[np.float64],
    resampled: NDArray[np.float64],
    spacing: tuple[float, float],
    pixel: float,
) -> float:
    """The share of the source's counts that the new field leaves out, 0 to 1."""
    before = float(image.sum()) * spacing[0] * spacing[1]
    after = float(resampled.sum()) * pixel**2
    return max(0.0, 1 - after / before) if before > 0 else 0.0


def normalise(counts: NDArray[np.float64]) -> tuple[NDArray[np.float32], float, bool]:
    """Divides a slice by its maximum.

    Args:
        counts: (S, S).

    Returns:
        (S, S) float32 in [0, 1]; the maximum; whether tiny negative values were set to zero.

    Raises:
        UnreadableImage: values that are not finite, negative or all the same.
    """
    if not np.isfinite(counts).all():
        raise _no_counts("it holds values that are not finite")
    low, high = float(counts.min()), float(counts.max())
    if low == high:
        raise _no_counts(f"all its pixels are {high:g}")
    if low < -NEGATIVE_SHARE * high:
        raise _no_counts("it holds negative values")
    image = (np.clip(counts, 0, None) / high).astype(np.float32)
    return np.minimum(image, np.float32(1)), high, low < 0


def remarks(clipped: bool, cut: float) -> list[str]:
    """What to tell of a slice of which ``cut`` (0 to 1) of the counts were left out."""
    said = ["tiny negative values were set to zero"] if clipped else []
    if cut > CUT_SHARE:
        said.append(f"the new field cuts it: {cut:.1%} of its counts lie outside")
    return said


def _no_counts(why: str) -> UnreadableImage:
    return UnreadableImage(
        why,
        allowed="counts: finite, not negative, not all the same",
        do="export the slice again, or leave it out",
    )


def _weights(source: int, step: float, size: int) -> NDArray[np.float64]:
    """(size, source): the share of each source pixel in the mean of each new one."""
    edges = source / 2 + (np.arange(size + 1) - size / 2) * step
    # Spacings are decimal fractions: without this a fitting image would be smeared by 1e-16.
    near = np.round(edges)
    edges = np.where(np.abs(edges - near) < 1e-6, near, edges)
    index = np.arange(source)
    low = np.maximum(edges[:-1, None], index)
    high = np.minimum(edges[1:, None], index + 1)
    return np.asarray(np.clip(high - low, 0, None) / np.diff(edges)[:, None])


def _is_identity(weights: NDArray[np.float64]) -> bool:
    return weights.shape[0] == weights.shape[1] and np.array_equal(weights, np.eye(len(weights)))
