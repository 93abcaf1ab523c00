"""The arm whose affected classes are filled up with moved defects of real slices, by the rule."""

from __future__ import annotations

import numpy as np

from downstream.arms.sources import in_equal_shares
from downstream.material import Fit, Material
from fastgan_aug.data.augment import affected_cells
from fastgan_aug.errors import DataError
from fastgan_aug.gan.moved_defects import moved_slices


def moved_defects(material: Material, seed: int) -> Fit:
    """What the label rule can do without a generator: half of what is drawn of a group is made so.

    Raises:
        DataError: there is no such rule for these classes.
    """
    groups = affected_cells(material.space, material.rules)
    images, cells = moved_slices(
        material.images, material.cells, groups, np.random.default_rng(seed)
    )
    if not len(images):
        raise DataError(
            "no defect can be moved from one slice to another",
            allowed="augment.sides with values that have fewer slices than the healthy one",
            do="leave this arm out of downstream.arms, or correct augment.sides",
        )
    position = material.space.names.index(material.factor)
    labels = [material.classes.index(material.space.cells[k].values[position]) for k in cells]
    more = Fit(images, np.asarray(labels, np.int64), np.ones(len(cells), np.bool_), cells=cells)
    return in_equal_shares(material, Fit.of_real(material), more)
