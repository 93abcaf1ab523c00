"""A tiny training set and tiny networks for the tests of the generator."""

from __future__ import annotations

import numpy as np
import torch

from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.gan.batch import Share, TrainingData
from fastgan_aug.gan.checkpoint import Lineage
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.step import TrainState, new_state
from fastgan_aug.gan.training import train

NETWORK = NetworkConfig(size=32, latent=8, embedding=16, generator_width=4, discriminator_width=4)
TRAINING = TrainingConfig(
    images=64, batch=8, log_every=16, checkpoint_every=32, ema_half_life=50, seed=3
)
CELLS = 3


def toy_data(count: int = 20) -> TrainingData:
    """Slices of CELLS cells (the last row a neighbour), the first with one or two neighbours."""
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.uniform(-1, 1, (count, 1, 32, 32)).astype(np.float32))
    cell = np.append(np.arange(count - 1) % CELLS, -1)
    neighbours = [np.asarray([i for i in (k - 1, k + 1) if 0 <= i < count]) for k in range(count)]
    return TrainingData(
        images, np.flatnonzero(cell >= 0), cell, torch.eye(CELLS), neighbours,
        np.asarray([True, False, True]),
    )  # fmt: skip


def toy_state(training: TrainingConfig = TRAINING, network: NetworkConfig = NETWORK) -> TrainState:
    return new_state(network, training, CELLS, torch.device("cpu"), toy_data())


def toy_lineage(network: NetworkConfig = NETWORK) -> Lineage:
    return Lineage(
        config={"network": dict(network.__dict__), "training": dict(TRAINING.__dict__)},
        config_digest="c" * 64,
        space={"shape": ["disc", "ring", "cross"]},
        class_counts={"disc": 7, "ring": 6, "cross": 0},
        dataset_digest="d" * 64,
        patient_digests=["p" * 64],
        code_version="test",
        pseudonym_key="unkeyed",
        grouping="patient",
    )


class Recording:
    """Observer that keeps what it is told."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.curve: list[tuple[int, dict[str, float]]] = []
        self.checkpoints: list[int] = []

    def losses(self, images_seen: int, values: dict[str, float]) -> None:
        self.curve.append((images_seen, values))

    def checkpoint(self, state: TrainState) -> None:
        self.checkpoints.append(state.images_seen)

    def enough(self) -> bool:
        return len(self.checkpoints) == self.stop_after


def run(
    state: TrainState, training: TrainingConfig = TRAINING, share: Share | None = None
) -> Recording:

    recording = Recording()
    train(state, toy_data(), AugmentConfig(), training, recording, share)
    return recording
