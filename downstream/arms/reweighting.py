"""Arms of the real slices alone, in which classes or slices count differently."""

from __future__ import annotations

import numpy as np

from downstream.material import Fit, Material

GAMMA = 2.0
"""Of the focal loss; what Lin et al. found best."""


def real(material: Material, seed: int) -> Fit:
    """The real slices as they are."""
    return Fit.of_real(material)


def class_weights(material: Material, seed: int) -> Fit:
    """The loss weighted by N / (classes present x slices of the class)."""
    counts = material.counts
    present = counts > 0
    weights = len(material.labels) / (present.sum() * np.maximum(counts, 1))
    return Fit.of_real(material, class_weights=np.where(present, weights, 0).astype(np.float32))


def focal(material: Material, seed: int) -> Fit:
    """The focal loss: what is easily recognised counts little (Lin et al. 2017, Eq. 4)."""
    return Fit.of_real(material, focal_gamma=GAMMA)


def oversampling(material: Material, seed: int) -> Fit:
    """Every value of the balanced factor drawn equally often."""
    groups = material.group_of_cell[material.cells]
    chances = 1.0 / np.bincount(groups)[groups]
    return Fit.of_real(material, sampling=np.asarray(chances, np.float64))
