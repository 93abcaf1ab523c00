"""What a slice shows of its tissue: the rim's counts over the core's, and how wide the object is.

Both rest on the mask of ``fastgan_aug.quality.clinical.counts`` and know nothing of an organ: grey
over white is the name for a brain, where grey matter is the bright rim and white matter the core.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fastgan_aug.quality.clinical.counts import masks

# Of the pixels of the mask: bright tissue, but not the one hottest spot.
GREY_PERCENTILE = 90.0
# The core lies deeper than this share of the mask's greatest depth: about a third of a disc's
# radius from its middle to half-way out, so the cortex of a brain is out of it.
CORE_DEPTH = 0.5
# Of the core's pixels: white matter is the darker part of it (deep grey matter is brighter).
# Wide ventricles reach below it, so slices through them have high and scattered ratios; compare
# by medians. On 34 real normal slices above the ventricles the median is 2.4.
WHITE_PERCENTILE = 10.0


def grey_over_white(images: NDArray[np.float32], threshold: float = 0.3) -> NDArray[np.float64]:
    """Counts of bright tissue over those of the core.

    ``p90 of the mask's pixels / p10 of the pixels deeper in the mask than half its greatest
    depth``; the depth of a pixel is its distance to the outside of the mask.

    Args:
        images: (N, S, S) non-negative counts.
        threshold: Of the mask, a share of each slice's maximum.

    Returns:
        (N,) without unit; NaN for a blank slice and where the core has no counts.

    Raises:
        DataError: the images are not (N, S, S).
    """
    ratios = np.full(len(images), np.nan)
    for i, mask in enumerate(masks(images, threshold)):
        core = core_of(mask)
        if core.any():
            grey = np.percentile(images[i][mask], GREY_PERCENTILE)
            white = np.percentile(images[i][core], WHITE_PERCENTILE)
            ratios[i] = grey / white if white > 0 else np.nan
    return ratios


def core_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels deeper in the mask than half its greatest depth.

    Args:
        mask: (S, S); what lies beyond the picture counts as outside.

    Returns:
        (S, S); empty for an empty mask.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.asarray(depth > CORE_DEPTH * depth.max(initial=0.0))


def extents(images: NDArray[np.float32], threshold: float = 0.3) -> NDArray[np.int64]:
    """Rows and columns that each slice's mask spans.

    Args:
        images: (N, S, S) non-negative counts.
        threshold: Of the mask.

    Returns:
        (N, 2) height and width in pixels; 0 for a blank slice.
    """
    mask = masks(images, threshold)
    return np.stack([_span(np.asarray(mask.any(axis=axis))) for axis in (2, 1)], axis=1)


def _span(occupied: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N, S) to (N,): from the first True to the last one, both counted."""
    first = occupied.argmax(axis=1)
    last = occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    return np.where(occupied.any(axis=1), last - first, 0)


def head_width_mm(
    images: NDArray[np.float32], pixel_mm: float, threshold: float = 0.3
) -> NDArray[np.float64]:
    """Left-to-right extent of the mask, in mm; whole pixels, both ends counted.

    Args:
        images: (N, S, S) non-negative counts.
        pixel_mm: Pixel edge in mm.
        threshold: Of the mask: a lower one takes in scalp and scatter.

    Returns:
        (N,); NaN for a blank slice.
    """
    width = extents(images, threshold)[:, 1].astype(np.float64)
    return np.where(width > 0, width * pixel_mm, np.nan)
