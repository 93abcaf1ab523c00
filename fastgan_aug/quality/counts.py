"""Mean counts, left/right ratio and pixel-wise SD: the endpoints of Werner et al. 2022, Figs. 4-5.

The paper defines neither mask nor midline. Here the mask is the filled, largest connected
component above a share of the maximum, so that infarcts and white matter stay inside; the midline
is the mask's geometric symmetry axis, because a lesion would move a count-weighted centroid to
the healthy side. Where a slice falls into several parts (the temporal poles beside the cerebellum),
the largest component may take in one side's part and not the other's: log LR then has a heavy tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import RADIOLOGICAL, DatasetMeta
from fastgan_aug.errors import DataError

# Connects pixels to their four neighbours within a slice (axes 1, 2), never to the next slice.
_IN_PLANE = np.zeros((3, 3, 3), np.bool_)
_IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


@dataclass(frozen=True)
class CountsRow:
    """One cell, real beside synthetic, equally many of each.

    Attributes:
        cell: The cell, written ``COR/bilateral``.
        n: Slices compared on each side.
        mc_real: Mean of the slices' mean counts, in [0, 1].
        mc_real_sd: Its standard deviation over slices.
        mc_synthetic: As ``mc_real``.
        mc_synthetic_sd: As ``mc_real_sd``.
        left_right_real: Mean of the right half of the picture over the left half: the patient's
            left over right where the laterality is radiological.
        left_right_synthetic: As ``left_right_real``.
        asymmetry_real: Mean of the absolute log of left_right; it does not cancel over left and
            right lesions, as the mean ratio does.
        asymmetry_synthetic: As ``asymmetry_real``.
        sd_map_real: Mean of the pixel-wise SD map inside the real slices' common mask.
        sd_map_synthetic: As ``sd_map_real``, inside the same mask.
    """

    cell: str
    n: int
    mc_real: float
    mc_real_sd: float
    mc_synthetic: float
    mc_synthetic_sd: float
    left_right_real: float
    left_right_synthetic: float
    asymmetry_real: float
    asymmetry_synthetic: float
    sd_map_real: float
    sd_map_synthetic: float


def masks(images: NDArray[np.float32], threshold: float = 0.3) -> NDArray[np.bool_]:
    """The object in each slice: the largest connected component above a threshold, holes filled.

    Args:
        images: (N, S, S) non-negative counts.
        threshold: Share of each slice's own maximum, in (0, 1).

    Returns:
        (N, S, S); all False where a slice is blank.

    Raises:
        DataError: the images are not (N, S, S).
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"the images have shape {images.shape}", allowed="(N, S, S)")
    if len(images) == 0:
        return np.zeros(images.shape, np.bool_)
    above = images > threshold * images.max(axis=(1, 2), keepdims=True)
    labels, found = ndimage.label(above, _IN_PLANE)
    sizes = np.bincount(labels.ravel(), minlength=found + 1)
    sizes[0] = 0
    largest = _largest_label(labels, sizes)
    body = (labels == largest[:, None, None]) & above
    return np.asarray(ndimage.binary_fill_holes(body, _IN_PLANE), np.bool_)


