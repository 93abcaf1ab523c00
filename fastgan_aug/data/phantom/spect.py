"""The physics of measuring a brain SPECT slice; `osem` reconstructs what it gives.

Attenuation on the way out of the head, collimator and detector blur that grows with the distance
to the detector, scatter and septal penetration, Poisson counts. The geometry is one dense matrix,
computed once: a slice costs a product of 2,600 pixels by 5,760 bins, and slices go together.

Left out: bone (the head is uniform water), detector response within the energy window, movement,
decay during the scan. The blur across slices is taken at its mean depth: the axis of rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FWHM_TO_SD = 1 / 2.3548
FIELD_MM = 115.0  # radius that is reconstructed; no head reaches beyond
LARGEST = 1e9  # of any setting: beyond it Poisson counts and lengths overflow
HEAD_MM = 105.0  # from the middle to the front or the back of a large head, scalp included
Images = NDArray[np.float32]

MATCHED, CHANG, NO_CORRECTION = "matched", "chang", "none"
MODEL, SUBTRACT = "model", "subtract"
BUTTERWORTH, GAUSSIAN = "butterworth", "gaussian"
_ALLOWED = {
    "attenuation_correction": (MATCHED, CHANG, NO_CORRECTION),
    "scatter_correction": (MODEL, SUBTRACT, NO_CORRECTION),
    "filter": (BUTTERWORTH, GAUSSIAN),
}


@dataclass(frozen=True)
class Scanner:
    """A protocol: how slices are measured and reconstructed.

    The defaults are the scanner of Werner et al. 2022 (Siemens Symbia with a low-energy
    high-resolution collimator, 90 views, 64 x 64, attenuation and scatter corrected) with 159 keV
    of iodine-123; what the paper leaves open has plausible values.

    Attributes:
        pixel_mm: Pixel edge of slices and detector bins, mm.
        plane_mm: Distance between slices, mm.
        views: Directions over the full circle.
        radius_mm: From the axis of rotation to the detector.
        collimator_mm: Blur at the detector's face, mm FWHM.
        collimator_slope: Growth of the blur per mm of distance; 2.8 + 0.044 d gives 7.2, 8.5 and
            9.4 mm at 10, 13 and 15 cm, as measured for low-energy high-resolution collimators.
        slice_counts: Fewest and most counts of a slice of healthy tissue; log-uniform over scans.
        attenuation_per_cm: Linear attenuation of water; 0.148 at 159 keV (NIST).
        scatter: Least and most scatter and septal penetration, as a share of unscattered counts.
        iterations: Of OSEM.
        subsets: Of the views; divides them.
        attenuation_correction: ``matched`` in the reconstruction, ``chang`` after it, or ``none``.
        corrected_per_cm: Attenuation that the correction assumes.
        scatter_correction: ``model``: the reconstruction adds the estimate to what it expects;
            ``subtract``: it is taken off the projections; or ``none``.
        scatter_error: Relative standard deviation of that estimate over scans.
        resolution_recovery: Whether the reconstruction knows the blur.
        filter: ``butterworth`` or ``gaussian``, within each slice, after the reconstruction.
        cutoff_per_cm: Of Butterworth, cycles/cm: where the amplitude is 1/sqrt(2).
        order: Of Butterworth.
        filter_mm: Of the Gaussian, mm FWHM.
        mixed_across: Share of each adjacent slice that the filter mixes in, 0 to 1/3.
        tilt_deg: Largest rotation of a head about each axis that reorientation left, degrees.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    pixel_mm: float = 4.0
    plane_mm: float = 5.0
    views: int = 90
    radius_mm: float = 130.0
    collimator_mm: float = 2.8
    collimator_slope: float = 0.044
    slice_counts: tuple[float, float] = (20_000.0, 120_000.0)
    attenuation_per_cm: float = 0.148
    scatter: tuple[float, float] = (0.10, 0.20)
    iterations: int = 4
    subsets: int = 10
    attenuation_correction: str = MATCHED
    corrected_per_cm: float = 0.148
    scatter_correction: str = MODEL
    scatter_error: float = 0.15
    resolution_recovery: bool = True
    filter: str = BUTTERWORTH
    cutoff_per_cm: float = 0.42
    order: int = 2
    filter_mm: float = 8.0
    mixed_across: float = 0.24
    tilt_deg: float = 3.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            values = value if isinstance(value, tuple) else (value,)
            large = [v for v in values if not isinstance(v, str) and not abs(v) <= LARGEST]
            require(not large, f"{name} is {value}", f"numbers up to {LARGEST:g}")
        for name in ("pixel_mm", "plane_mm", "views", "radius_mm", "collimator_mm", "iterations",
                     "subsets", "cutoff_per_cm", "order", "filter_mm"):  # fmt: skip
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}", "above 0")
        for name in ("collimator_slope", "attenuation_per_cm", "corrected_per_cm", "scatter_error"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "0 or more")
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            require(value in allowed, f"{name} is {value!r}", ", ".join(allowed))
        require(self.views <= 720, f"views is {self.views}", "up to 720")
        require(self.radius_mm > FIELD_MM, f"radius_mm is {self.radius_mm}",
                f"above {FIELD_MM:g}: the detector goes round the head")  # fmt: skip
        require(self.views % self.subsets == 0, f"subsets is {self.subsets}",
                f"a divisor of views ({self.views})")  # fmt: skip
        low, high = self.slice_counts
        require(0 < low <= high, f"slice_counts is {self.slice_counts}", "two ascending values")
        low, high = self.scatter
        require(0 <= low <= high < 1, f"scatter is {self.scatter}", "two ascending values below 1")
        require(0 <= self.mixed_across <= 1 / 3, f"mixed_across is {self.mixed_across}",
                "0 to 1/3")  # fmt: skip
        require(0 <= self.tilt_deg <= 20, f"tilt_deg is {self.tilt_deg}", "0 to 20 degrees")

    def blur_mm(self, distance_mm: float) -> float:
        """FWHM in mm of collimator and detector at this distance from the detector."""
        return self.collimator_mm + self.collimator_slope * distance_mm


