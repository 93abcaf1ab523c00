"""`Place`: one image of an answer on its way, over the attempts that a filter may cost it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.balance import BalancePlan
from fastgan_aug.data.schema import REASONS
from serving.protocol import ATTEMPTS, positions, sample_seed


@dataclass
class Place:
    """One place of an answer.

    Attributes:
        cell: Its cell.
        seed: Of the image that is made for it.
        index: Its number within its cell.
        asked: Seed of the request.
        refused: How many images a filter has refused for it, by reason.
        image: (S, S) float32 in [0, 1], once the place is decided.
    """

    cell: str
    seed: int
    index: int
    asked: int = 0
    refused: list[int] = field(default_factory=lambda: [0] * len(REASONS))
    image: NDArray[np.float32] | None = None

    def decide(self, image: NDArray[np.float32], code: int) -> bool:
        """Takes an image, or the seed of the next attempt; whether the place is decided."""
        if code:
            self.refused[code - 1] += 1
            if (attempt := sum(self.refused)) < ATTEMPTS:
                self.seed = sample_seed(self.asked, self.cell, self.index, attempt)
                return False
        self.image = image
        return True


def places(agreed: BalancePlan, seed: int, span: tuple[int, int]) -> Iterator[Place]:
    """The images of a plan in a range of positions (``Header.span``), cell after cell."""
    for cell, i in positions(agreed.generate, *span):
        yield Place(cell, sample_seed(seed, cell, i), i, seed)
