"""Pixel-wise mean and standard deviation of each cell (Werner et al. 2022, Fig. 5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset


@dataclass(frozen=True)
class CellMaps:
    """Maps of one cell's labelled slices.

    Attributes:
        cell: The cell, written ``COR/bilateral``.
        n: Slices.
        mean: (S, S) float64 in [0, 1], pixel-wise mean.
        sd: (S, S) float64, pixel-wise standard deviation (n - 1); zero for a single slice.
    """

    cell: str
    n: int
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]


def cell_maps(dataset: Dataset) -> list[CellMaps]:
    """The maps of every cell that has slices, in the space's order."""
    maps = []
    for index, cell in enumerate(dataset.meta.space.cells):
        images = dataset.images[dataset.cell_index == index].astype(np.float64)
        if len(images):
            sd = images.std(axis=0, ddof=1) if len(images) > 1 else np.zeros_like(images[0])
            maps.append(CellMaps(str(cell), len(images), images.mean(axis=0), sd))
    return maps
