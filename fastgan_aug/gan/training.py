"""Training of the conditional FastGAN: `TrainState`, `train_step`, `train`.

Torch and numpy alone; where the steps run, how gradients are shared among workers and what
becomes of a checkpoint are arguments. Everything is counted in real images seen, over all workers.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastgan_aug.data import augment
from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.errors import DataError, TrainingDiverged
from fastgan_aug.gan import losses
from fastgan_aug.gan.networks import Discriminator, Generator, crop_positions
from fastgan_aug.gan.randomness import Purpose, latents, stream
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig

CALIBRATION_BATCHES, CALIBRATION_BATCH = 16, 64


@dataclass(frozen=True)
class TrainingData:
    """What the steps need of a data set.

    Attributes:
        images: (N, 1, S, S) float32 in [-1, 1], labelled slices and neighbours.
        rows: (L,) rows that are labelled slices.
        cell: (N,) index of each row's cell, -1 for neighbours.
        vectors: (cells, C) float32, the condition vector of each cell.
        neighbours: Per row, the rows just below and above it.
        flippable: (cells,) whether a mirrored slice keeps its label.
    """

    images: Tensor
    rows: NDArray[np.int64]
    cell: NDArray[np.int64]
    vectors: Tensor
    neighbours: Sequence[NDArray[np.int64]]
    flippable: NDArray[np.bool_]

    def to(self, device: torch.device) -> TrainingData:
        """The same data with its tensors on ``device``."""
        return TrainingData(
            self.images.to(device), self.rows, self.cell, self.vectors.to(device),
            self.neighbours, self.flippable,
        )  # fmt: skip


@dataclass(frozen=True)
class Share:
    """This worker's part of each batch, and how the workers average.

    Attributes:
        rank: This worker, from 0.
        world: How many workers there are.
        average: Averages tensors over the workers in place; not called when there is one.
    """

    rank: int = 0
    world: int = 1
    average: Callable[[list[Tensor]], None] = field(default=lambda tensors: None)


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


class Observer(Protocol):
    """Told of the progress; every worker's is called equally often."""

    def losses(self, images_seen: int, values: dict[str, float]) -> None:
        """Mean losses and images/s since the last call, equal on all workers."""

    def checkpoint(self, state: TrainState) -> None:
        """A checkpoint is due."""

    def enough(self) -> bool:
        """Asked at the start and after every checkpoint: one worker's yes ends the training."""


def new_state(
    network: NetworkConfig, training: TrainingConfig, condition: int, device: torch.device
) -> TrainState:
    """A fresh state whose weights depend on ``training.seed`` alone."""
    seed = int(stream(training.seed, Purpose.WEIGHTS).integers(2**62))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator, discriminator = Generator(network, condition), Discriminator(network, condition)
    generator, discriminator = generator.to(device), discriminator.to(device)
    average = copy.deepcopy(generator).requires_grad_(False) if training.ema_half_life else None
    return TrainState(
        generator, discriminator, average,
        _adam(generator.parameters(), training.generator_learning_rate, training),
        _adam(discriminator.parameters(), training.discriminator_learning_rate, training),
    )  # fmt: skip


def _adam(
    parameters: Iterable[nn.Parameter], learning_rate: float, training: TrainingConfig
) -> torch.optim.Adam:
    betas = (training.beta1, training.beta2)
    return torch.optim.Adam(parameters, learning_rate, betas, training.adam_epsilon, fused=True)


