"""The arm whose rare classes are filled up with the sides of real slices, by the label rule."""

from __future__ import annotations

import numpy as np

from downstream.arms.sources import half_real, real_and
from downstream.material import Fit, Material
from fastgan_aug.data.augment import joinable_cells
from fastgan_aug.errors import DataError
from fastgan_aug.gan.joined_sides import joined_slices


def joined_sides(material: Material, seed: int) -> Fit:
    """What the label rule can do without a generator: half of what is drawn of a class is joined.

    Raises:
        DataError: there is no such rule for these classes.
    """
    partners = joinable_cells(material.space, material.rules)
    images, cells = joined_slices(
        material.images, material.cells, partners, np.random.default_rng(seed)
    )
    if not len(images):
        raise DataError(
            "no slice can be joined from the sides of two others",
            allowed="augment.sides with a value that has fewer slices than the one it is made of",
            do="leave this arm out of downstream.arms, or correct augment.sides",
        )
    position = material.space.names.index(material.factor)
    labels = [material.classes.index(material.space.cells[k].values[position]) for k in cells]
    more = Fit(images, np.asarray(labels, np.int64), np.ones(len(cells), np.bool_), cells=cells)
    return half_real(real_and(material, more), len(material.classes))
