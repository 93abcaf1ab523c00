"""Generator and discriminator of the conditional FastGAN (Werner et al. 2022, Figs. 1-3).

The paper gives the blocks in its text and the numbers of feature maps in figures only. Where a
figure alone gave a number, it is chosen by FastGAN (Liu et al., ICLR 2021, arXiv 2101.04775):
feature maps per resolution, kernel sizes, noise in every other up-sampling block, leaky slopes.
Spectral normalisation is in neither paper's text and is not used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_aug.gan.appearance import DESCRIPTORS, Appearance
from fastgan_aug.gan.minibatch import cell_deviations
from fastgan_aug.gan.settings import NetworkConfig

# FastGAN's multiples of `ngf` for the feature maps at each resolution.
GENERATOR_MULTIPLES = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1}


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


class Noise(nn.Module):
    """Adds noise with one learned gain, which starts at 0 (FastGAN's noise injection)."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        """(B, C, H, W) features plus gain times (B, 1, H, W) noise."""
        return features + (self.gain * noise).to(features.dtype)


class UpBlock(nn.Module):
    """Nearest-neighbour doubling, then convolutions gated by GLU; two of them with noise."""

    def __init__(self, inputs: int, outputs: int, *, noise: bool) -> None:
        super().__init__()
        widths = (
            [(inputs, 2 * outputs), (outputs, 2 * outputs)] if noise else [(inputs, 2 * outputs)]
        )
        self.convolutions = nn.ModuleList(_convolution(i, o, 3, 1, 1) for i, o in widths)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in widths)
        self.noises = nn.ModuleList(Noise() for _ in widths if noise)

    def forward(self, features: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) to (B, outputs, 2H, 2W); one (B, 1, 2H, 2W) noise per noise layer."""
        features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            features = convolution(features)
            if self.noises:
                features = self.noises[i](features, noises[i])
            features = F.glu(norm(features), dim=1)
        return features


class SkipLayerExcitation(nn.Module):
    """Gates a high-resolution map by the 4 x 4 map (Fig. 2: without the adaptive pooling)."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            _convolution(low, high, 4), nn.LeakyReLU(0.1), _convolution(high, high, 1), nn.Sigmoid()
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, low, 4, 4) and (B, high, H, W) to (B, high, H, W)."""
        gated: Tensor = high * self.gate(low)
        return gated


class Generator(nn.Module):
    """Latent and condition to an image (Fig. 1).

    Args:
        config: Sizes.
        condition: Elements of the condition vector.
        appearance: What a slice looks like as a whole, where ``config.appearance`` is on.

    Attributes:
        noise_shapes: (H, W) of each noise map that ``forward`` takes, in order.
        latent_size: Elements of the flat latent of one image: the appearance's, z, all noise maps.
    """

    def __init__(
        self, config: NetworkConfig, condition: int, appearance: Appearance | None = None
    ) -> None:
        super().__init__()
        if config.appearance != (appearance is not None):
            raise ValueError(
                "network.appearance is on, but no appearance was given, or the reverse"
            )
        self.appearance = appearance
        self.latent, self.size = config.latent, config.size
        self.unit_maximum = config.unit_maximum
        finest = config.size // config.fold
        resolutions = [2**p for p in range(2, int(math.log2(finest)) + 1)]
        width = {r: GENERATOR_MULTIPLES[r] * config.generator_width for r in resolutions}
        self.drawn = 0 if appearance is None else DESCRIPTORS
        self.embed = nn.Linear(config.latent + condition + self.drawn, config.embedding)
        self.input = nn.Sequential(
            nn.ConvTranspose2d(config.embedding, 2 * width[4], 4, bias=False),
            nn.BatchNorm2d(2 * width[4]),
            nn.GLU(dim=1),
        )
        # FastGAN alternates: noise and a second convolution at 8, 32 and 128 pixels.
        noisy = [config.noise and i % 2 == 0 for i in range(len(resolutions) - 1)]
        self.up = nn.ModuleList(
            UpBlock(width[r // 2], width[r], noise=n)
            for r, n in zip(resolutions[1:], noisy, strict=True)
        )
        self.excite = SkipLayerExcitation(width[4], width[finest])
        self.output = _picture(width[finest], config.fold)
        self.noise_shapes = [
            (r, r) for r, n in zip(resolutions[1:], noisy, strict=True) if n for _ in range(2)
        ]
        self.latent_size = self.drawn + config.latent + sum(h * w for h, w in self.noise_shapes)
        self.apply(_initialise)

    def split(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, latent_size) N(0, 1) to z (B, latent) and noise maps (B, 1, H, W)."""
        sizes = [self.drawn, self.latent, *(h * w for h, w in self.noise_shapes)]
        _, z, *flat = torch.split(latents, sizes, dim=1)
        return z, [
            n.reshape(-1, 1, h, w) for n, (h, w) in zip(flat, self.noise_shapes, strict=True)
        ]

    @torch.no_grad()
    def weaken_condition(self, influence: float) -> None:
        """Makes ``forward`` with the whole condition what it was with this influence."""
        columns = slice(self.latent, self.embed.in_features - self.drawn)
        self.embed.weight[:, columns] *= influence

    def wanted(self, latents: Tensor, condition: Tensor) -> Tensor:
        """(B, DESCRIPTORS) that the images of these latents are to have."""
        assert self.appearance is not None
        return self.appearance.draw(latents[:, : self.drawn], condition)

    def embedded(self, given: Tensor) -> Tensor:
        """(B, latent + condition + drawn) to (B, E)."""
        if self.training:
            embedded: Tensor = self.embed(given)
            return embedded
        # On some processors the last bits of a matrix product hang on the row that it stands in.
        return (given[:, None] * self.embed.weight).sum(2) + self.embed.bias

    def forward(
        self,
        latents: Tensor,
        condition: Tensor,
        influence: float = 1.0,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Generates images.

        Args:
            latents: (B, latent_size) N(0, 1); noise is an argument, so that it can be replayed.
            condition: (B, condition) of 0 and 1.
            influence: Of the condition on the network, 0 to 1; the appearance always has all.
            wanted: (B, DESCRIPTORS) that the images are to have, where there is an appearance;
                None takes those of the latents.

        Returns:
            (B, 1, S, S) in (-1, 1).
        """
        z, noises = self.split(latents)
        given, base = [z, influence * condition], None
        if self.appearance is not None:
            if wanted is None:
                wanted = self.wanted(latents, condition)
            given.append(self.appearance.standard(wanted))
            base = self.appearance.picture(wanted)
        features = self.embedded(torch.cat(given, dim=1))
        features = low = self.input(features[:, :, None, None])
        taken = 0
        for block in self.up:
            needed = len(block.noises)  # type: ignore[arg-type]
            features = block(features, noises[taken : taken + needed])
            taken += needed
        picture = self.output(self.excite(low, features))
        if base is not None:  # where the network adds nothing, that is the image
            # The inverse of tanh; torch.atanh's last bits hang on the row that an image stands in.
            flat = (2 * base - 1).clamp(-0.98, 0.98)
            picture = picture.float() + ((1 + flat) / (1 - flat)).log() / 2
        images = torch.tanh(picture)
        return scaled_to_maximum(images) if self.unit_maximum else images


def _picture(inputs: int, fold: int) -> nn.Sequential:
    """(B, inputs, H, W) to (B, 1, fold * H, fold * W), before the tanh."""
    smooth = nn.Identity() if fold == 1 else Binomial()
    return nn.Sequential(_convolution(inputs, fold**2, 3, 1, 1), nn.PixelShuffle(fold), smooth)


class Binomial(nn.Module):
    """Low-pass of (1, 2, 1) / 4 along both axes: no checkerboard of folded pixels is left."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) to the same shape; the edge is repeated."""
        line = images.new_tensor([0.25, 0.5, 0.25])
        kernel = (line[:, None] * line)[None, None]
        return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel)