# -- one step ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """This worker's share of one step.

    Attributes:
        real: (B, 1, S, S) augmented real images in [-1, 1].
        condition: (B, C), of the real images and of the fake ones.
        latents: (B, latent_size).
        corner: Of Eq. 4's crop.
    """

    real: Tensor
    condition: Tensor
    latents: Tensor
    corner: tuple[int, int]


def draw_rows(data: TrainingData, training: TrainingConfig, start: int) -> NDArray[np.int64]:
    """The (batch,) rows of the step that begins after ``start`` images, over all workers.

    With ``sampling_power`` 1 they follow a fresh permutation per pass over the labelled slices;
    below 1 each draws a cell in proportion to count ** power, then one of its slices.
    """
    if training.sampling_power == 1:
        positions = np.arange(start, start + training.batch)
        passes, places = np.divmod(positions, len(data.rows))
        orders = {p: _order(training.seed, int(p), len(data.rows)) for p in np.unique(passes)}
        return data.rows[[orders[p][i] for p, i in zip(passes, places, strict=True)]]
    random = stream(training.seed, Purpose.ORDER, start // training.batch)
    counts = np.bincount(data.cell[data.rows])
    weights = np.where(counts > 0, counts.astype(float) ** training.sampling_power, 0.0)
    cells = random.choice(len(counts), training.batch, p=weights / weights.sum())
    members = [data.rows[data.cell[data.rows] == c] for c in range(len(counts))]
    return np.asarray([members[c][int(random.random() * counts[c])] for c in cells], np.int64)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    return stream(seed, Purpose.ORDER, epoch).permutation(size)


def draw_batch(
    data: TrainingData,
    augmentation: AugmentConfig,
    training: TrainingConfig,
    generator: Generator,
    start: int,
    share: Share,
) -> Batch:
    """Draws the whole step's batch and keeps this worker's part of it.

    So the numbers that decide a step are the same for any number of workers.
    """
    step = start // training.batch
    rows = draw_rows(data, training, start)
    parameters = augment.draw(
        rows, data.neighbours, data.flippable[data.cell[rows]], augmentation,
        stream(training.seed, Purpose.AUGMENT, step),
    )  # fmt: skip
    noise = latents(stream(training.seed, Purpose.LATENT, step), len(rows), generator.latent_size)
    mine = slice(share.rank, None, share.world)
    parameters = augment.AugmentParameters(
        parameters.neighbour[mine], parameters.weight[mine], parameters.shift[mine],
        parameters.flip[mine],
    )  # fmt: skip
    real = augment.apply(data.images, rows[mine], parameters)
    condition = data.vectors[torch.from_numpy(data.cell[rows[mine]]).to(real.device)]
    row, column = stream(training.seed, Purpose.CROP, step).integers(
        0, crop_positions(generator.size), 2
    )
    return Batch(real, condition, noise[mine].to(real.device), (int(row), int(column)))


def train_step(state: TrainState, batch: Batch, training: TrainingConfig, share: Share) -> Tensor:
    """One step of the paper: both losses from one fake batch, then both updates.

    The discriminator sees the fake batch once: its logits serve L_fake (Eq. 3, gradients to the
    discriminator alone) and L_G (Eq. 1, gradients to the generator alone).

    Returns:
        (4,) detached L_real, L_fake, L_recon and L_G of this worker.
    """
    generator, discriminator = state.generator, state.discriminator
    with _autocast(training, batch.real.device):
        fake = generator(batch.latents, batch.condition)
        fake_logits, _, _ = discriminator(fake, batch.condition)
        real_logits, second, third = discriminator(batch.real, batch.condition)
        recon = losses.reconstruction_loss(discriminator, batch.real, second, third, batch.corner)
    real, false = losses.real_loss(real_logits.float()), losses.fake_loss(fake_logits.float())
    loss_g = losses.generator_loss(fake_logits.float())
    own_d, own_g = list(discriminator.parameters()), list(generator.parameters())
    state.discriminator_optimiser.zero_grad(set_to_none=True)
    state.generator_optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(real + false + recon, inputs=own_d, retain_graph=True)  # Eq. 5
    torch.autograd.backward(loss_g, inputs=own_g)
    if share.world > 1:
        share.average([p.grad for p in (*own_d, *own_g) if p.grad is not None])
    state.discriminator_optimiser.step()
    state.generator_optimiser.step()
    state.images_seen += training.batch
    if state.average is not None:
        update_average(state.average, generator, average_decay(training))
    return torch.stack([real, false, recon, loss_g]).detach()


def _autocast(training: TrainingConfig, device: torch.device) -> AbstractContextManager[object]:
    if training.precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


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


# -- the loop ------------------------------------------------------------------------------------


def train(
    state: TrainState,
    data: TrainingData,
    augmentation: AugmentConfig,
    training: TrainingConfig,
    observer: Observer,
    share: Share | None = None,
) -> TrainState:
    """Trains from ``state`` until ``training.images`` images were seen.

    The observer is told of the losses every ``log_every`` images and of a due checkpoint every
    ``checkpoint_every`` images and at the end, whatever the number of workers. It may end the
    training early, at a checkpoint.

    Raises:
        TrainingDiverged: a loss is not finite or beyond ``loss_limit``, or a weight is not finite.
            It is raised before a checkpoint is taken, so that the last one stays good.
        DataError: there is no labelled slice, or the batch cannot be shared evenly.
    """
    share = share or Share()
    if not len(data.rows):
        raise DataError("the training data has no labelled slice", do="label some slices")
    if training.batch % share.world:
        raise DataError(
            f"a batch of {training.batch} cannot be shared by {share.world} workers",
            allowed="multiples of the number of workers",
            do="change training.batch or engine.workers",
        )
    device = data.images.device
    total, since, begun = torch.zeros(4, device=device), 0, time.perf_counter()
    enough = _any(observer.enough(), share, device)
    while state.images_seen < training.images and not enough:
        seen = state.images_seen
        batch = draw_batch(data, augmentation, training, state.generator, seen, share)
        total += train_step(state, batch, training, share)  # stays on the device: no waiting
        since += 1
        last = state.images_seen >= training.images
        due = last or _crossed(seen, state.images_seen, training.checkpoint_every)
        if due or _crossed(seen, state.images_seen, training.log_every):
            values = _mean_losses(total / since, share, training, state)
            elapsed = max(time.perf_counter() - begun, 1e-9)
            values["images_per_second"] = since * training.batch / elapsed
            observer.losses(state.images_seen, values)
            total, since, begun = torch.zeros_like(total), 0, time.perf_counter()
        if due:
            _check_weights(state)
            observer.checkpoint(state)
            enough = _any(observer.enough(), share, device)
            begun = time.perf_counter()
    return state


def _any(mine: bool, share: Share, device: torch.device) -> bool:
    """Whether any worker says yes: all leave the loop at the same step, or none does."""
    votes = torch.full((1,), float(mine), device=device)
    if share.world > 1:
        share.average([votes])
    return bool(votes.item() > 0)


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every


def _mean_losses(
    mean: Tensor, share: Share, training: TrainingConfig, state: TrainState
) -> dict[str, float]:
    if share.world > 1:
        share.average([mean])
    names = ("loss_real", "loss_fake", "loss_reconstruction", "loss_generator")
    values = dict(zip(names, mean.tolist(), strict=True))
    bad = {k: v for k, v in values.items() if not math.isfinite(v) or abs(v) > training.loss_limit}
    if bad:
        raise TrainingDiverged(
            f"after {state.images_seen} images the losses are {bad}",
            allowed=f"finite and at most {training.loss_limit:g} in magnitude",
            do="resume from the last checkpoint with a lower learning rate",
        )
    return values


def _check_weights(state: TrainState) -> None:
    for name, network in (("generator", state.generator), ("discriminator", state.discriminator)):
        if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
            raise TrainingDiverged(
                f"after {state.images_seen} images the {name} holds weights that are not finite",
                do="resume from the last checkpoint with a lower learning rate",
            )


@torch.no_grad()
def served_generator(state: TrainState, data: TrainingData, training: TrainingConfig) -> Generator:
    """The generator to serve: the average (or the raw weights) with fresh batch-norm statistics.

    Averaged weights do not fit the running statistics of the raw ones, so these are measured
    again, over cells as the training data has them.
    """
    served = copy.deepcopy(state.average or state.generator).requires_grad_(False)
    norms = [m for m in served.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    served.train()
    random = stream(training.seed, Purpose.CALIBRATE)
    cells = data.cell[data.rows]
    for _ in range(CALIBRATION_BATCHES):
        chosen = torch.from_numpy(random.choice(cells, CALIBRATION_BATCH))
        noise = latents(random, CALIBRATION_BATCH, served.latent_size)
        served(noise.to(data.images.device), data.vectors[chosen.to(data.images.device)])
    for norm in norms:
        norm.momentum = 0.1
    return served.eval()
