"""Slices made of the affected sides of two others, by a label rule (`AugmentConfig.sides`).

Where the rarest class is what two one-sided findings come to, as two-sided defects are, the slices
of the one-sided class say far more of it than its own few do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgan_aug.gan.descriptors import midlines, outlines, resampled

SEAM = 1 / 64  # of the side: the width over which one side passes into the other
PART = 512  # slices joined at a time


def joined_slices(
    images: NDArray[np.float32],
    cells: NDArray[np.int64],
    partners: Mapping[int, int],
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As many new slices as bring each cell that has a partner up to the partner's number.

    A cell without any slice of its own gets none: what was never seen stays unseen.

    Args:
        images: (N, S, S) float32 in [0, 1].
        cells: (N,) cell of each.
        partners: Per cell, the cell that lends the sides (`joinable_cells`).
        random: Chooses the pairs.

    Returns:
        (M, S, S) float32 in [0, 1], maximum 1, and (M,) their cells.
    """
    made, of = [images[:0]], [cells[:0]]
    for cell, partner in sorted(partners.items()):
        lenders, own = np.flatnonzero(cells == partner), int((cells == cell).sum())
        missing = len(lenders) - own
        if not own or len(lenders) < 2 or missing < 1:
            continue
        pair = random.choice(len(lenders) * (len(lenders) - 1), missing, replace=False)
        first, step = np.divmod(pair, len(lenders) - 1)
        second = (first + 1 + step) % len(lenders)
        for at in range(0, missing, PART):
            pairs = (lenders[chosen[at : at + PART]] for chosen in (first, second))
            made.append(joined(*(torch.from_numpy(images[rows]) for rows in pairs)).numpy())
        of.append(np.full(missing, cell, np.int64))
    return np.concatenate(made), np.concatenate(of)


@torch.no_grad()
def joined(first: Tensor, second: Tensor) -> Tensor:
    """The side of each slice that has fewer counts, the second's mirrored into the first's frame.

    Args:
        first: (B, S, S) counts in [0, 1].
        second: (B, S, S), of other slices.

    Returns:
        (B, S, S) in [0, 1], divided by the maximum.
    """
    size = first.shape[-1]
    at = torch.arange(size, dtype=first.dtype)
    (first, axis), (second, other_axis) = _affected_low(first), _affected_low(second)
    frame, other = outlines(first), outlines(second)
    height, width = (other[:, 1:] - frame[:, 1:]).exp()[:, None].unbind(2)
    rows = (at - frame[:, :1]) * height + other[:, :1]
    columns = (axis[:, None] - at) * width + other_axis[:, None]
    moved = resampled(second, rows, columns)
    share = torch.sigmoid((at - axis[:, None]) / (SEAM * size))[:, None]
    both = torch.lerp(first, moved, share).clamp(0, 1)
    whole: Tensor = both / both.amax((1, 2), keepdim=True).clamp_min(1e-6)
    return whole


def _affected_low(counts: Tensor) -> tuple[Tensor, Tensor]:
    """The slices, mirrored where higher columns have fewer counts; and their axes."""
    axis = midlines(counts)
    at = torch.arange(counts.shape[-1], dtype=counts.dtype)
    side = (at - axis[:, None]).clamp(-0.5, 0.5)  # a column under the axis is of both sides
    fewer = (counts.sum(1) * side).sum(1) < 0
    turned = torch.where(fewer[:, None, None], counts.flip(-1), counts)
    return turned, torch.where(fewer, counts.shape[-1] - 1 - axis, axis)
