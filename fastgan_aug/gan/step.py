"""One step of the training: `TrainState` and what changes it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastgan_aug.gan import losses
from fastgan_aug.gan.appearance_fit import fit_appearance
from fastgan_aug.gan.batch import PENALTY_EVERY, Batch, Share, TrainingData, translated
from fastgan_aug.gan.networks import Discriminator, Generator
from fastgan_aug.gan.prior import adopt, components
from fastgan_aug.gan.randomness import Purpose, stream
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig


@dataclass
class TrainState:
    """Everything that changes while training; the random streams are addressed, not stored.

    Attributes:
        average: Exponential moving average of the generator; None where it is off.
        images_seen: Real images shown, over all workers.
    """

    generator: Generator
    discriminator: Discriminator
    average: Generator | None
    generator_optimiser: torch.optim.Adam
    discriminator_optimiser: torch.optim.Adam
    images_seen: int = 0


def new_state(
    network: NetworkConfig,
    training: TrainingConfig,
    condition: int,
    device: torch.device,
    data: TrainingData | None = None,
    prior: Mapping[str, Tensor] | None = None,
) -> TrainState:
    """A fresh state: its weights depend on ``training.seed`` alone, its appearance on the data.

    Args:
        network: Sizes.
        training: Optimisers and seed.
        condition: Elements of the condition vector.
        device: Where the state lives.
        data: What the appearance is fitted to, where ``network.appearance`` is on.
        prior: Weights to start from instead (``load_prior``); those that the condition meets are
            the seed's all the same.

    Raises:
        CheckpointError: the prior is of other networks.
    """
    appearance = None
    if network.appearance and data is not None:
        appearance = fit_appearance(data, components(prior or {}))
    seed = int(stream(training.seed, Purpose.WEIGHTS).integers(2**62))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(network, condition, appearance)
        discriminator = Discriminator(network, condition)
    if prior is not None:
        adopt(generator, discriminator, prior)
    generator, discriminator = generator.to(device), discriminator.to(device)
    average = copy.deepcopy(generator).requires_grad_(False) if training.ema_half_life else None
    return TrainState(
        generator, discriminator, average,
        _adam(generator.parameters(), training.generator_learning_rate, training),
        _adam(discriminator.parameters(), training.discriminator_learning_rate, training),
    )  # fmt: skip


@torch.no_grad()
def share_appearance(state: TrainState, share: Share) -> None:
    """Gives every worker rank 0's fit: on other processors its last bits may differ."""
    appearance = state.generator.appearance
    if appearance is None or share.world == 1:
        return
    buffers = list(appearance.buffers())
    for buffer in buffers:
        buffer.mul_(share.world if share.rank == 0 else 0)
    share.average(buffers)
    if state.average is not None and state.average.appearance is not None:
        state.average.appearance.load_state_dict(appearance.state_dict())


def _adam(
    parameters: Iterable[nn.Parameter], learning_rate: float, training: TrainingConfig
) -> torch.optim.Adam:
    betas = (training.beta1, training.beta2)
    return torch.optim.Adam(parameters, learning_rate, betas, training.adam_epsilon, fused=True)


