"""What a slice shows as a whole, in numbers that a generator can be held to: differentiable.

Mean counts and the ratio of the sides are the paper's endpoints, with the mask and the axis that
`fastgan_aug.quality.clinical.counts` judges them by, but for a soft edge.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MASK, SOFT = 0.3, 0.03  # of the maximum: what is inside, and how softly it ends
STRIPS, BANDS = 8, slice(2, 6)  # of the height; the outer ones are mostly empty
# Cycles per pixel: edges of the rings whose power is described, above what the shape decides.
RINGS = (0.06, 0.09, 0.13, 0.18, 0.24, 0.31, 0.39, 0.5)
SIDES = 2 + BANDS.stop - BANDS.start
SPECTRUM = len(RINGS) - 1


def side_descriptors(counts: Tensor, axis: Tensor) -> Tensor:
    """Mean counts and log left over right of slices.

    Args:
        counts: (B, S, S) in [0, 1], float32.
        axis: (B,) of ``midlines``.

    Returns:
        (B, SIDES): mean counts inside the mask; log of the counts at higher columns over those at
        lower ones, of the whole slice, then of its bands from front to back.
    """
    columns = torch.arange(counts.shape[-1], device=counts.device, dtype=counts.dtype)
    lower = (axis[:, None] - (columns - 0.5)).clamp(0, 1)[:, None]
    mask = torch.sigmoid((counts - MASK) / SOFT)
    turned = columns_at(mask, 2 * axis[:, None] - columns)
    inside = counts * torch.maximum(mask, turned)
    high, low = (inside * (1 - lower)).sum(2), (inside * lower).sum(2)
    mean = (counts * mask).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1e-6)
    whole = (high.sum(1) + 1).log() - (low.sum(1) + 1).log()
    strips = [side.reshape(len(side), STRIPS, -1).sum(2)[:, BANDS] + 1 for side in (high, low)]
    return torch.cat([mean[:, None], whole[:, None], strips[0].log() - strips[1].log()], 1)


@torch.no_grad()
def midlines(counts: Tensor) -> Tensor:
    """(B, S, S) in [0, 1] to (B,), the column about which the outline is the most symmetric.

    No gradient flows through it.
    """
    size = counts.shape[-1]
    outline = (counts / (MASK / 2)).clamp(max=1)
    overlap = torch.fft.irfft(torch.fft.rfft(outline, 2 * size).square().sum(1), 2 * size)
    best = overlap[:, : 2 * size - 1].argmax(1).clamp(1, 2 * size - 3)
    before, at, after = (overlap.gather(1, best[:, None] + k)[:, 0] for k in (-1, 0, 1))
    bend = (before - 2 * at + after).clamp(max=-1e-6)
    column: Tensor = (best + ((before - after) / (2 * bend)).clamp(-1, 1)) / 2
    return column


def columns_at(images: Tensor, source: Tensor) -> Tensor:
    """Takes columns from elsewhere, linear between columns, 0 beyond the edge.

    Args:
        images: (B, S, S).
        source: (B, S) where each new column comes from, in columns.

    Returns:
        (B, S, S).
    """
    size = images.shape[-1]
    below = source.floor()
    share = (source - below)[:, None]

    def column(index: Tensor) -> Tensor:
        there = ((index >= 0) & (index < size)).to(images.dtype)
        at = index.long().clamp(0, size - 1)[:, None].expand(-1, size, -1)
        return images.gather(2, at) * there[:, None]

    return column(below) * (1 - share) + column(below + 1) * share


def spectrum_descriptors(counts: Tensor, rings: Tensor) -> Tensor:
    """Log mean power of each ring of the Fourier plane: texture and noise.

    Args:
        counts: (B, S, S) in [0, 1], float32.
        rings: Of ``ring_weights``.

    Returns:
        (B, SPECTRUM).
    """
    power = torch.fft.rfft2(counts).abs().square().flatten(1)
    mean: Tensor = power @ rings
    return (mean + 1e-3).log()


def ring_weights(size: int) -> Tensor:
    """(S * (S // 2 + 1), SPECTRUM) weights of each ring's mean."""
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]).ravel()
    edges = np.asarray(RINGS)
    member = (radius[:, None] >= edges[:-1]) & (radius[:, None] < edges[1:])
    return torch.from_numpy((member / member.sum(0)).astype(np.float32))
