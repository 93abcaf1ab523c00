"""Radial power: how much of a slice's contrast lies at each spatial frequency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError


def radial_power(
    images: NDArray[np.float32], pixel_mm: float, frequencies: Sequence[float]
) -> NDArray[np.float64]:
    """Power at spatial frequencies, relative to that of frequency zero, mean over directions.

    With F the discrete Fourier transform of a slice and f in cycles/mm,
    ``P(f) = mean of |F(k)|^2 over the annulus | |k| - f | <= 1 / (2 S pixel_mm)``, divided by
    ``|F(0)|^2``: the annulus is one bin of the spectrum wide. It has no unit, does not change with
    the slice's scale or place, and is 1 at f = 0.

    Args:
        images: (N, S, S) non-negative counts.
        pixel_mm: Pixel edge in mm; with 1, frequencies are in cycles/pixel.
        frequencies: Cycles/mm, 0 up to the Nyquist frequency ``1 / (2 pixel_mm)``.

    Returns:
        (N, F) float64; NaN for a blank slice and for frequencies beyond Nyquist.

    Raises:
        DataError: the images are not (N, S, S), the pixel edge is not positive, or a frequency is
            negative.
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"the images have shape {images.shape}", allowed="(N, S, S)")
    wanted = np.asarray(frequencies, np.float64)
    if not np.isfinite(pixel_mm) or pixel_mm <= 0 or (wanted < 0).any():
        raise DataError(
            f"the pixel is {pixel_mm} mm, the frequencies are {wanted.tolist()} cycles/mm",
            allowed="a positive pixel edge and frequencies of 0 or more",
        )
    weights = _annuli(images.shape[-1], pixel_mm, wanted)
    power = np.abs(np.fft.rfft2(images.astype(np.float64))) ** 2
    flat = power.reshape(len(images), weights.shape[1])
    total = np.where(flat[:, :1] > 0, flat[:, :1], np.nan)
    beyond = np.where(wanted * 2 * pixel_mm > 1 + 1e-9, np.nan, 1.0)
    return np.asarray(flat @ weights.T / total * beyond)


def _annuli(size: int, pixel_mm: float, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, S * (S // 2 + 1)) weights of each frequency's annulus, each summing to one.

    The half spectrum of a real image holds one of each conjugate pair: columns in between count
    twice, the first and (for an even size) the last once.
    """
    rows = np.fft.fftfreq(size, pixel_mm)[:, None]
    columns = np.fft.rfftfreq(size, pixel_mm)[None]
    radius = np.hypot(rows, columns)
    twice = np.full(radius.shape[1], 2.0)
    twice[0] = 1
    if size % 2 == 0:
        twice[-1] = 1
    half = (0.5 + 1e-9) / (size * pixel_mm)  # a hair wider: ties must not hang on rounding
    inside = np.abs(radius[None] - frequencies[:, None, None]) <= half
    weights = (inside * twice).reshape(len(frequencies), -1)
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1))
