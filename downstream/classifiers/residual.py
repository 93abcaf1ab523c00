"""A small residual network: the stronger of the two networks that every arm is tried with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fastgan_aug.quality.likeness.classifier import FitSettings

GRID = 4
"""Cells along each side of the last maps, whose means keep where something was seen."""


class Block(nn.Module):
    """Two 3 x 3 convolutions beside an identity (He et al. 2016, Fig. 2), projected if need be.

    Args:
        before: Feature maps that come.
        after: Feature maps that go.
        stride: Of the first convolution.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        last = nn.BatchNorm2d(after)
        nn.init.zeros_(last.weight)  # a block begins as the identity (Goyal et al. 2017, 5.1)
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            last,
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            # Every other pixel, then 1 x 1: the same as a stride of 2, whose gradient oneDNN 3.12
            # writes past its end for fewer than 8 maps on a processor without AVX-512.
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(1, stride), nn.Conv2d(before, after, 1, bias=False),
                nn.BatchNorm2d(after),
            )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H / stride, W / stride)."""
        return functional.relu(self.body(maps) + self.shortcut(maps))


class ResidualNet(nn.Module):
    """A stem to 32 x 32 or less, four residual blocks, a coarse grid of means and the maxima.

    Args:
        n_classes: Logits.
        size: Rows and columns of a slice, 16 or more.
        width: Feature maps of the stem.
        mean: Of the training images' pixels, for standardisation.
        std: As ``mean``.
    """

    def __init__(self, n_classes: int, size: int, width: int, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        # As in the small CNN, every size from 64 pixels on is brought to 32 x 32 first.
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 5, max(1, size // 32), 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        widths = (width, 2 * width, 4 * width, 4 * width, 8 * width)
        strides = (2, 2, 1, 2)
        self.blocks = nn.Sequential(
            *(Block(widths[i], widths[i + 1], stride) for i, stride in enumerate(strides))
        )
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear((GRID**2 + 1) * widths[-1], n_classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) in [0, 1] to (B, n_classes) logits."""
        standard = (images - self.mean) / self.std
        maps = self.blocks(self.stem(standard.contiguous(memory_format=torch.channels_last)))
        grid = functional.adaptive_avg_pool2d(maps, GRID).flatten(1)
        pooled = torch.cat([grid, maps.amax(dim=(2, 3))], dim=1)
        return torch.as_tensor(self.head(self.drop(pooled)))


def residual_net(images: NDArray[np.float32], n_classes: int, settings: FitSettings) -> ResidualNet:
    """A new one that standardises as these images, (N, S, S) in [0, 1], need it."""
    mean, std = float(images.mean()), float(images.std()) + 1e-6
    return ResidualNet(n_classes, images.shape[1], settings.width, mean, std)
