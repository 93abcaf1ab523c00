"""Losses of Werner et al. 2022, Eqs. 1-5."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan_aug.gan.networks import Discriminator

# Of pixels in [-1, 1]. With a smaller one bf16's rounding counts as steepness, with a larger one
# what is not near the image (benchmarks.penalty).
NUDGE = 0.05


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 1: minus the mean logit of the generated images; scalar."""
    return -fake_logits.mean()


def real_loss(real_logits: Tensor) -> Tensor:
    """Eq. 2: hinge loss of real images, ``-mean(min(0, -1 + D(x)))``; scalar."""
    return F.relu(1.0 - real_logits).mean()


def fake_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 3: hinge loss of generated images, ``-mean(min(0, -1 - D(G(z|y))))``; scalar."""
    return F.relu(1.0 + fake_logits).mean()


def relativistic_loss(higher: Tensor, lower: Tensor) -> Tensor:
    """How far the logits ``higher`` are from being above ``lower``, pair by pair; scalar.

    R3GAN (Huang et al., NeurIPS 2024) with the logistic loss. The discriminator's has real
    slices higher, the generator's generated ones. A row of both is of one cell, so that no pair is
    told apart by its cells.

    Args:
        higher: (B, h, w) logits.
        lower: (B, h, w) logits of the other slices of the same cells, row by row.
    """
    return F.softplus(lower - higher).mean()


def steepness(logits: Tensor, nudged: Tensor) -> Tensor:
    """Squared norm of a discriminator's gradient at its images, by differences; scalar.

    R1 at real images (Mescheder et al. 2018), R2 at generated ones. For signs ``e``, equally often
    +1 and -1, the mean of ``((D(x + NUDGE e) - D(x)) / NUDGE) ** 2`` is the squared norm, as the
    nudge goes to 0 (Hutchinson 1989; of R1, Lin et al. 2025, arXiv 2501.08316). That asks for no
    gradient of a gradient, which costs more and which not every kernel has. With batch
    normalisation it counts what an image does to the logits of the others too.

    Args:
        logits: (B, h, w) of the images; D is their mean over h and w.
        nudged: (B, h, w) of the images plus NUDGE times signs.
    """
    rise = (nudged.float() - logits.float()).mean((1, 2)) / NUDGE
    return rise.square().mean()


def adversarial_losses(
    real_logits: Tensor, fake_logits: Tensor, *, relativistic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What both networks lose by the logits: Eqs. 1-3, or that of relativistic pairs.

    Returns:
        Of the discriminator by real and by fake slices (of pairs 0 for the second, as they are one
        loss), and of the generator; scalars.
    """
    if relativistic:
        pairs = relativistic_loss(real_logits, fake_logits)
        return pairs, torch.zeros_like(pairs), relativistic_loss(fake_logits, real_logits)
    return real_loss(real_logits), fake_loss(fake_logits), generator_loss(fake_logits)


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


def energy_distance(real: Sequence[Tensor], fake: Sequence[Tensor], condition: Tensor) -> Tensor:
    """Energy distance between the real and the generated slices of each cell, summed over views.

    ``2 E|x - y| - E|x - x'| - E|y - y'|`` (Szekely and Rizzo 2013) is 0 for equal distributions
    alone, and its last term drives generated slices apart: it sees the spread that a discriminator
    of single slices does not. Unbiased for one cell; each view counts in units of the real slices'
    own spread in the cell, so that the narrow spread of normal slices counts as much as the wide
    one of others.

    Args:
        real: Views of the real slices, (B, D) of several D.
        fake: The same views of generated slices, of the same cells, row by row.
        condition: (B, C); rows of one cell are equal.

    Returns:
        Scalar; 0 where no two slices are of one cell.
    """
    same = (condition[:, None] == condition[None]).all(-1).float()
    others = same * (1 - torch.eye(len(same), device=same.device))
    total = fake[0].new_zeros(())
    for x, y in zip(real, fake, strict=True):
        among = _distances(x, x)
        weight = 1 / _spread(among, same, others)[:, None]
        between = _mean(weight * _distances(x, y), same)
        total = total + 2 * between - _mean(weight * _distances(y, y), others)
        total = total - _mean(weight * among, others)
    return torch.where(others.sum() > 0, total, torch.zeros_like(total))


def _spread(among: Tensor, same: Tensor, others: Tensor) -> Tensor:
    """(B,) mean distance of the real slices of each row's cell; where few, of all cells."""
    overall = _mean(among, others)
    pairs = same @ others.sum(1)
    own = (same @ (among * others).sum(1) + 2 * overall) / (pairs + 2)
    return torch.maximum(own, overall / 4).clamp_min(1e-6)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """(B, B) Euclidean, in float32; by one product, so that nothing of size B x B x D is made."""
    with torch.autocast(x.device.type, enabled=False):
        if x.shape[1] == 1:
            return (x - y.T).abs()
        squares = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
    return (squares.clamp_min(0) + 1e-6).sqrt()