def train_step(state: TrainState, batch: Batch, training: TrainingConfig, share: Share) -> Tensor:
    """One step of the paper: both losses from one fake batch, then both updates.

    The discriminator sees the fake batch once: its logits serve L_fake (Eq. 3, gradients to the
    discriminator alone) and L_G (Eq. 1, gradients to the generator alone).

    Returns:
        (4,) detached L_real, L_fake, L_recon and L_G of this worker; of relativistic pairs L_real
        is what the discriminator loses by them, and L_fake is 0. The penalty is in none of them.
    """
    generator, discriminator = state.generator, state.discriminator
    with _autocast(training, batch.real.device):
        fake = generator(batch.latents, batch.condition, batch.influence)
        seen_real, seen_fake = batch.real, fake
        if batch.translation is not None:
            both = translated(
                torch.cat([batch.real, fake]), batch.translation, training.translation
            )
            seen_real, seen_fake = both.chunk(2)
        fake_logits, _, _ = discriminator(seen_fake, batch.condition, batch.influence)
        real_logits, second, third = discriminator(seen_real, batch.condition, batch.influence)
        recon = losses.reconstruction_loss(discriminator, seen_real, second, third, batch.corner)
    real, false, loss_g = losses.adversarial_losses(
        real_logits.float(), fake_logits.float(), relativistic=training.relativistic
    )
    loss_d, loss_g = real + false + recon, loss_g + held(generator, batch, fake, training)  # Eq. 5
    if batch.signs is not None:
        loss_d = loss_d + penalty(
            discriminator, batch, training, (seen_real, seen_fake), (real_logits, fake_logits)
        )
    own_d, own_g = list(discriminator.parameters()), list(generator.parameters())
    state.discriminator_optimiser.zero_grad(set_to_none=True)
    state.generator_optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(loss_d, inputs=own_d, retain_graph=True)
    torch.autograd.backward(loss_g, inputs=own_g)
    if share.world > 1:
        share.average([p.grad for p in (*own_d, *own_g) if p.grad is not None])
    state.discriminator_optimiser.step()
    state.generator_optimiser.step()
    state.images_seen += training.batch
    if state.average is not None:
        update_average(state.average, generator, average_decay(training))
    return torch.stack([real, false, recon, loss_g]).detach()


def penalty(
    discriminator: Discriminator,
    batch: Batch,
    training: TrainingConfig,
    images: tuple[Tensor, Tensor],
    logits: tuple[Tensor, Tensor],
) -> Tensor:
    """PENALTY_EVERY times half of gamma times R1 plus R2 (R3GAN): the steps between have none.

    Args:
        discriminator: Whose steepness counts.
        batch: With ``signs``.
        training: Gamma.
        images: (B, 1, S, S) real ones and generated ones, as the discriminator sees them.
        logits: (B, h, w) of each.

    Returns:
        Scalar, of the discriminator's loss.
    """
    assert batch.signs is not None
    total = batch.real.new_zeros(())
    with _autocast(training, batch.real.device):
        for seen, at, signs in zip(images, logits, batch.signs.chunk(2), strict=True):
            nudged, _, _ = discriminator(
                seen.detach() + losses.NUDGE * signs, batch.condition, batch.influence
            )
            total = total + losses.steepness(at, nudged)
    return PENALTY_EVERY * training.gradient_penalty / 2 * total


def held(generator: Generator, batch: Batch, fake: Tensor, training: TrainingConfig) -> Tensor:
    """What the appearance adds to the generator's loss; scalar."""
    loss, appearance = fake.new_zeros((), dtype=torch.float32), generator.appearance
    if appearance is None:
        return loss
    if training.appearance_weight:
        wanted = generator.wanted(batch.latents, batch.condition)
        error = appearance.error(fake, wanted, batch.condition)
        loss = loss + training.appearance_weight * error
    if training.energy_weight:
        views = appearance.residuals(batch.real), appearance.residuals(fake)
        loss = loss + training.energy_weight * losses.energy_distance(*views, batch.condition)
    return loss


def _autocast(training: TrainingConfig, device: torch.device) -> AbstractContextManager[object]:
    if training.precision == "bf16" or (training.precision == "auto" and has_bf16(device)):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


@functools.cache
def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 numbers itself, rather than by emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def average_decay(training: TrainingConfig) -> float:
    """The average's decay per step: half of a weight's share is gone after the half-life."""
    return float(0.5 ** (training.batch / training.ema_half_life))


@torch.no_grad()
def update_average(average: Generator, generator: Generator, decay: float) -> None:
    """EMA of weights and batch-norm statistics; integer counters are copied."""
    old, new = average.state_dict(), generator.state_dict()
    floating = [k for k, v in old.items() if v.is_floating_point()]
    torch._foreach_lerp_([old[k] for k in floating], [new[k] for k in floating], 1 - decay)
    for key in old.keys() - set(floating):
        old[key].copy_(new[key])
