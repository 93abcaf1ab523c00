"""What a slice shows as a whole, in numbers that a generator can be held to: differentiable.

Mean counts and the ratio of the sides are the paper's endpoints, with the mask and the axis that
`fastgan_aug.quality.clinical.counts` judges them by, but for a soft edge.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MASK, SOFT = 0.3, 0.03  # of the maximum: what is inside, and how softly it ends
OUTLINE = 0.2  # of the maximum, where an outline is measured: an infarct at the edge stays inside
STRIPS, BANDS = 8, slice(2, 6)  # of the height; the outer ones are mostly empty
# Cycles per pixel: edges of the rings whose power is described, above what the shape decides.
RINGS = (0.06, 0.09, 0.13, 0.18, 0.24, 0.31, 0.39, 0.5)
SIDES = 2 + BANDS.stop - BANDS.start
SPECTRUM = len(RINGS) - 1
FRAME = 4


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


@torch.no_grad()
def outlines(counts: Tensor) -> Tensor:
    """Where a slice's object is and how large, whatever is missing inside it or at its edge.

    No gradient flows through it.

    Args:
        counts: (B, S, S) in [0, 1].

    Returns:
        (B, 3): row of its middle; log of the SD of its rows, then of its columns, in pixels. A
        blank slice's is that of a full one.
    """
    size = counts.shape[-1]
    smooth = F.avg_pool2d(counts[:, None], 3, 1, 1)[:, 0]
    above = smooth > OUTLINE * smooth.amax((1, 2), keepdim=True)
    filled = (above.cumsum(2) > 0) & (above.flip(2).cumsum(2).flip(2) > 0)
    filled = filled | ~above.any(1, keepdim=True).any(2, keepdim=True)
    at = torch.arange(size, device=counts.device, dtype=counts.dtype)
    found = []
    for profile in (filled.sum(2).to(counts.dtype), filled.sum(1).to(counts.dtype)):
        share = profile / profile.sum(1, keepdim=True)
        middle = share @ at
        spread = (share * (at - middle[:, None]).square()).sum(1).clamp_min(1).sqrt()
        found += [middle, spread.log()]
    return torch.stack([found[0], found[1], found[3]], 1)


def resampled(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Takes pixels from elsewhere, linear between pixels, 0 beyond the edge.

    Args:
        images: (B, S, S).
        rows: (B, S) where each new row comes from, in rows.
        columns: (B, S) where each new column comes from, in columns.

    Returns:
        (B, S, S).
    """
    return columns_at(columns_at(images, columns).transpose(1, 2), rows).transpose(1, 2)


def resampled_by_products(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`resampled` by products of matrices: without a gradient, in a third of the time."""
    at = torch.arange(images.shape[-1], device=images.device, dtype=images.dtype)
    down, along = ((1 - (source[:, :, None] - at).abs()).clamp_min(0) for source in (rows, columns))
    return down @ images @ along.transpose(1, 2)


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
