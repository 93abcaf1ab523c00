"""Radial power: how much of a slice's contrast, or of a cell's diversity, lies at each scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError

BANDS = (0.0, 0.04, 0.08, 0.16, 0.32, 0.5)
"""Edges of the dispersion spectrum's bands, cycles/pixel: size and brightness, lobes, gyri, what
is finer, noise."""


@dataclass(frozen=True)
class Dispersion:
    """At which scale synthetic slices of a cell differ less, or more, than real ones.

    Attributes:
        bands: Edges in cycles/pixel; a band holds its upper edge, the first one frequency 0 too.
        synthetic: Mean power of the deviations from the mean image in each band, per pixel; the
            bands sum to the mean of the pixel-wise variance map.
        real: As ``synthetic``.
    """

    bands: tuple[float, ...]
    synthetic: tuple[float, ...]
    real: tuple[float, ...]

    @property
    def ratio(self) -> tuple[float, ...]:
        """Synthetic over real, 1 is right; NaN where real slices do not differ."""
        pairs = zip(self.synthetic, self.real, strict=True)
        return tuple(s / r if r > 0 else np.nan for s, r in pairs)


def dispersion_spectrum(
    synthetic: NDArray[np.float32],
    real: NDArray[np.float32],
    bands: Sequence[float] = BANDS,
) -> Dispersion:
    """Radial power of the deviations from the mean image of one cell.

    Each side deviates from its own mean image (divisor n - 1), so that a shifted mean is not taken
    for diversity.

    Args:
        synthetic: (M, S, S) slices of one cell, 2 or more for a figure.
        real: (N, S, S) of the same cell.
        bands: Ascending edges in cycles/pixel. Frequencies beyond the last one (the corners of
            the spectrum) belong to the last band.

    Raises:
        DataError: the images are not (N, S, S) of one size.
    """
    if synthetic.ndim != 3 or synthetic.shape[1:] != real.shape[1:]:
        raise DataError(
            f"the slices have shapes {synthetic.shape} and {real.shape}",
            allowed="(M, S, S) and (N, S, S)",
        )
    one, other = (_dispersion(images, bands) for images in (synthetic, real))
    return Dispersion(tuple(bands), one, other)


def _dispersion(images: NDArray[np.float32], bands: Sequence[float]) -> tuple[float, ...]:
    """Variance in each band; NaN for fewer than two slices."""
    count, size = len(images) - 1, images.shape[-1]
    if count < 1:
        return (float("nan"),) * (len(bands) - 1)
    mean = images.mean(axis=0, dtype=np.float64)
    power = np.zeros((size, size // 2 + 1))
    for start in range(0, len(images), 256):  # bounds memory
        power += (np.abs(np.fft.rfft2(images[start : start + 256] - mean)) ** 2).sum(axis=0)
    radius = _radius(size, 1.0)
    band = np.clip(np.searchsorted(bands, radius, side="left") - 1, 0, len(bands) - 2)
    sums = np.bincount(band.ravel(), (power * _twice(size)).ravel(), minlength=len(bands) - 1)
    return tuple((sums / (count * size**4)).tolist())


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
    """(F, S * (S // 2 + 1)) weights of each frequency's annulus, each summing to one."""
    radius = _radius(size, pixel_mm)
    half = (0.5 + 1e-9) / (size * pixel_mm)  # a hair wider: ties must not hang on rounding
    inside = np.abs(radius[None] - frequencies[:, None, None]) <= half
    weights = (inside * _twice(size)).reshape(len(frequencies), -1)
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1))


def _radius(size: int, pixel_mm: float) -> NDArray[np.float64]:
    """(S, S // 2 + 1) spatial frequency of each bin of the half spectrum."""
    rows, columns = np.fft.fftfreq(size, pixel_mm)[:, None], np.fft.rfftfreq(size, pixel_mm)[None]
    return np.asarray(np.hypot(rows, columns), np.float64)


def _twice(size: int) -> NDArray[np.float64]:
    """(S // 2 + 1) how many bins of the whole spectrum each column of the half one stands for.

    The half spectrum of a real image holds one of each conjugate pair: columns in between count
    twice, the first and (for an even size) the last once.
    """
    twice = np.full(size // 2 + 1, 2.0)
    twice[0] = 1
    if size % 2 == 0:
        twice[-1] = 1
    return twice
