"""Which slices make a volume: a scan whose positions lie on an even grid is a stack of planes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import ADJACENT_MM

MAX_PLANES = 1024
_OFF_GRID = 0.05  # of the distance between planes


@dataclass(frozen=True)
class Stack:
    """The slices of one file.

    Attributes:
        rows: (n,) rows of the data set, ascending towards the vertex.
        planes: (n,) plane of each row, from 0.
        start: z of plane 0.
        spacing: Distance of the planes in the unit of z; None for a slice on its own.
    """

    rows: NDArray[np.int64]
    planes: NDArray[np.int64]
    start: float
    spacing: float | None

    def counts(self, dataset: Dataset) -> NDArray[np.float32]:
        """(planes, S, S) float32 in the rows' unit; planes without a slice hold zeros."""
        scale = dataset.column("scale")[self.rows].astype(np.float64)
        size = dataset.meta.size
        volume = np.zeros((int(self.planes[-1]) + 1, size, size), np.float32)
        volume[self.planes] = dataset.images[self.rows] * scale[:, None, None]
        return volume


def stacks(dataset: Dataset) -> list[Stack]:
    """One stack per scan on an even grid; each slice of another scan alone."""
    return [stack for rows in _scans(dataset) for stack in _of_scan(dataset, rows)]


def slice_numbers(dataset: Dataset) -> NDArray[np.int64]:
    """(N,) number of each slice in its scan, from 0: one apart where two slices are neighbours.

    With it, and without millimetres, ``Dataset.neighbours`` finds the same neighbours.
    """
    numbers = np.zeros(len(dataset), np.int64)
    limit = 1.5 if dataset.meta.pixel_mm is None else ADJACENT_MM
    for rows in _scans(dataset):
        gaps = np.diff(_positions(dataset, rows))
        spacing = np.min(gaps[gaps > 0], initial=np.inf)
        apart = np.clip(np.round(gaps / spacing), 2, MAX_PLANES).astype(np.int64)
        adjacent = gaps <= min(1.5 * spacing, limit)
        steps = np.where(gaps == 0, 0, np.where(adjacent, 1, apart))
        numbers[rows[1:]] = np.cumsum(steps)
    return numbers


def _scans(dataset: Dataset) -> Iterator[NDArray[np.int64]]:
    """The rows of each scan, by ascending z; scans in the order of their first rows."""
    scans = dataset.column("scan_id").astype(str)
    _, first, member = np.unique(scans, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[member]
    order = np.lexsort((dataset.column("z"), rank))
    for rows in np.split(order, np.flatnonzero(np.diff(rank[order])) + 1):
        if len(rows):
            yield rows


def _positions(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(dataset.column("z")[rows], np.float64)


def _of_scan(dataset: Dataset, rows: NDArray[np.int64]) -> list[Stack]:
    z = _positions(dataset, rows)
    planes = _planes(z)
    if planes is None:
        zero = np.zeros(1, np.int64)
        return [Stack(rows[i : i + 1], zero, float(z[i]), None) for i in range(len(rows))]
    spacing = float(z[-1] - z[0]) / float(planes[-1])
    return [Stack(rows, planes, float(z[0]), spacing)]


def _planes(z: NDArray[np.float64]) -> NDArray[np.int64] | None:
    """Plane of each ascending position; None where they lie on no even grid."""
    gaps = np.diff(z)
    if not len(gaps) or gaps.min() <= 0 or (z[-1] - z[0]) / gaps.min() > MAX_PLANES - 1.5:
        return None
    planes = np.concatenate([[0], np.cumsum(np.round(gaps / gaps.min()))])
    spacing = (z[-1] - z[0]) / planes[-1]
    if np.abs((z - z[0]) / spacing - planes).max() > _OFF_GRID:
        return None
    return planes.astype(np.int64)