def require(holds: bool, what: str, allowed: str) -> None:
    """Raises ValueError with both texts unless it holds."""
    if not holds:
        raise ValueError(f"{what}; allowed: {allowed}")


@dataclass(frozen=True)
class Ellipses:
    """The outline of the head in each of B slices, in pixels from the picture's middle.

    Attributes:
        centre: (B, 2) column and row.
        axes: (B, 2) half axes along columns and rows.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def around(cls, masks: NDArray[np.bool_], margin: float) -> Ellipses:
        """Ellipses with the masks' second moments, widened by skull and scalp.

        Args:
            masks: (B, S, S) brains; an empty one gives a point.
            margin: Pixels.
        """
        size = masks.shape[-1]
        line = np.arange(size) - (size - 1) / 2
        area = np.maximum(masks.sum((1, 2)), 1)[:, None]
        sums = np.stack((masks.sum(1), masks.sum(2)), 1).astype(np.float64)  # (B, 2, S)
        centre = (sums @ line) / area
        variance = (sums @ line**2) / area - centre**2
        # A filled ellipse has variance a^2 / 4 along its axis.
        return cls(centre, 2 * np.sqrt(np.maximum(variance, 0)) + margin)


def system_matrix(scanner: Scanner, size: int, *, blurred: bool) -> NDArray[np.float32]:
    """Chance that a photon from a pixel, sent towards a view, is counted in a bin.

    A Gaussian of the collimator's width at the pixel's distance, integrated over each bin; without
    blur, the pixel's own width. It sums to 1 over the bins wherever none is missed.

    Args:
        scanner: Geometry.
        size: Pixels a side, and bins a view.
        blurred: Whether with the collimator's blur.

    Returns:
        (views, pixels, bins) float32; the pixels are those of ``inside``.
    """
    from scipy.special import ndtr

    x, y = _positions(size, scanner.pixel_mm)
    edges = (np.arange(size + 1) - size / 2) * scanner.pixel_mm
    own = scanner.pixel_mm**2 / 12  # a pixel is no point
    matrix = np.empty((scanner.views, len(x), size), np.float32)
    for view, angle in enumerate(_angles(scanner.views)):
        across = x * np.cos(angle) + y * np.sin(angle)
        distance = scanner.radius_mm - (y * np.cos(angle) - x * np.sin(angle))
        blur = (scanner.collimator_mm + scanner.collimator_slope * np.maximum(distance, 0)) ** 2
        sd = np.sqrt(own + blur * FWHM_TO_SD**2 * blurred)
        below = ndtr((edges[None, :] - across[:, None]) / sd[:, None])
        chance = np.diff(below, axis=1)
        # Denormal numbers would make each product ten times slower.
        matrix[view] = np.where(chance > 1e-7, chance, 0)
    return matrix


def inside(size: int, pixel_mm: float) -> NDArray[np.bool_]:
    """(S, S) the pixels that are measured and reconstructed: a circle that every view sees."""
    line = (np.arange(size) - (size - 1) / 2) * pixel_mm
    radius = min(size * pixel_mm / 2, FIELD_MM)
    return np.asarray(np.hypot(line[:, None], line[None, :]) <= radius)


def _angles(views: int) -> NDArray[np.float64]:
    return 2 * np.pi * np.arange(views) / views


def _positions(size: int, pixel_mm: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row of each pixel of ``inside``, mm from the middle."""
    rows, columns = np.nonzero(inside(size, pixel_mm))
    middle = (size - 1) / 2
    x, y = np.asarray((columns, rows), np.float64)
    return (x - middle) * pixel_mm, (y - middle) * pixel_mm


