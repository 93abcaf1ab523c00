"""Slices as an importer gathers them, one by one, until a data set is built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.importing import Item
from fastgan_aug.data.schema import DatasetMeta

Progress = Callable[[int, int], None]  # done, of how many


@dataclass
class Gathered:
    """Rows of a data set to be.

    Attributes:
        size: Rows and columns of each slice.
        factors: Names of the factors.
        eight_bit: How many of the slices came with eight bits.
    """

    size: int
    factors: tuple[str, ...]
    eight_bit: int = 0
    images: list[NDArray[np.float32]] = field(default_factory=list)
    values: list[tuple[str | None, ...]] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)
    z: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    synthetic: list[bool] = field(default_factory=list)

    def add(
        self,
        image: NDArray[np.float32],
        *,
        values: tuple[str | None, ...],
        patient: str,
        scan: str,
        z: float,
        scale: float,
        synthetic: bool = False,
    ) -> None:
        """Adds one slice.

        Args:
            image: (S, S) float32 in [0, 1].
            values: One per factor; all None for a neighbour.
            patient: Pseudonym.
            scan: Pseudonym.
            z: Position, ascending towards the vertex.
            scale: What ``image`` was divided by.
            synthetic: Whether the slice was generated.
        """
        self.images.append(image)
        self.values.append(values)
        self.patients.append(patient)
        self.scans.append(scan)
        self.z.append(z)
        self.scale.append(scale)
        self.synthetic.append(synthetic)

    def dataset(self, meta: DatasetMeta, unit: str = "counts") -> Dataset | None:
        """The data set, or None where no slice has a label.

        Raises:
            DataError: a rule of ``Dataset.build`` is broken.
        """
        if not any(None not in values for values in self.values):
            return None
        return Dataset.build(
            meta,
            images=np.stack(self.images),
            labels={f: [v[i] for v in self.values] for i, f in enumerate(self.factors)},
            patient_id=self.patients,
            scan_id=self.scans,
            z=self.z,
            scale=self.scale,
            unit=unit,
            synthetic=self.synthetic,
        )


def in_order(items: Iterable[Item]) -> list[Item]:
    """Files by number, then lines by number."""

    def place(item: Item) -> tuple[bool, int]:
        kind, _, rest = item.where.partition(" ")
        return kind == "line", int(rest.partition(" ")[0])

    return sorted(items, key=place)


def numbered_files(root: Path) -> list[tuple[int, Path]]:
    """All regular files below ``root``, numbered from 1 in the order of their paths' bytes.

    That is the order of ``find ROOT/ -type f | LC_ALL=C sort``; links are not followed.
    """
    found: list[bytes] = []
    for folder, _, names in os.walk(os.fsencode(root)):
        paths = (os.path.join(folder, name) for name in names)
        found += [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]
    return [(i, Path(os.fsdecode(path))) for i, path in enumerate(sorted(found), 1)]
