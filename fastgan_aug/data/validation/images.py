"""Validation: what the images themselves show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.validation.finding import ERROR, WARNING, Finding, name_rows, plural
from fastgan_aug.data.validation.flips import flipped_slices
from fastgan_aug.quality.clinical.counts import masks

# Counts have one hottest pixel. Rounding to 8 bits makes up to four of them (real slices), a
# display window or a saturated detector makes many.
PLATEAU_PIXELS = 5
PLATEAU_SHARE = 0.005  # of the object
# Pixels of the object on one side of the picture: fewer may be noise.
CUT_PIXELS = 3
# Peak of a slice that was divided by its own maximum; float32 leaves it at 1.
PEAK = 0.999
_BLOCK = 2048  # images looked at together: bounds memory


@dataclass(frozen=True)
class _Looks:
    """What is measured of each image, (N,) each.

    Attributes:
        peak: Largest value.
        constant: Whether it is the smallest too.
        plateau: Pixels at the peak.
        share: ``plateau`` as a share of the object.
        border: Pixels of the object on the side of the picture that has most of them.
    """

    peak: NDArray[np.float32]
    constant: NDArray[np.bool_]
    plateau: NDArray[np.int64]
    share: NDArray[np.float64]
    border: NDArray[np.int64]

    @classmethod
    def at(cls, images: NDArray[np.float32]) -> _Looks:
        blocks = [_look(images[i : i + _BLOCK]) for i in range(0, len(images), _BLOCK)]
        return cls(*(np.concatenate(each) for each in zip(*blocks, strict=True)))


def _look(images: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    peak, mask = images.max(axis=(1, 2)), masks(images)
    plateau = (images == peak[:, None, None]).sum(axis=(1, 2))
    share = plateau / np.maximum(mask.sum(axis=(1, 2)), 1)
    sides = [mask[:, 0], mask[:, -1], mask[:, :, 0], mask[:, :, -1]]
    border = np.max([side.sum(axis=1) for side in sides], axis=0)
    return peak, peak == images.min(axis=(1, 2)), plateau, share, border


def check_images(dataset: Dataset) -> Iterator[Finding]:
    """Constant, clipped and cut images, images not normalised, mirrored slices of a scan."""
    if not len(dataset):
        return
    looks = _Looks.at(dataset.images)
    constant = np.flatnonzero(looks.constant)
    if len(constant):
        yield Finding(
            ERROR, "image-constant", name_rows(constant),
            f"One value everywhere in {plural(len(constant), 'image')}: nothing is shown.",
            "remove these rows, or import the slices again",
        )  # fmt: skip
    yield from _plateaus(looks)
    yield from _cut(looks)
    if dataset.meta.normalisation == "slice maximum":
        yield from _peaks(looks)
    yield from _flips(dataset)


def _plateaus(looks: _Looks) -> Iterator[Finding]:
    wide = (looks.plateau >= PLATEAU_PIXELS) & (looks.share > PLATEAU_SHARE)
    clipped = np.flatnonzero(wide & ~looks.constant)
    if len(clipped):
        yield Finding(
            WARNING, "image-clipped", name_rows(clipped),
            f"{plural(len(clipped), 'image')} with a plateau at the maximum (up to "
            f"{100 * looks.share[clipped].max():.1f} % of the object): "
            "counts above a limit were cut off.",
            "export the original counts, without a display window",
        )  # fmt: skip


def _cut(looks: _Looks) -> Iterator[Finding]:
    cut = np.flatnonzero((looks.border >= CUT_PIXELS) & ~looks.constant)
    if len(cut):
        yield Finding(
            WARNING, "image-cut", name_rows(cut),
            f"{plural(len(cut), 'image')} with the object touching the border: "
            "the field of view may have cut it.",
            "import with a larger field, or leave these slices out",
        )  # fmt: skip


def _peaks(looks: _Looks) -> Iterator[Finding]:
    low = np.flatnonzero((looks.peak < PEAK) & ~looks.constant)
    if len(low):
        yield Finding(
            WARNING, "image-not-normalised", name_rows(low),
            f"{plural(len(low), 'image')} with a maximum below 1 (the lowest "
            f"{looks.peak[low].min():.3f}), although slices are said to be divided by their "
            "maximum.",
            "divide each slice by its own maximum and keep that maximum as its scale",
        )  # fmt: skip


def _flips(dataset: Dataset) -> Iterator[Finding]:
    flipped = flipped_slices(dataset)
    if len(flipped):
        yield Finding(
            WARNING, "slice-mirrored", name_rows(flipped),
            f"{plural(len(flipped), 'slice')} looking like the mirror image of what the slices "
            "beside say: left and right may have changed places.",
            "look at these slices; import them again with the right orientation",
        )  # fmt: skip