@lru_cache(maxsize=4)
def cached_matrix(scanner: Scanner, size: int, blurred: bool) -> NDArray[np.float32]:
    """``system_matrix``, kept: 60 MB at 64 pixels of 4 mm and 90 views."""
    return system_matrix(scanner, size, blurred=blurred)


def transmission(
    scanner: Scanner, size: int, heads: Ellipses, per_cm: float
) -> NDArray[np.float32]:
    """Share of photons of each pixel that leave the head towards each view.

    Args:
        scanner: Geometry.
        size: Pixels a side.
        heads: Outlines of B uniform heads.
        per_cm: Linear attenuation.

    Returns:
        (views, B, pixels) float32 in (0, 1].
    """
    x, y = ((v / scanner.pixel_mm).astype(np.float32) for v in _positions(size, scanner.pixel_mm))
    angles = _angles(scanner.views).astype(np.float32)
    # The ray leaves pixel (x, y) along (-sin, cos) and ends where it meets the ellipse: with the
    # half axes as units, where (u + t du)^2 + (v + t dv)^2 = 1.
    a, b = (np.maximum(heads.axes[:, i, None], 1e-3).astype(np.float32) for i in (0, 1))
    u = (x[None] - heads.centre[:, :1].astype(np.float32)) / a
    v = (y[None] - heads.centre[:, 1:].astype(np.float32)) / b
    rest = 1 - u * u - v * v
    outside = rest <= 0
    rest[outside] = 0
    kept = np.empty((scanner.views, len(a), len(x)), np.float32)
    half, root = np.empty_like(u), np.empty_like(u)
    rate = np.float32(-per_cm / 10 * scanner.pixel_mm)
    for view, angle in enumerate(angles):
        du, dv = -np.sin(angle) / a, np.cos(angle) / b
        squared = du * du + dv * dv
        np.multiply(u, du, out=half)
        half += np.multiply(v, dv, out=root)
        np.multiply(half, half, out=root)
        root += squared * rest
        np.sqrt(root, out=root)
        root -= half
        root *= rate / squared
        root[outside] = 0
        np.exp(root, out=kept[view])
    return kept


