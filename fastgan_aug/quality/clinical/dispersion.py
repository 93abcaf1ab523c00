"""The pixel-wise standard deviation: the paper's third endpoint, overall and by region.

The paper's generator had too low an SD map on bilateral slices, worst in front and at the back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.counts import masks
from fastgan_aug.quality.statistics.means import bootstrap_weights

REGIONS = ("whole", "front", "middle", "back")
"""The cell's common mask, and the thirds of its rows from the first one (the front of a head)."""
DRAWS = 500


@dataclass(frozen=True)
class SdRatio:
    """The mean of the SD map of synthetic slices over that of real ones, inside one mask.

    Attributes:
        region: One of ``REGIONS``.
        synthetic: Mean over the region of the pixel-wise standard deviation (n - 1).
        real: As ``synthetic``.
        ratio: Synthetic over real; 1 is right, below it diversity is missing.
        low: Lower end of its interval of level 0.95: a bootstrap over patients, reflected about
            the ratio (on its logarithm).
        high: Upper end.
    """

    region: str
    synthetic: float
    real: float
    ratio: float
    low: float
    high: float


def sd_ratios(
    synthetic: NDArray[np.float32],
    real: NDArray[np.float32],
    real_patients: NDArray[np.generic] | None = None,
    *,
    synthetic_patients: NDArray[np.generic] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[SdRatio]:
    """Compares the SD maps of one cell.

    The interval is a bootstrap over patients, on both sides: a patient is drawn with all slices.
    It is a little short: with 40 patients of three slices it covers the truth 0.91 of the time.

    Args:
        synthetic: (M, S, S) slices of one cell.
        real: (N, S, S) of the same cell; its mean image gives the mask.
        real_patients: (N,) whose slices they are; by default each its own.
        synthetic_patients: (M,) as ``real_patients``, where real slices take the place.
        draws: Resamples.
        seed: Of the resamples.

    Returns:
        One per region; all NaN where a side has fewer than two slices.

    Raises:
        DataError: the images are not (N, S, S) of one size, or the patients are another number.
    """
    if synthetic.ndim != 3 or synthetic.shape[1:] != real.shape[1:]:
        raise DataError(
            f"the slices have shapes {synthetic.shape} and {real.shape}",
            allowed="(M, S, S) and (N, S, S)",
        )
    if min(len(synthetic), len(real)) < 2:
        return [SdRatio(region, *5 * (float("nan"),)) for region in REGIONS]
    where = region_masks(real)
    whole = where["whole"]
    parts = [where[region][whole] for region in REGIONS]
    one = _sd_means(synthetic[:, whole], synthetic_patients, parts, draws, seed)
    other = _sd_means(real[:, whole], real_patients, parts, draws, seed + 1)
    ratios = np.divide(one, other, out=np.full_like(one, np.nan), where=other > 0)
    tails = np.percentile(np.where(other > 0, ratios, 1)[1:], (97.5, 2.5), axis=0)
    # Reflected: slices of one patient pull the SD down, and a resample pulls it down once more.
    low, high = np.divide(ratios[0] ** 2, tails, out=np.full_like(tails, np.nan), where=tails > 0)
    return [
        SdRatio(region, *map(float, (one[0, i], other[0, i], ratios[0, i], low[i], high[i])))
        for i, region in enumerate(REGIONS)
    ]


def region_masks(images: NDArray[np.float32]) -> dict[str, NDArray[np.bool_]]:
    """The mask of the mean image, and its front, middle and back.

    Args:
        images: (N, S, S) of one cell, N of 1 or more.

    Returns:
        ``{region: (S, S)}``; the thirds share the mask's rows as equally as they can.
    """
    whole = masks(images.mean(axis=0, dtype=np.float64).astype(np.float32)[None])[0]
    rows = np.flatnonzero(whole.any(axis=1))
    where = {"whole": whole}
    for region, third in zip(REGIONS[1:], np.array_split(rows, 3), strict=True):
        inside = np.zeros(len(whole), np.bool_)
        inside[third] = True
        where[region] = whole & inside[:, None]
    return where


def _sd_means(
    pixels: NDArray[np.float32],
    patients: NDArray[np.generic] | None,
    parts: list[NDArray[np.bool_]],
    draws: int,
    seed: int,
) -> NDArray[np.float64]:
    """(1 + draws, regions) mean of the SD map over each region: as measured, then resampled."""
    clusters = np.arange(len(pixels)) if patients is None else patients
    if len(clusters) != len(pixels):
        raise DataError(f"{len(pixels)} slices and {len(clusters)} patients", allowed="one each")
    owner = np.unique(clusters, return_inverse=True)[1]
    groups = int(owner.max()) + 1
    # From the overall mean: a variance is then no difference of two large sums.
    apart = pixels.astype(np.float64) - pixels.mean(axis=0, dtype=np.float64)
    sums, squares = np.zeros((groups, apart.shape[1])), np.zeros((groups, apart.shape[1]))
    np.add.at(sums, owner, apart)
    np.add.at(squares, owner, apart**2)
    counts = np.bincount(owner, minlength=groups)
    weights = np.concatenate([np.ones((1, groups)), bootstrap_weights(clusters, draws, seed)])
    n = (weights @ counts)[:, None]
    mean = weights @ sums / n
    variance = (weights @ squares / n - mean**2) * n / np.maximum(n - 1, 1)
    # A resample repeats patients, which takes 1 / groups of the variance away: given back here.
    variance[1:] *= groups / max(groups - 1, 1)
    sd = np.sqrt(np.maximum(variance, 0))
    return np.stack([sd[:, p].mean(axis=1) if p.any() else np.full(len(sd), 0.0) for p in parts], 1)
