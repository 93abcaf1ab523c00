"""The generator as it is served: the same images in fewer operations (`benchmarks.engine`).

Batch normalisation is part of the weights; doubling and the convolution after it are one transposed
convolution, with 4/9 of the products; pixels are moved by products of matrices. Each operation
treats the rows of a batch alike, so that an image does not depend on the row that it stands in.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_aug.gan.networks import Binomial, Generator, UpBlock, scaled_to_maximum

LARGEST = 0.98  # of the appearance's picture in (-1, 1), as in the generator


class ServedGenerator(nn.Module):
    """What a generator does after its training; later changes of its weights are not seen.

    Args:
        generator: A trained one.
    """

    weight: Tensor  # of the first layer
    shift: Tensor

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        first, norm = cast(nn.ConvTranspose2d, generator.input[0]), generator.input[1]
        scale, shift = _folded(cast(nn.BatchNorm2d, norm))
        self.register_buffer("weight", first.weight.detach() * scale[:, None, None])
        self.register_buffer("shift", shift)
        self.up = nn.ModuleList(_Block(cast(UpBlock, block)) for block in generator.up)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        """What `Generator.forward` gives: (B, 1, S, S) in (-1, 1)."""
        images: Tensor = self.images(*self.given(latents, condition))
        return images

    def given(self, latents: Tensor, condition: Tensor) -> tuple[Tensor, ...]:
        """What the network is given: a small part of the work, and the same in every engine.

        Args:
            latents: (B, latent_size) N(0, 1).
            condition: (B, C) of 0 and 1.

        Returns:
            (B, E, 1, 1) embedding; the noise maps; (B, 1, S, S) in (-1, 1), the appearance's
            picture, where there is one.
        """
        generator = self.generator
        z, noises = generator.split(latents)
        given, pictures = [z, condition], []
        if generator.appearance is not None:
            wanted = generator.wanted(latents, condition)
            given.append(generator.appearance.standard(wanted))
            picture = generator.appearance.picture(wanted)
            pictures.append((2 * picture - 1).clamp(-LARGEST, LARGEST))
        embedded = generator.embedded(torch.cat(given, dim=1))
        return embedded[:, :, None, None], *noises, *pictures

    def images(self, embedded: Tensor, *maps: Tensor) -> Tensor:
        """(B, 1, S, S) in (-1, 1) of what ``given`` gives."""
        noises = len(self.generator.noise_shapes)
        return self.finished(self.network(embedded, *maps[:noises]), *maps[noises:])

    def network(self, embedded: Tensor, *noises: Tensor) -> Tensor:
        """(B, fold**2, S / fold, S / fold): all convolutions."""
        generator, taken = self.generator, 0
        low = features = F.glu(F.conv_transpose2d(embedded, self.weight, self.shift), 1)
        for block in self.up:
            needed = len(block.gains)  # type: ignore[arg-type]
            features = block(features, *noises[taken : taken + needed])
            taken += needed
        folded: Tensor = generator.output[0](generator.excite(low, features))
        return folded

    def finished(self, folded: Tensor, *pictures: Tensor) -> Tensor:
        """(B, 1, S, S) in (-1, 1): every element decides how a whole slice is scaled."""
        _, shuffle, smooth = self.generator.output
        picture = shuffle(folded)
        if isinstance(smooth, Binomial):
            picture = _smoothed(_smoothed(picture, 2), 3)
        images = torch.tanh(picture)
        for base in pictures:  # tanh of the sum with the inverse of tanh of the picture
            images = (images + base) / (1 + images * base)
        return scaled_to_maximum(images) if self.generator.unit_maximum else images


class _Block(nn.Module):
    """An `UpBlock`; ``gains`` are those of its noise maps, of each feature map."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.weights, self.shifts, self.gains = (nn.ParameterList() for _ in range(3))
        for i, (convolution, norm) in enumerate(zip(block.convolutions, block.norms, strict=True)):
            scale, shift = _folded(cast(nn.BatchNorm2d, norm))
            weight = cast(nn.Conv2d, convolution).weight.detach() * scale[:, None, None, None]
            self.weights.append(_constant(weight if i else _doubling(weight)))
            self.shifts.append(_constant(shift))
            if block.noises:
                gain = cast(Tensor, block.noises[i].gain).detach() * scale
                self.gains.append(_constant(gain[:, None, None]))

    def forward(self, features: Tensor, *noises: Tensor) -> Tensor:
        for i, (weight, shift) in enumerate(zip(self.weights, self.shifts, strict=True)):
            if i == 0:
                features = F.conv_transpose2d(features, weight, shift, stride=2, padding=1)
            else:
                features = F.conv2d(features, weight, shift, padding=1)
            if noises:
                features = torch.addcmul(features, self.gains[i], noises[i])
            features = F.glu(features, 1)
        return features


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.contiguous(), requires_grad=False)


def _folded(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch normalisation in evaluation."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight.detach() / (variance + norm.eps).sqrt()
    return scale, norm.bias.detach() - mean * scale


def _doubling(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) after doubling to (I, O, 4, 4) of a transposed convolution of stride 2.

    Two neighbours of a doubled pixel are the same pixel: their weights are added.
    """
    for axis in (2, 3):
        first, second, third = weight.unbind(axis)
        weight = torch.stack([third, second + third, first + second, first], axis)
    return weight.transpose(0, 1)


def _smoothed(images: Tensor, axis: int) -> Tensor:
    """`Binomial` along one axis."""
    size = images.shape[axis]
    before = torch.cat([images.narrow(axis, 0, 1), images.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([images.narrow(axis, 1, size - 1), images.narrow(axis, size - 1, 1)], axis)
    return images / 2 + (before + after) / 4