def project(
    matrix: NDArray[np.float32], kept: NDArray[np.float32], pixels: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Counts expected in each bin.

    Args:
        matrix: (V, P, S) of ``system_matrix``.
        kept: (V, B, P) of ``transmission``.
        pixels: (B, P) emitted counts.

    Returns:
        (V, B, S).
    """
    bins = np.empty((len(matrix), len(pixels), matrix.shape[2]), np.float32)
    left = np.empty_like(pixels)
    # View by view, in place: what is worked on stays in the cache.
    for view, chances in enumerate(matrix):
        np.multiply(kept[view], pixels, out=left)
        np.matmul(left, chances, out=bins[view])
    bins *= np.float32(1 / len(matrix))
    return bins


def back_project(
    matrix: NDArray[np.float32], kept: NDArray[np.float32], bins: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The transpose of ``project``: (V, B, S) to (B, P)."""
    total = np.zeros((bins.shape[1], matrix.shape[1]), np.float32)
    back = np.empty_like(total)
    for view, chances in enumerate(matrix):
        np.matmul(bins[view], chances.T, out=back)
        back *= kept[view]
        total += back
    total *= np.float32(1 / len(matrix))
    return total


@dataclass(frozen=True)
class Acquisition:
    """What a scan of B slices measured.

    Attributes:
        counts: (V, B, S) Poisson counts.
        expected: (V, B, S) their means, scatter included.
        scatter: (V, B, S) the estimate of scatter that a correction may use.
        heads: True outlines.
    """

    counts: NDArray[np.float32]
    expected: NDArray[np.float32]
    scatter: NDArray[np.float32]
    heads: Ellipses


def acquire(
    scanner: Scanner,
    emitted: Images,
    heads: Ellipses,
    scan: NDArray[np.int64],
    counts: NDArray[np.float64],
    scatter: NDArray[np.float64],
    randoms: Sequence[np.random.Generator],
) -> Acquisition:
    """Measures the slices of some scans.

    Args:
        scanner: Protocol.
        emitted: (B, S, S) activity, already blurred across slices; in each scan a slice of healthy
            tissue sums to about 1.
        heads: Their outlines.
        scan: (B,) which of the N scans each slice is of.
        counts: (N,) expected counts, scatter included, of a slice that sums to 1.
        scatter: (N,) scatter and penetration against unscattered counts.
        randoms: N streams: what one scan draws does not depend on the others.
    """
    size = emitted.shape[-1]
    matrix = cached_matrix(scanner, size, True)
    kept = transmission(scanner, size, heads, scanner.attenuation_per_cm)
    primary = project(matrix, kept, emitted[:, inside(size, scanner.pixel_mm)])
    # Dose and time are such that the counts come after attenuation, in the mean of the scan.
    arrived = np.bincount(scan, primary.sum((0, 2)), len(counts))
    sent = np.bincount(scan, emitted.sum((1, 2)), len(counts))
    gain = counts / (1 + scatter) * sent / np.maximum(arrived, 1e-12)
    primary *= gain[scan, None].astype(np.float32)
    stray = _stray(primary, scanner.pixel_mm) * scatter[scan, None].astype(np.float32)
    expected = primary + stray
    measured = [randoms[s].poisson(expected[:, i]) for i, s in enumerate(scan)]
    error = [max(random.normal(1, scanner.scatter_error), 0.0) for random in randoms]
    estimate = stray * np.asarray(error, np.float32)[scan, None]
    return Acquisition(np.stack(measured, 1).astype(np.float32), expected, estimate, heads)


def _stray(primary: NDArray[np.float32], pixel_mm: float) -> NDArray[np.float32]:
    """Where scattered and penetrating photons land, as many as ``primary``.

    Two thirds are Compton scatter, 80 mm wide (convolution subtraction's broad kernel, Axelsson
    et al. 1984); a third penetrates the septa (iodine-123's 529 keV) and is nearly uniform.
    """
    from scipy.ndimage import gaussian_filter1d

    broad = gaussian_filter1d(primary, 80 * FWHM_TO_SD / pixel_mm, axis=2, mode="constant")
    broad *= primary.sum(2, keepdims=True) / np.maximum(broad.sum(2, keepdims=True), 1e-12)
    flat = np.broadcast_to(primary.mean((0, 2), keepdims=True), primary.shape)
    return np.asarray((2 * broad + flat) / 3, np.float32)
