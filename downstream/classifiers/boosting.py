"""Gradient boosting on features that nobody learnt: a plain baseline without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from downstream.arms.arm import FOCAL, PRETRAINING
from downstream.classifiers.handcrafted import handcrafted
from downstream.classifiers.kind import check_takes
from downstream.material import Fit
from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import FitSettings

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

ROUNDS = 100
"""Trees of each class."""
COPIES = 4
"""Of each slice, changed anew, where an arm augments: trees see no batches."""


@dataclass(frozen=True)
class FittedBoosting:
    """Fitted trees.

    Attributes:
        trees: On handcrafted features.
        n_classes: C; classes without a slice have no chance.
    """

    trees: HistGradientBoostingClassifier
    n_classes: int

    def predict_proba(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``Fitted``."""
        found = np.zeros((len(images), self.n_classes), np.float32)
        found[:, self.trees.classes_] = self.trees.predict_proba(handcrafted(images))
        return found


@dataclass(frozen=True)
class Boosting:
    """Histogram gradient boosting (Ke et al. 2017) of depth-limited trees.

    What an arm changes in batches is done beforehand: slices are copied ``COPIES`` times where it
    augments or mixes, sampling and class weights become weights of slices, and a mixture counts for
    both its labels by their shares (the same expected loss). There is no pre-training: trees that
    go on with other slices would take the bins of these for their own.
    """

    name: str = "boosting"
    cannot: frozenset[str] = frozenset({FOCAL, PRETRAINING})
    takes_steps: bool = False

    def fit(self, fit: Fit, n_classes: int, settings: FitSettings, seed: int) -> FittedBoosting:
        """See ``Kind``; steps, batch, learning rate and width of ``settings`` are the networks'."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        check_takes(self, fit)
        if len(np.unique(fit.labels)) < 2:
            raise DataError("the slices are of fewer than two classes", allowed="two or more")
        trees = HistGradientBoostingClassifier(
            max_leaf_nodes=15, min_samples_leaf=5, l2_regularization=1.0, early_stopping=False,
            random_state=seed, max_iter=ROUNDS,
        )  # fmt: skip
        features, labels, weights = tabulated(fit, seed)
        trees.fit(features, labels, sample_weight=weights)
        return FittedBoosting(trees, n_classes)


def tabulated(
    fit: Fit, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Features, labels and weights of what is fitted on.

    Returns:
        (M, F) float64, (M,) classes, (M,) weights with a mean of 1.
    """
    weights = slice_weights(fit)
    if fit.augment is None and not fit.mixup_alpha:
        return handcrafted(fit.images), fit.labels, weights
    random, draws = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    images, labels, heavy = [], [], []
    rows = torch.arange(len(fit.labels))
    pixels = torch.from_numpy(np.ascontiguousarray(fit.images))[:, None]
    for _ in range(COPIES):
        taken = pixels if fit.augment is None else fit.augment(pixels, rows, random)
        copy, share = taken[:, 0].numpy(), np.ones(len(rows))
        other = draws.permutation(len(rows))
        if fit.mixup_alpha:
            share = draws.beta(fit.mixup_alpha, fit.mixup_alpha, len(rows))
            part = share[:, None, None].astype(np.float32)
            copy = part * copy + (1 - part) * copy[other]
            images.append(handcrafted(copy))
            labels.append(fit.labels[other])
            heavy.append((1 - share) * weights[other])
        images.append(handcrafted(copy))
        labels.append(fit.labels)
        heavy.append(share * weights)
    found = np.concatenate(heavy)
    return np.concatenate(images), np.concatenate(labels), found / found.mean()


def slice_weights(fit: Fit) -> NDArray[np.float64]:
    """(N,) how much each slice counts, mean 1: chance of being drawn times weight of its class."""
    found = np.ones(len(fit.labels)) if fit.sampling is None else fit.sampling.astype(np.float64)
    if fit.class_weights is not None:
        found = found * fit.class_weights[fit.labels]
    return np.asarray(found / found.mean())
