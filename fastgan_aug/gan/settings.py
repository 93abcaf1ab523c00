"""The settings of networks and training, as plain dataclasses: no pydantic on a bare GPU box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


def _require(holds: bool, what: str, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{what}; allowed: {allowed}")


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of generator and discriminator.

    Attributes:
        size: Rows and columns of an image: 32, 64 or 128.
        latent: Elements of z ~ N(0, I).
        embedding: Elements of the fully connected layer's output.
        generator_width: FastGAN's ``ngf``; the feature maps of each resolution are multiples of it.
        discriminator_width: FastGAN's ``ndf``.
        noise: Whether up-sampling blocks add learned-gain noise, as FastGAN does.
        folded: Whether no layer works at full resolution: squares of 2 x 2 pixels are four channels
            of half the resolution (sub-pixel convolution, Shi et al. 2016).
        unit_maximum: Whether each generated slice is divided by its own maximum, as real ones are.
        appearance: Whether a statistical model of the training slices says what a slice looks like
            as a whole, and the network what is left (`fastgan_aug.gan.appearance`).
        projection: Whether the discriminator compares what it found with the condition by an inner
            product (Miyato & Koyama 2018), in place of seeing the condition as channels.
        minibatch_sd: Whether the discriminator is told how much the slices of each cell differ
            within the batch (Karras et al. 2018).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    size: int = 64
    latent: int = 256
    embedding: int = 64
    generator_width: int = 64
    discriminator_width: int = 64
    noise: bool = True
    folded: bool = False
    unit_maximum: bool = False
    appearance: bool = False
    projection: bool = False
    minibatch_sd: bool = False

    @property
    def fold(self) -> int:
        """Pixels a side of the squares that become channels."""
        return 2 if self.folded else 1

    def __post_init__(self) -> None:
        _require(self.size in (32, 64, 128), f"size is {self.size}", "32, 64, 128")
        for name in ("latent", "embedding", "generator_width", "discriminator_width"):
            value = getattr(self, name)
            _require(value > 0, f"{name} is {value}", "a positive integer")
        _require(self.generator_width % 4 == 0, f"generator_width is {self.generator_width}",
                 "multiples of 4")  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """Budget, optimiser and rhythm; everything that repeats is counted in images seen.

    Attributes:
        images: Real images shown in the whole run.
        batch: Images per step, over all workers together.
        generator_learning_rate: Of the generator's Adam.
        discriminator_learning_rate: Of the discriminator's Adam; above the generator's it is the
            two time-scale update rule (Heusel et al. 2017).
        beta1: Adam's first moment decay.
        beta2: Adam's second moment decay.
        adam_epsilon: Adam's epsilon.
        seed: Of weights, order, augmentation and latents.
        init: What the weights start from: ``scratch``, random numbers; ``prior``, the weights that
            come with the package, fitted to phantoms (`fastgan_aug.gan.prior`).
        ema_half_life: Images after which a weight's share in the served average is halved; 0 serves
            the raw weights.
        sampling_power: Cells are drawn in proportion to count ** power: 1 shows every slice once
            per pass, 0.5 is square-root balancing, 0 full balancing.
        appearance_weight: Of the error of the generated slices' descriptors, added to the
            generator's loss; needs ``network.appearance``.
        energy_weight: Of the energy distance between what the appearance leaves of the real and
            of the generated slices of a cell, added likewise; needs it too.
        translation: Largest random shift, pixels, of what the discriminator sees, real and
            generated alike (DiffAugment); 0 turns it off.
        relativistic: Whether the discriminator tells which of a real and a generated slice of one
            cell is the real one (R3GAN, Huang et al. 2024), in place of the hinge losses.
        gradient_penalty: Weight of how steep the discriminator is at real and at generated slices
            (R1 and R2, gamma of R3GAN); 0 turns it off.
        transition: Images over which the condition's influence grows from none to all (Shahbazi
            et al., ICLR 2022); 0 starts with all. What grows is what the networks see of the
            condition. What is fitted, not trained, is of the cell from the start: with
            ``network.appearance`` a slice's descriptors and coarse picture, and what its loss
            terms ask of it; so are the cells of ``network.minibatch_sd`` and of the pairs.
        precision: ``bf16`` runs the forward passes under autocast; ``auto`` does so where the
            device has instructions for it. A processor without them is slower in bf16.
        log_every: Images between two points of the loss curves.
        checkpoint_every: Images between two checkpoints.
        keep: How many of the newest checkpoints stay on disk.
        loss_limit: A loss of larger magnitude counts as exploding.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    images: int = 938_000
    batch: int = 4
    generator_learning_rate: float = 2e-4
    discriminator_learning_rate: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    adam_epsilon: float = 1e-8
    seed: int = 0
    init: Literal["scratch", "prior"] = "scratch"
    ema_half_life: float = 0.0
    sampling_power: float = 1.0
    appearance_weight: float = 0.0
    energy_weight: float = 0.0
    translation: int = 0
    relativistic: bool = False
    gradient_penalty: float = 0.0
    transition: int = 0
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    log_every: int = 1_000
    checkpoint_every: int = 10_000
    keep: int = 3
    loss_limit: float = 1e4

    def __post_init__(self) -> None:
        for name in ("images", "batch", "log_every", "checkpoint_every", "keep"):
            value = getattr(self, name)
            _require(value > 0, f"{name} is {value}", "a positive integer")
        for name in ("generator_learning_rate", "discriminator_learning_rate"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}", "above 0")
        for name in ("ema_half_life", "appearance_weight", "energy_weight", "gradient_penalty"):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "0 or more")
        _require(0 <= self.sampling_power <= 1, f"sampling_power is {self.sampling_power}",
                 "between 0 and 1")  # fmt: skip
        _require(0 <= self.transition <= self.images, f"transition is {self.transition}",
                 f"0 to images, {self.images}: it ends with the whole condition")  # fmt: skip

    def influence(self, images_seen: int) -> float:
        """Of the condition after so many images, 0 to 1: nothing else has a part in it."""
        return min(1.0, images_seen / self.transition) if self.transition else 1.0
