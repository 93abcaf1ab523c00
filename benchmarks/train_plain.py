"""What the training benchmarks share: random slices, and a step with every speed switch off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.gan import losses
from fastgan_aug.gan.batch import Batch, Share, TrainingData, draw_batch, translated
from fastgan_aug.gan.settings import TrainingConfig
from fastgan_aug.gan.step import TrainState, average_decay, held, penalty


def random_data(counts: Sequence[int], vectors: Tensor, size: int) -> TrainingData:
    """(sum of counts, 1, size, size) uniform slices; what they show does not change the time."""
    random = np.random.default_rng(0)
    cell = np.repeat(np.arange(len(counts)), counts)
    images = random.uniform(-1, 1, (len(cell), 1, size, size)).astype(np.float32)
    rows = np.arange(len(cell))
    return TrainingData(
        torch.from_numpy(images), rows, cell, vectors,
        [rows[max(i - 1, 0) : i] for i in rows], np.ones(len(counts), np.bool_),
    )  # fmt: skip


def batch_of(state: TrainState, data: TrainingData, training: TrainingConfig) -> Batch:
    """The state's next batch."""
    return draw_batch(data, AugmentConfig(), training, state.generator, state.images_seen, Share())


def plainly(training: TrainingConfig) -> TrainingConfig:
    """The same training without its speed switch among the settings."""
    return replace(training, precision="fp32")


def with_plain_optimisers(state: TrainState) -> TrainState:
    """The same state with Adam as a loop over the parameters."""
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        for group in optimiser.param_groups:
            group.update(fused=False, foreach=False)
        optimiser.defaults.update(fused=False, foreach=False)
    return state


def plain_step(state: TrainState, batch: Batch, training: TrainingConfig) -> Tensor:
    """The paper's steps i-vi as one would write them down first: it trains as ``train_step`` does.

    The discriminator judges the generated slices once for each of the two losses, gradients of
    frozen parameters are computed and thrown away, and Adam and the average loop over parameters.

    Returns:
        (4,) detached L_real, L_fake, L_recon and L_G.
    """
    fake = state.generator(batch.latents, batch.condition, batch.influence)  # i
    loss_g = generator_loss(state, batch, fake, training)  # v
    state.generator_optimiser.zero_grad()
    torch.autograd.backward(loss_g)
    real, false, recon, steep = discriminator_losses(state, batch, fake.detach(), training)  # ii-iv
    state.discriminator_optimiser.zero_grad()
    torch.autograd.backward(real + false + recon + steep)
    state.discriminator_optimiser.step()  # vi
    state.generator_optimiser.step()
    state.images_seen += training.batch
    plain_average(state, training)
    return torch.stack([real, false, recon, loss_g]).detach()


def generator_loss(
    state: TrainState, batch: Batch, fake: Tensor, training: TrainingConfig
) -> Tensor:
    """Eq. 1 or that of pairs, and what the appearance adds; scalar."""
    real_seen, fake_seen = seen(batch, fake, training)
    fake_logits, _, _ = state.discriminator(fake_seen, batch.condition, batch.influence)
    added = held(state.generator, batch, fake, training)
    if not training.relativistic:
        return losses.generator_loss(fake_logits) + added
    real_logits, _, _ = state.discriminator(real_seen, batch.condition, batch.influence)
    return losses.relativistic_loss(fake_logits, real_logits) + added


def discriminator_losses(
    state: TrainState, batch: Batch, fake: Tensor, training: TrainingConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eqs. 2 and 3 or that of pairs, Eq. 4, and the gradient penalty."""
    discriminator = state.discriminator
    real_seen, fake_seen = seen(batch, fake, training)
    fake_logits, _, _ = discriminator(fake_seen, batch.condition, batch.influence)
    real_logits, second, third = discriminator(real_seen, batch.condition, batch.influence)
    recon = losses.reconstruction_loss(discriminator, real_seen, second, third, batch.corner)
    real, false, _ = losses.adversarial_losses(
        real_logits, fake_logits, relativistic=training.relativistic
    )
    steep = torch.zeros_like(recon)
    if batch.signs is not None:
        images, logits = (real_seen, fake_seen), (real_logits, fake_logits)
        steep = penalty(discriminator, batch, training, images, logits)
    return real, false, recon, steep


def seen(batch: Batch, fake: Tensor, training: TrainingConfig) -> tuple[Tensor, Tensor]:
    """The real and the fake slices as the discriminator sees them."""
    if batch.translation is None:
        return batch.real, fake
    both = translated(torch.cat([batch.real, fake]), batch.translation, training.translation)
    real, fake = both.chunk(2)
    return real, fake


@torch.no_grad()
def plain_average(state: TrainState, training: TrainingConfig) -> None:
    """The moving average, one tensor after the other."""
    if state.average is None:
        return
    decay, new = average_decay(training), state.generator.state_dict()
    for name, old in state.average.state_dict().items():
        if old.is_floating_point():
            old.copy_(decay * old + (1 - decay) * new[name])
        else:
            old.copy_(new[name])
