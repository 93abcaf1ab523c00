"""The clinical endpoints of each slice: mean counts, left over right, depth and area of defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.counts import (
    left_over_right,
    masks,
    midlines,
    mirrored,
    symmetric_bodies,
)

THRESHOLD = 0.3
SENSITIVITY = (0.2, 0.3, 0.4)
"""Thresholds at which a finding is shown again: it should not hang on the mask."""
LOSS = 0.15
"""Relative loss from which on a pixel belongs to a defect."""
SEVERITY_PERCENTILE = 95.0
SMOOTH = 2.0
"""Width of the blur, pixels: with it normal phantom slices have an extent of about 0.11."""
_CHUNK = 512  # slices at a time: bounds memory


@dataclass(frozen=True)
class Endpoints:
    """What is measured of each slice; NaN for a blank slice.

    Attributes:
        mc: (N,) mean normalised counts inside the mask (Werner et al. 2022), in [0, 1].
        log_lr: (N,) log of the patient's left over right; 0 is symmetric.
        sd: (N,) standard deviation of the counts inside the mask, over pixels.
        severity: (N,) depth of the deepest loss below the mirrored side, in [0, 1]: the 95th
            percentile over the body of the relative loss, after a blur of two pixels.
        extent: (N,) share of the body that lies more than 15 % below its mirrored side.
        threshold: Of mask and body.
    """

    mc: NDArray[np.float64]
    log_lr: NDArray[np.float64]
    sd: NDArray[np.float64]
    severity: NDArray[np.float64]
    extent: NDArray[np.float64]
    threshold: float = THRESHOLD

    @property
    def abs_log_lr(self) -> NDArray[np.float64]:
        """(N,) size of the asymmetry: it does not cancel over left and right lesions."""
        return np.abs(self.log_lr)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Endpoints:
        """The endpoints of these slices (positions, or a mask)."""
        return Endpoints(
            self.mc[rows],
            self.log_lr[rows],
            self.sd[rows],
            self.severity[rows],
            self.extent[rows],
            self.threshold,
        )


@dataclass(frozen=True)
class Measured:
    """Slices as the statistics see them.

    Attributes:
        endpoints: Of each slice.
        cells: (N,) the cell of each, written ``COR/bilateral``.
        patients: (N,) whose slice it is; a synthetic slice is a patient of its own.
    """

    endpoints: Endpoints
    cells: NDArray[np.str_]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.cells)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Measured:
        """These slices (positions, or a mask)."""
        return Measured(self.endpoints.take(rows), self.cells[rows], self.patients[rows])


def measure_dataset(dataset: Dataset, threshold: float = THRESHOLD) -> Measured:
    """Measures the labelled slices of a data set."""
    rows = np.flatnonzero(dataset.labelled)
    return Measured(
        measure_endpoints(dataset.images[rows], threshold),
        np.asarray([str(dataset.cells[i]) for i in rows], np.str_),
        np.asarray(dataset.column("patient_id")[rows], np.str_),
    )


def measure_synthetic(
    images: NDArray[np.float32], cells: Sequence[str], threshold: float = THRESHOLD
) -> Measured:
    """Measures generated slices.

    Args:
        images: (M, S, S) float32 in [0, 1].
        cells: (M,) the cell of each.
        threshold: Of mask and body.

    Raises:
        DataError: images and cells differ in number.
    """
    if len(images) != len(cells):
        raise DataError(
            f"{len(images)} images and {len(cells)} cells", allowed="one cell for each image"
        )
    own = [f"synthetic {i}" for i in range(len(cells))]
    return Measured(
        measure_endpoints(images, threshold), np.asarray(cells, np.str_), np.asarray(own, np.str_)
    )


def measure_endpoints(images: NDArray[np.float32], threshold: float = THRESHOLD) -> Endpoints:
    """Measures slices.

    Args:
        images: (N, S, S) float32 in [0, 1], normalised counts.
        threshold: Share of each slice's maximum that mask and body lie above, in (0, 1).

    Raises:
        DataError: the images are not (N, S, S), or the threshold is out of range.
    """
    if not 0 < threshold < 1:
        raise DataError(f"the threshold is {threshold}", allowed="between 0 and 1")
    starts = range(0, max(len(images), 1), _CHUNK)
    parts = [_measure(images[start : start + _CHUNK], threshold) for start in starts]
    mc, log_lr, sd, severity, extent = np.concatenate(parts, axis=1)
    return Endpoints(mc, log_lr, sd, severity, extent, threshold)


def _measure(images: NDArray[np.float32], threshold: float) -> NDArray[np.float64]:
    """(5, N) in the order of ``Endpoints``."""
    mask = masks(images, threshold)
    area = mask.sum(axis=(1, 2))
    blank, full = area == 0, np.maximum(area, 1)
    mc = (images * mask).sum(axis=(1, 2), dtype=np.float64) / full
    apart = np.where(mask, images - mc[:, None, None], 0)
    sd = np.sqrt((apart**2).sum(axis=(1, 2)) / full)
    axis = midlines(images, threshold)
    body = symmetric_bodies(images, axis, threshold)
    log_lr = np.log(left_over_right(images, axis, body))
    smooth = ndimage.gaussian_filter(images, (0, SMOOTH, SMOOTH))
    other = mirrored(smooth, axis)
    # At the rim a part of a pixel makes a steep "loss": only what is bright opposite counts.
    bright = other > threshold * images.max(axis=(1, 2), initial=0.0, keepdims=True)
    severity, extent = _depth_and_area(smooth, other, (body > 0.5) & bright)
    return np.stack(
        [np.where(blank, np.nan, mc), log_lr, np.where(blank, np.nan, sd), severity, extent]
    )


def loss_below(
    images: NDArray[np.float32], expected: NDArray[np.float64], threshold: float = THRESHOLD
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depth and area of what lies below an expected slice, as the mean of normal ones.

    It shows the losses that are alike on both sides, which no mirrored side shows. Heads differ in
    shape, so normal slices have some too: compare distributions.

    Args:
        images: (N, S, S) float32 in [0, 1].
        expected: (S, S) in [0, 1], a mean image.
        threshold: Share of its maximum above which the expected slice counts.

    Returns:
        (N,) severity and (N,) extent, as ``Endpoints`` has them; NaN where nothing is expected.

    Raises:
        DataError: the expected slice has another size.
    """
    if images.shape[1:] != expected.shape:
        raise DataError(
            f"the expected slice has shape {expected.shape}", allowed=f"{images.shape[1:]}"
        )
    smooth = ndimage.gaussian_filter(images, (0, SMOOTH, SMOOTH))
    wanted = ndimage.gaussian_filter(expected.astype(np.float32), SMOOTH)[None]
    body = masks(wanted, threshold) & (wanted > threshold * wanted.max())
    shape = images.shape
    return _depth_and_area(smooth, np.broadcast_to(wanted, shape), np.broadcast_to(body, shape))


def _depth_and_area(
    images: NDArray[np.float32], expected: NDArray[np.float32], body: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95th percentile of the relative loss inside each body, and the share above 15 %."""
    loss = np.where(body, 1 - images / np.where(body, expected, 1), -np.inf)
    area = body.sum(axis=(1, 2))
    flat = loss.reshape(len(images), loss.shape[1] * loss.shape[2])
    ordered = -np.sort(-flat, axis=1)
    # The outside stands last: the percentile is a place counted from the front.
    place = np.floor((1 - SEVERITY_PERCENTILE / 100) * np.maximum(area - 1, 0)).astype(np.int64)
    deepest = np.take_along_axis(ordered, place[:, None], axis=1)[:, 0]
    share = (loss > LOSS).sum(axis=(1, 2)) / np.maximum(area, 1)
    blank = area == 0
    severity = np.clip(np.where(blank, 0, deepest), 0, 1).astype(np.float64)
    return np.where(blank, np.nan, severity), np.where(blank, np.nan, share)