def _largest_label(labels: NDArray[np.int32], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the label of the largest component of each slice (0 where there is none)."""
    flat = labels.reshape(len(labels), -1)
    best = np.take_along_axis(flat, sizes[flat].argmax(axis=1)[:, None], axis=1)
    return np.asarray(best[:, 0], np.int64)


def symmetry_axes(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The column about which each mask overlaps its own mirror image the most.

    Mirroring about column a moves column c to 2a - c, so the overlap as a function of 2a is each
    row's convolution with itself, summed over the rows: half-pixel resolution.

    Args:
        mask: (N, S, S).

    Returns:
        (N,) column, 0 to S - 1; ties give their mean. The middle column for an empty mask.
    """
    size = mask.shape[-1]
    spectrum = np.fft.rfft(mask.astype(np.float64), 2 * size, axis=2)
    convolution = np.fft.irfft((spectrum**2).sum(axis=1), 2 * size, axis=1)[:, : 2 * size - 1]
    overlap = np.rint(convolution)
    best = overlap == overlap.max(axis=1, keepdims=True)
    twice = (best * np.arange(2 * size - 1)).sum(axis=1) / best.sum(axis=1)
    return np.asarray(twice / 2)


def mean_counts(images: NDArray[np.float32], threshold: float = 0.3) -> NDArray[np.float64]:
    """MC: mean of each slice's counts inside its mask.

    Args:
        images: (N, S, S) in [0, 1], normalised counts.
        threshold: Of the mask.

    Returns:
        (N,); NaN for a blank slice.
    """
    return _masked_mean(images, masks(images, threshold))


def _masked_mean(images: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    area = mask.sum(axis=(1, 2))
    return _ratio((images * mask).sum(axis=(1, 2), dtype=np.float64), area)


def left_right_ratio(images: NDArray[np.float32], threshold: float = 0.3) -> NDArray[np.float64]:
    """LR: counts on the patient's left over those on the right, inside the mask.

    Column 0 is the patient's right, so left is the half with the higher columns. The column that
    the axis cuts is shared between the halves.

    Args:
        images: (N, S, S) in [0, 1], normalised counts.
        threshold: Of the mask.

    Returns:
        (N,) positive; NaN for a blank slice or an empty half.
    """
    mask = masks(images, threshold)
    columns = (images * mask).sum(axis=1, dtype=np.float64)
    axis = symmetry_axes(mask)[:, None]
    right = np.clip(axis - (np.arange(images.shape[-1]) - 0.5), 0, 1)
    return _ratio((columns * (1 - right)).sum(axis=1), (columns * right).sum(axis=1))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient, NaN where either is zero."""
    good = (above > 0) & (below > 0)
    return np.where(good, above / np.where(good, below, 1), np.nan)


def laterality_note(meta: DatasetMeta) -> str:
    """What the left/right columns mean for this data set; write it beside them."""
    if meta.laterality == RADIOLOGICAL:
        return "left/right is the patient's left over right"
    return "laterality unverified: left/right is the picture's right half over its left half"


def counts_table(
    real: Dataset, synthetic_images: NDArray[np.float32], synthetic_cells: Sequence[str]
) -> list[CountsRow]:
    """Compares real and synthetic slices cell by cell, equally many of each.

    Where one side has more, the first ones of a fixed shuffle (real) or of the batch (synthetic)
    are taken. Cells with fewer than two slices on a side have no SD and are left out.

    Args:
        real: Its labelled rows are used.
        synthetic_images: (M, S, S) float32 in [0, 1].
        synthetic_cells: (M,) the cell of each.

    Returns:
        One row per compared cell, in the space's order.

    Raises:
        DataError: images and cells differ in number, or sizes differ.
        UnknownCell: a synthetic cell is none of the real data's.
    """
    size = real.meta.size
    if synthetic_images.shape != (len(synthetic_cells), size, size):
        raise DataError(
            f"the synthetic images have shape {synthetic_images.shape}",
            allowed=f"({len(synthetic_cells)}, {size}, {size}), one image per cell name",
        )
    for name in set(synthetic_cells):
        real.meta.space.parse(name)
    names = np.asarray(synthetic_cells)
    order = np.random.default_rng(0).permutation(len(real))
    rows = []
    for index, cell in enumerate(real.meta.space.cells):
        here = order[real.cell_index[order] == index]
        there = np.flatnonzero(names == str(cell))
        n = min(len(here), len(there))
        if n >= 2:
            rows.append(_row(str(cell), real.images[here[:n]], synthetic_images[there[:n]]))
    return rows


def _row(cell: str, real: NDArray[np.float32], synthetic: NDArray[np.float32]) -> CountsRow:
    mc, mc_s = mean_counts(real), mean_counts(synthetic)
    lr, lr_s = left_right_ratio(real), left_right_ratio(synthetic)
    common = masks(real.mean(axis=0)[None])[0]
    return CountsRow(
        cell=cell,
        n=len(real),
        mc_real=float(mc.mean()),
        mc_real_sd=float(mc.std(ddof=1)),
        mc_synthetic=float(mc_s.mean()),
        mc_synthetic_sd=float(mc_s.std(ddof=1)),
        left_right_real=float(lr.mean()),
        left_right_synthetic=float(lr_s.mean()),
        asymmetry_real=float(np.abs(np.log(lr)).mean()),
        asymmetry_synthetic=float(np.abs(np.log(lr_s)).mean()),
        sd_map_real=float(real.std(axis=0, ddof=1)[common].mean()),
        sd_map_synthetic=float(synthetic.std(axis=0, ddof=1)[common].mean()),
    )
