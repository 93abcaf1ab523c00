"""Losses of Werner et al. 2022, Eqs. 1-5."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastgan_aug.gan.networks import Discriminator


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 1: minus the mean logit of the generated images; scalar."""
    return -fake_logits.mean()


def real_loss(real_logits: Tensor) -> Tensor:
    """Eq. 2: hinge loss of real images, ``-mean(min(0, -1 + D(x)))``; scalar."""
    return F.relu(1.0 - real_logits).mean()


def fake_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 3: hinge loss of generated images, ``-mean(min(0, -1 - D(G(z|y))))``; scalar."""
    return F.relu(1.0 + fake_logits).mean()


def reconstruction_loss(
    discriminator: Discriminator,
    images: Tensor,
    second: Tensor,
    third: Tensor,
    corner: tuple[int, int],
) -> Tensor:
    """Eq. 4 with the L1 norm (the paper leaves it open); real images only.

    Args:
        discriminator: Holder of the two decoders.
        images: (B, 1, S, S) real images in [-1, 1].
        second: (B, C, s, s) features of the second block; a half-height half-width crop is decoded.
        third: (B, C, s/2, s/2) features of the third block, decoded whole.
        corner: Row and column of the crop's upper left corner, in cells of ``second``.

    Returns:
        Scalar: mean absolute error of the crop plus that of the whole.
    """
    row, column = corner
    half, scale = second.shape[-1] // 2, images.shape[-1] // second.shape[-1]
    crop = second[:, :, row : row + half, column : column + half]
    rows = slice(row * scale, (row + half) * scale)
    columns = slice(column * scale, (column + half) * scale)
    region, whole = discriminator.crop_decoder(crop), discriminator.whole_decoder(third)
    target_region = F.interpolate(images[:, :, rows, columns], region.shape[-1], mode="area")
    target_whole = F.interpolate(images, whole.shape[-1], mode="area")
    return F.l1_loss(region.float(), target_region) + F.l1_loss(whole.float(), target_whole)
