"""Arms of the real slices and of mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from downstream.arms.arm import Prepare
from downstream.material import Fit, Material
from fastgan_aug.errors import DataError
from serving.extras import require

ALPHA = 0.2
"""Of mixup's Beta distribution; within the 0.1 to 0.4 that Zhang et al. recommend."""
NEIGHBOURS = 5
"""Of SMOTE, where the rarest class has so many."""
AROUND = 10
"""Neighbours of any class by which borderline SMOTE tells the border."""


def mixup(material: Material, seed: int) -> Fit:
    """Convex mixtures of two slices and of their labels, Beta(0.2, 0.2) (Zhang et al. 2018)."""
    return Fit.of_real(material, mixup_alpha=ALPHA)


def interpolated(name: Literal["SMOTE", "BorderlineSMOTE"]) -> Prepare:
    """Every class filled up to the largest with mixtures of neighbours of one class.

    SMOTE (Chawla et al. 2002) takes any slice and one of its nearest neighbours, by pixels;
    borderline SMOTE (Han, Wang and Mao 2005) starts from slices with more neighbours of other
    classes than of their own, and adds nothing to a class that has none of these.

    Args:
        name: Of the class in imbalanced-learn.
    """

    def prepare(material: Material, seed: int) -> Fit:
        require("imblearn", "imbalanced")
        sampler = _sampler(name, material, seed)
        flat = material.images.reshape(len(material.images), -1)
        pixels, labels = sampler(flat, material.labels)
        images = np.clip(np.asarray(pixels, np.float32), 0, 1)
        made = np.arange(len(images)) >= len(flat)  # the real ones stand first, as they were
        return Fit(
            images.reshape(-1, *material.images.shape[1:]), np.asarray(labels, np.int64), made
        )

    return prepare


def _sampler(name: str, material: Material, seed: int) -> Callable[..., tuple[object, object]]:
    """Its ``fit_resample``, with as many neighbours as the rarest class allows."""
    from imblearn import over_sampling

    counts = {c: int(n) for c, n in zip(material.classes, material.counts, strict=True) if n}
    rarest = min(counts, key=lambda c: counts[c])
    if counts[rarest] < 2:
        raise DataError(
            f"{name} mixes a slice with another of its class, and {rarest} has 1 slice",
            allowed="two slices or more of every class",
            do="leave this arm out of downstream.arms, or add slices",
        )
    neighbours = {"k_neighbors": min(NEIGHBOURS, counts[rarest] - 1)}
    if name == "BorderlineSMOTE":
        neighbours["m_neighbors"] = min(AROUND, len(material.labels) - 1)
    sampler = getattr(over_sampling, name)(random_state=seed, **neighbours)
    return sampler.fit_resample  # type: ignore[no-any-return]
