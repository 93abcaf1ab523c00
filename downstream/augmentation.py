"""Classical augmentation of real slices: shift, flip by the label rule, blur, noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgan_aug.quality.likeness.classifier import Augment


def classical_augmentation(flippable: NDArray[np.bool_], shift: int) -> Augment:
    """Shift, flip by the label rule, Gaussian blur, Gaussian noise.

    Shifts go up to ``shift`` pixels along both axes, filled with zero counts. Blur has a sigma of
    0 to S / 64 pixels, noise one of 0 to 0.05 of the maximum count, each slice its own.

    Args:
        flippable: (N,) whether a slice of the training data keeps its label when mirrored.
        shift: Largest shift, pixels.
    """
    may_flip = torch.from_numpy(np.ascontiguousarray(flippable))

    def augment(images: Tensor, rows: Tensor, random: torch.Generator) -> Tensor:
        size, edge = len(images), images.shape[-1]
        u = torch.rand(5, size, 1, 1, 1, generator=random)
        mirrored = (u[0] < 0.5) & may_flip[rows][:, None, None, None]
        moved = torch.where(mirrored, images.flip(-1), images)
        for axis, draw in ((2, u[1]), (3, u[2])):
            moved = _shifted(moved, (draw * (2 * shift + 1)).long().squeeze() - shift, axis)
        blurred = _blurred(moved, u[3].squeeze() * edge / 64)
        noise = torch.randn(images.shape, generator=random) * (0.05 * u[4])
        return (blurred + noise).clamp(0, 1)

    return augment


def _shifted(images: Tensor, by: Tensor, axis: int) -> Tensor:
    """Moves each of (B, 1, S, S) by its own number of pixels, filled with 0."""
    size = images.shape[axis]
    source = torch.arange(size)[None] - by[:, None]
    shape = [len(images), 1, 1, 1]
    shape[axis] = size
    index = source.clamp(0, size - 1).view(shape).expand_as(images)
    return images.gather(axis, index) * ((source >= 0) & (source < size)).view(shape)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each of (B, 1, S, S) with its own sigma, pixels; constants stay constant."""
    radius = max(1, int(3 * float(sigma.max())))
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    for axis in (2, 3):
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = torch.nn.functional.pad(images, pad, mode="replicate")
        parts = padded.unfold(axis, 2 * radius + 1, 1)
        images = torch.einsum("bchwk,bk->bchw", parts, kernel)
    return images
