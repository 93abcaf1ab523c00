"""Mini-batch standard deviation (Karras et al., ICLR 2018, section 3), within the cells of a batch.

A discriminator of single slices cannot see that a generator's slices are too alike. It is told how
much those of one batch differ. Over all slices of a batch that would mostly be how much the cells
differ, which is the same for real and for generated slices: both have the same conditions. So the
deviation is that of the slices of one cell from their own mean. Of a cell that the batch holds once
nothing is known, and it is 0, for real and for generated slices alike. Where workers share a batch,
each tells it of its own part, as batch normalisation does.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8  # under the root, whose slope at 0 is infinite


def cell_deviations(features: Tensor, condition: Tensor) -> Tensor:
    """The standard deviation within each row's cell, mean over features and places.

    Args:
        features: (B, C, H, W).
        condition: (B, E); rows of one cell are equal.

    Returns:
        (B, 1, H, W), one value for each row; 0 for rows that are equal, or alone.
    """
    with torch.autocast(features.device.type, enabled=False):
        same = (condition[:, None] == condition[None]).all(-1).float()
        count = same.sum(1, keepdim=True)
        flat = features.float().flatten(1)
        squares = (flat - same @ flat / count).square()
        variance = same @ squares / (count - 1).clamp_min(1)  # unbiased: cells are small
        deviation: Tensor = ((variance + EPSILON).sqrt() - EPSILON**0.5).mean(1)
        # The two roots of one number may differ in their last bit.
        deviation = deviation * (count[:, 0] > 1)
    value = deviation.to(features.dtype)[:, None, None, None]
    return value.expand(-1, 1, *features.shape[2:])
