"""Reconstruction of measured slices: OSEM with what the protocol corrects, then its filter.

Hudson and Larkin 1994: expectation maximisation over one subset of the views after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.phantom.spect import (
    BUTTERWORTH,
    CHANG,
    FWHM_TO_SD,
    MATCHED,
    NO_CORRECTION,
    SUBTRACT,
    Acquisition,
    Ellipses,
    Images,
    Scanner,
    back_project,
    cached_matrix,
    inside,
    project,
    transmission,
)


def reconstruct(
    scanner: Scanner, taken: Acquisition, outline: float | NDArray[np.float64] = 1.0
) -> Images:
    """OSEM, without the post-filter.

    Args:
        scanner: Protocol: what it corrects, iterations, subsets.
        taken: The measurement.
        outline: Size that the correction takes the head for, a number or (B, 1): 1.03 is 3 % too
            large.

    Returns:
        (B, S, S) non-negative, in emitted counts a pixel; 0 outside ``inside``.
    """
    size = taken.counts.shape[-1]
    matrix = cached_matrix(scanner, size, scanner.resolution_recovery)
    heads = Ellipses(taken.heads.centre, taken.heads.axes * outline)
    kept = transmission(scanner, size, heads, scanner.corrected_per_cm)
    matched = scanner.attenuation_correction == MATCHED
    weights = kept if matched else np.ones((scanner.views, 1, 1), np.float32)
    counts, stray = taken.counts, taken.scatter
    if scanner.scatter_correction == SUBTRACT:
        counts, stray = np.maximum(counts - stray, 0), np.zeros_like(stray)
    elif scanner.scatter_correction == NO_CORRECTION:
        stray = np.zeros_like(stray)
    pixels = _osem(scanner, matrix, weights, counts, stray)
    if scanner.attenuation_correction == CHANG:
        pixels /= kept.mean(0)
    images = np.zeros((counts.shape[1], size, size), np.float32)
    images[:, inside(size, scanner.pixel_mm)] = pixels
    return images


def _osem(
    scanner: Scanner,
    matrix: NDArray[np.float32],
    kept: NDArray[np.float32],
    counts: NDArray[np.float32],
    stray: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(B, P) emitted counts after ``iterations`` passes over all subsets."""
    step = scanner.subsets
    parts = [slice(first, None, step) for first in _spread(step)]
    ones = np.ones((len(matrix) // step, *counts.shape[1:]), np.float32)
    seen = [np.maximum(back_project(matrix[p], kept[p], ones), 1e-6) for p in parts]
    total = counts.sum((0, 2))[:, None] / matrix.shape[1]
    pixels = np.repeat(total, matrix.shape[1], 1).astype(np.float32)
    share = np.float32(1 / step)
    for _ in range(scanner.iterations):
        for part, normal in zip(parts, seen, strict=True):
            expected = project(matrix[part], kept[part], pixels) * share + stray[part]
            ratio = counts[part] / np.maximum(expected, 1e-6)
            pixels *= back_project(matrix[part], kept[part], ratio) / normal
            np.maximum(pixels, 1e-9, out=pixels)  # no denormal numbers: they are slow
    return pixels


def _spread(subsets: int) -> Sequence[int]:
    """The order of the subsets: each as far from those before it as can be."""
    step = max(1, round(subsets * 0.382))
    while np.gcd(step, subsets) != 1:
        step += 1
    return [(i * step) % subsets for i in range(subsets)]


def post_filter(scanner: Scanner, images: Images) -> Images:
    """The protocol's filter within each slice; negative overshoot is cut off.

    Args:
        scanner: Protocol.
        images: (B, S, S).

    Returns:
        (B, S, S) non-negative.
    """
    size = images.shape[-1]
    # Twice the size: what leaves on one side must not come back on the other.
    rows = np.fft.fftfreq(2 * size, scanner.pixel_mm / 10)
    columns = np.fft.rfftfreq(2 * size, scanner.pixel_mm / 10)
    gain = _gain(scanner, np.hypot(rows[:, None], columns[None, :])).astype(np.float32)
    spectrum = np.fft.rfft2(images, (2 * size, 2 * size)) * gain
    smooth = np.fft.irfft2(spectrum, (2 * size, 2 * size))[:, :size, :size]
    return np.asarray(np.maximum(smooth, 0), np.float32)


def mix_across(scanner: Scanner, images: Images) -> Images:
    """The post-filter across slices: each takes a share of the two beside it.

    Args:
        scanner: Protocol.
        images: (Z, S, S) adjacent slices.

    Returns:
        (Z - 2, S, S) without the first and the last.
    """
    share = np.float32(scanner.mixed_across)
    return (1 - 2 * share) * images[1:-1] + share * (images[:-2] + images[2:])


def _gain(scanner: Scanner, per_cm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Amplitude that the filter leaves at these frequencies, cycles/cm."""
    if scanner.filter == BUTTERWORTH:
        return np.asarray(1 / np.sqrt(1 + (per_cm / scanner.cutoff_per_cm) ** (2 * scanner.order)))
    sd = scanner.filter_mm / 10 * FWHM_TO_SD
    return np.asarray(np.exp(-2 * (np.pi * sd * per_cm) ** 2))
