"""Training of the conditional FastGAN: the loop, and the generator that is served.

Torch and numpy alone; where the steps run, how gradients are shared among workers and what
becomes of a checkpoint are arguments. Everything is counted in real images seen, over all workers.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.errors import DataError, TrainingDiverged
from fastgan_aug.gan.appearance_fit import calibrate
from fastgan_aug.gan.batch import Share, TrainingData, draw_batch
from fastgan_aug.gan.deadline import Deadline
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.randomness import Purpose, latents, stream
from fastgan_aug.gan.settings import TrainingConfig
from fastgan_aug.gan.step import TrainState, train_step

CALIBRATION_BATCHES, CALIBRATION_BATCH = 8, 64


class Observer(Protocol):
    """Told of the progress; every worker's is called equally often."""

    def losses(self, images_seen: int, values: dict[str, float]) -> None:
        """Mean losses and images/s since the last call, equal on all workers."""

    def checkpoint(self, state: TrainState) -> None:
        """A checkpoint is due."""

    def enough(self) -> bool:
        """Asked at the start and after every checkpoint: one worker's yes ends the training."""


def train(
    state: TrainState,
    data: TrainingData,
    augmentation: AugmentConfig,
    training: TrainingConfig,
    observer: Observer,
    share: Share | None = None,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> TrainState:
    """Trains from ``state`` until ``training.images`` images were seen, or the time is up.

    The observer is told of the losses every ``log_every`` images and of a due checkpoint every
    ``checkpoint_every`` images and at the end, whatever the number of workers. It may end the
    training early, at a checkpoint; the clock ends it at any step. ``seconds_left`` is first asked
    just before the first step.

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
    deadline = Deadline(seconds_left, share, device)
    total, since = torch.zeros(4, device=device), 0
    over = _any(observer.enough(), share, device) or deadline.look()
    begun = time.perf_counter()
    while state.images_seen < training.images and not over:
        seen = state.images_seen
        batch = draw_batch(data, augmentation, training, state.generator, seen, share)
        total += train_step(state, batch, training, share)  # stays on the device: no waiting
        since += 1
        point = _crossed(seen, state.images_seen, training.log_every)
        due = _crossed(seen, state.images_seen, training.checkpoint_every)
        # Where the losses are read the device is waited for anyway.
        over = deadline.look() if point or due else deadline.stepped()
        due = due or over or state.images_seen >= training.images
        if due or point:
            values = _mean_losses(total / since, share, training, state)
            elapsed = max(time.perf_counter() - begun, 1e-9)
            values["images_per_second"] = since * training.batch / elapsed
            observer.losses(state.images_seen, values)
            total, since, begun = torch.zeros_like(total), 0, time.perf_counter()
        if due:
            _check_weights(state)
            observer.checkpoint(state)
            over = over or _any(observer.enough(), share, device) or deadline.look()
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
    again, over cells as the training data has them. Then the appearance's spread is. Within a
    transition the condition has the influence in it that it had in training.
    """
    served = copy.deepcopy(state.average or state.generator).requires_grad_(False)
    served.weaken_condition(training.influence(state.images_seen))
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
    calibrate(served.eval(), random)
    return served
