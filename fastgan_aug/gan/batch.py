"""What a training step sees: the data, a worker's share of it, and one batch.

Every draw has its own random stream, addressed by the step: nothing has to be saved to resume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastgan_aug.data import augment
from fastgan_aug.data.augment import AugmentConfig, SideCells
from fastgan_aug.gan.networks import Generator, crop_positions
from fastgan_aug.gan.randomness import Purpose, latents, stream
from fastgan_aug.gan.settings import TrainingConfig

# Steps for each one in which the gradient penalty counts, as many times as much: lazy
# regularisation (Karras et al., CVPR 2020). In every step it adds two fifths of a step
# (benchmarks.penalty).
PENALTY_EVERY = 4


@dataclass(frozen=True)
class TrainingData:
    """What the steps need of a data set.

    Attributes:
        images: (N, 1, S, S) float32 in [-1, 1], labelled slices, neighbours, moved defects.
        rows: (L,) rows that are labelled slices, or made of such, which stand last.
        cell: (N,) index of each row's cell, -1 for neighbours.
        vectors: (cells, C) float32, the condition vector of each cell.
        neighbours: Per row, the rows just below and above it.
        flippable: (cells,) whether a mirrored slice keeps its label.
        made: How many rows are slices with moved defects.
        groups: Cells by how many sides are affected.
    """

    images: Tensor
    rows: NDArray[np.int64]
    cell: NDArray[np.int64]
    vectors: Tensor
    neighbours: Sequence[NDArray[np.int64]]
    flippable: NDArray[np.bool_]
    made: int = 0
    groups: Sequence[SideCells] = ()

    def to(self, device: torch.device) -> TrainingData:
        """The same data with its tensors on ``device``."""
        return replace(self, images=self.images.to(device), vectors=self.vectors.to(device))


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


@dataclass(frozen=True)
class Batch:
    """This worker's share of one step.

    Attributes:
        real: (B, 1, S, S) augmented real images in [-1, 1].
        condition: (B, C), of the real images and of the fake ones.
        latents: (B, latent_size).
        corner: Of Eq. 4's crop.
        translation: (2 B, 2) rows and columns by which the discriminator sees the real, then the
            fake images shifted; None where they stay.
        signs: (2 B, 1, S, S) int8 of -1 and 1, the directions in which the gradient penalty looks
            from the real, then from the fake images; None where it does not count in this step.
        influence: Of the condition on the networks, 0 to 1.
    """

    real: Tensor
    condition: Tensor
    latents: Tensor
    corner: tuple[int, int]
    translation: Tensor | None = None
    signs: Tensor | None = None
    influence: float = 1.0


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
    translation = None
    if training.translation:
        drawn = stream(training.seed, Purpose.TRANSLATE, step).integers(
            -training.translation, training.translation + 1, (2, training.batch, 2)
        )
        translation = torch.from_numpy(drawn[:, mine].reshape(-1, 2)).to(real.device)
    signs = None
    if training.gradient_penalty and step % PENALTY_EVERY == 0:
        shape = (2, training.batch, 1, generator.size, generator.size)
        drawn = stream(training.seed, Purpose.NUDGE, step).integers(0, 2, shape, np.int8)
        signs = torch.from_numpy(2 * drawn[:, mine].reshape(-1, *shape[2:]) - 1).to(real.device)
    return Batch(
        real, condition, noise[mine].to(real.device), (int(row), int(column)), translation,
        signs, training.influence(start),
    )  # fmt: skip


def translated(images: Tensor, by: Tensor, reach: int) -> Tensor:
    """(B, 1, S, S) shifted by (B, 2) whole pixels up to ``reach``; what comes in is -1."""
    size = images.shape[-1]
    padded = F.pad(images, (reach,) * 4, value=-1.0)
    at = torch.arange(size, device=images.device)
    rows, columns = (at + (reach - by[:, i : i + 1]) for i in (0, 1))
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[which, 0, rows[:, :, None], columns[:, None, :]][:, None]
