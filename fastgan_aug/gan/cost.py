"""What a fit costs: parameters, operations and time, from a count and a short measurement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.gan.batch import PENALTY_EVERY, Share, TrainingData, draw_batch
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.step import new_state, train_step


@dataclass(frozen=True)
class FitCost:
    """The expected cost of a fit on this machine.

    Attributes:
        generator_parameters: Trainable numbers of the generator.
        discriminator_parameters: Of the discriminator with its decoders.
        operations_per_image: Floating-point operations of one training step per real image,
            forward and backward of both networks (a multiply-add counts two); mean of the steps
            with and without the gradient penalty.
        seconds_per_step: Median of the measured steps; the same mean of it.
        images_per_second: Real images, one process at the configured threads.
        seconds: Expected for the whole budget.
    """

    generator_parameters: int
    discriminator_parameters: int
    operations_per_image: float
    seconds_per_step: float
    images_per_second: float
    seconds: float


def measure_cost(
    network: NetworkConfig, training: TrainingConfig, condition: int, steps: int = 5
) -> FitCost:
    """Counts one step's operations, then times ``steps`` steps on random images.

    Args:
        network: Sizes.
        training: Batch and precision; the budget is extrapolated to.
        condition: Elements of the condition vector.
        steps: How many steps of each kind are timed, after one that is not.
    """
    data = _random_data(network.size, condition, training.batch)
    state = new_state(network, training, condition, torch.device("cpu"), data)

    def step() -> None:
        batch = draw_batch(
            data, AugmentConfig(), training, state.generator, state.images_seen, Share()
        )
        train_step(state, batch, training, Share())

    def counted() -> int:
        with FlopCounterMode(display=False) as counter:
            step()
        return int(counter.get_total_flops())

    # The first of each period has the penalty in it, where there is one.
    period = PENALTY_EVERY if training.gradient_penalty else 1
    operations = statistics.mean(counted() for _ in range(period))
    taken = [[_timed(step) for _ in range(period)] for _ in range(steps)]
    seconds = statistics.mean(map(statistics.median, zip(*taken, strict=True)))
    return FitCost(
        _parameters(state.generator),
        _parameters(state.discriminator),
        operations / training.batch,
        seconds,
        training.batch / seconds,
        seconds * -(-training.images // training.batch),
    )


def _timed(step: Callable[[], None]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def _parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _random_data(size: int, condition: int, images: int) -> TrainingData:
    return TrainingData(
        torch.rand(images, 1, size, size) * 2 - 1,
        np.arange(images),
        np.arange(images) % condition,
        torch.eye(condition),
        [np.empty(0, np.int64)] * images,
        np.ones(condition, np.bool_),
    )
