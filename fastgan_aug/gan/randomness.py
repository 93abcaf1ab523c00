"""Random streams addressed by purpose and position, so that nothing has to be saved to resume."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Purpose(IntEnum):
    """What a stream decides; streams of different purpose never meet."""

    WEIGHTS = 0
    ORDER = 1
    AUGMENT = 2
    LATENT = 3
    CROP = 4
    CALIBRATE = 5
    TRANSLATE = 6
    NUDGE = 7


def stream(seed: int, purpose: Purpose, position: int = 0) -> np.random.Generator:
    """The stream of one purpose at one position (a step or a pass over the data)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, purpose, position])))


def latents(random: np.random.Generator, images: int, size: int) -> Tensor:
    """(images, size) float32 N(0, 1)."""
    return torch.from_numpy(random.standard_normal((images, size), np.float32))


def latents_of_seeds(seeds: Sequence[int] | NDArray[np.uint64], size: int) -> Tensor:
    """(N, size) float32 N(0, 1): each row depends on its own seed alone."""
    rows = np.empty((len(seeds), size), np.float32)
    for row, seed in zip(rows, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=int(seed))).standard_normal(
            out=row, dtype=np.float32
        )
    return torch.from_numpy(rows)
