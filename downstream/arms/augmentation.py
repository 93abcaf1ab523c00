"""Classical augmentation of every batch: shift, flip by the label rule, blur, noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from downstream.arms.arm import Prepare
from downstream.material import Fit, Material
from fastgan_aug.data.augment import flippable_cells
from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import Augment

NOISE = 0.05
"""Largest SD of the noise, of the maximum count."""
BLUR = 1 / 64
"""Largest sigma of the blur, of a slice's side."""


def augmented(prepare: Prepare) -> Prepare:
    """The same slices, each changed anew in every batch; one is flipped as its cell may be.

    Args:
        prepare: Of slices that all have a cell.
    """

    def prepare_augmented(material: Material, seed: int) -> Fit:
        fit = prepare(material, seed)
        if fit.cells is None:
            raise DataError(
                "slices without a cell cannot be augmented: nobody knows which may be flipped",
                allowed="real slices, and those of a source",
            )
        flippable = flippable_cells(material.space, material.rules)[fit.cells]
        return replace(fit, augment=classical_augmentation(flippable, material.rules.shift))

    return prepare_augmented


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
        u = torch.rand(5, len(images), generator=random)
        mirrored = (u[0] < 0.5) & may_flip[rows]
        down, right = ((draw * (2 * shift + 1)).long() - shift for draw in u[1:3])
        moved = _moved(images[:, 0], mirrored, down, right, shift)
        blurred = _blurred(moved, u[3] * (BLUR * images.shape[-1]))
        noise = torch.randn(images.shape, generator=random) * (NOISE * u[4])[:, None, None, None]
        return noise.add_(blurred[:, None]).clamp_(0, 1)

    return augment


def _moved(images: Tensor, mirrored: Tensor, down: Tensor, right: Tensor, most: int) -> Tensor:
    """Mirrors, then moves each of (B, S, S) by its own pixels, up to ``most``, filled with 0."""
    size = images.shape[-1]
    wide = size + 2 * most
    padded = functional.pad(images, (most,) * 4)
    line = torch.arange(size)
    rows = line - down[:, None] + most
    columns = line - right[:, None]
    # Mirrored, what was filled on one side comes from the other: the padding is as wide there.
    columns = torch.where(mirrored[:, None], size - 1 - columns, columns) + most
    first = (torch.arange(len(images))[:, None] * wide + rows) * wide
    index = first[:, :, None] + columns[:, None, :]
    # One gather for both axes and the flip: half the time of three.
    return padded.reshape(-1).index_select(0, index.flatten()).view(images.shape)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each of (B, S, S) with its own sigma, pixels; constants stay constant."""
    radius = max(1, int(3 * float(sigma.max())))
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, :, None, None]
    for axis in (1, 2):
        size = images.shape[axis]
        edges = [images.narrow(axis, at, 1) for at in (0, size - 1)]
        padded = torch.cat([edges[0]] * radius + [images] + [edges[1]] * radius, dim=axis)
        images = images * kernel[:, radius]
        for i in range(radius):  # the kernel is symmetric: two neighbours share a weight
            pair = padded.narrow(axis, i, size) + padded.narrow(axis, 2 * radius - i, size)
            images.addcmul_(pair, kernel[:, i])
    return images