def scaled_to_maximum(images: Tensor) -> Tensor:
    """(B, 1, S, S) in (-1, 1) to float32 in [-1, 1], counts divided by each slice's maximum."""
    counts = images.float() + 1
    return 2 * counts / counts.amax((1, 2, 3), keepdim=True).clamp_min(1e-3) - 1


class DownBlock(nn.Module):
    """Halves the resolution: mean of a convolved and a pooled path (FastGAN)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _convolution(inputs, outputs, 4, 2, 1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
            _convolution(outputs, outputs, 3, 1, 1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            _convolution(inputs, outputs, 1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.2),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H/2, W/2)."""
        mixed: Tensor = (self.main(features) + self.direct(features)) / 2
        return mixed


class Decoder(nn.Module):
    """FastGAN's simple decoder: features to a picture of ``2 ** doublings`` times their size."""

    def __init__(self, inputs: int, width: int, doublings: int, fold: int) -> None:
        super().__init__()
        blocks = doublings - (fold > 1)
        widths = [inputs, *[m * width for m in (4, 2, 2)[:blocks]]]
        self.up = nn.ModuleList(UpBlock(i, o, noise=False) for i, o in itertools.pairwise(widths))
        self.output = _picture(widths[-1], fold)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, 1, h * 2**doublings, w * 2**doublings) in (-1, 1)."""
        for block in self.up:
            features = block(features, ())
        return torch.tanh(self.output(features))


class Discriminator(nn.Module):
    """Image and condition image to logits and features, with two decoders (Fig. 3).

    At 128 pixels the input block halves, as FastGAN's does for large images, so that the three
    down-sampling blocks see what they see at 64.

    With ``config.projection`` the condition is no image: its embedding, a sum of one vector for
    each factor's value, is multiplied with the mean features of the last block (Miyato & Koyama,
    ICLR 2018), and every logit gets the product.
    """

    def __init__(self, config: NetworkConfig, condition: int) -> None:
        super().__init__()
        base, self.fold = config.discriminator_width, config.fold
        widths = [base * m for m in (1, 2, 4, 8)][config.fold - 1 :]
        inputs, halve = config.fold**2, config.size > 64
        if not config.projection:
            inputs += condition
        self.input = nn.Sequential(
            _convolution(inputs, widths[0], 4, 2, 1)
            if halve
            else _convolution(inputs, widths[0], 3, 1, 1),
            nn.LeakyReLU(0.2),
        )
        self.down = nn.ModuleList(DownBlock(i, o) for i, o in itertools.pairwise(widths))
        self.output = nn.Sequential(
            _convolution(widths[-1] + int(config.minibatch_sd), 2 * widths[-1], 1),
            nn.BatchNorm2d(2 * widths[-1]),
            nn.LeakyReLU(0.2),
            _convolution(2 * widths[-1], 1, 4),
        )
        decoder_width = max(1, base // 2)
        self.crop_decoder = Decoder(widths[-2], decoder_width, 2, config.fold)
        self.whole_decoder = Decoder(widths[-1], decoder_width, 3, config.fold)
        self.apply(_initialise)
        self.minibatch_sd = config.minibatch_sd
        self.embed: nn.Linear | None = None
        if config.projection:
            self.embed = nn.Linear(condition, widths[-1], bias=False)
            nn.init.normal_(self.embed.weight, 0.0, 0.02)

    def forward(
        self, images: Tensor, condition: Tensor, influence: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Judges images.

        Args:
            images: (B, 1, S, S) in [-1, 1].
            condition: (B, condition) of 0 and 1; each element becomes a constant channel.
            influence: Of the condition, 0 to 1.

        Returns:
            Logits (B, h, w), features of the second block (B_1 of Eq. 4) and of the third (B_2).
        """
        known = influence * condition
        second = F.pixel_unshuffle(images, self.fold)
        if self.embed is None:
            planes = known[:, :, None, None].expand(-1, -1, *second.shape[2:])
            second = torch.cat([second, planes], dim=1)
        for block in (self.input, *self.down[:-1]):
            second = block(second)
        third = self.down[-1](second)
        judged = (
            torch.cat([third, cell_deviations(third, condition)], 1) if self.minibatch_sd else third
        )
        logits = self.output(judged).squeeze(1)
        if self.embed is not None:
            fits = (self.embed(known) * third.float().mean((2, 3))).sum(1)
            logits = logits + fits[:, None, None]
        return logits, second, third


def crop_positions(size: int) -> int:
    """How many rows (or columns) Eq. 4's crop may begin at, in cells of the second block."""
    cells = size // (8 if size > 64 else 4)
    return cells // 2 + 1


def _initialise(module: nn.Module) -> None:
    # FastGAN's initialisation.
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
