"""What an arm is prepared from, and what it prepares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import ConfigError, DataError
from fastgan_aug.quality.likeness.classifier import Augment
from fastgan_aug.quality.likeness.faithfulness import class_labels

PRETRAINING_SHARE = 0.5
"""Of the optimiser steps, which an arm that is pre-trained takes on synthetic slices."""


class SyntheticBatch(Protocol):
    """What a source of synthetic slices gives; ``serving.client``'s ``BalancedBatch`` is one."""

    @property
    def images(self) -> NDArray[np.float32]:
        """(N, S, S) float32 in [0, 1]."""

    @property
    def cells(self) -> Sequence[str]:
        """(N,) the cell of each image."""


SyntheticSource = Callable[[Mapping[str, int], Mapping[str, int], int], SyntheticBatch]
"""(present count per value of the balanced factor, or per cell; desired count of each, real and
synthetic together; seed) to what is added."""


@dataclass(frozen=True)
class Material:
    """The real training slices and the source of synthetic ones.

    Attributes:
        images: (N, S, S) float32 in [0, 1].
        labels: (N,) position of each slice's value in ``classes``.
        cells: (N,) position of each slice's cell in ``space.cells``.
        classes: Values of the predicted factor.
        factor: Its name.
        balance: Name of the factor whose values are brought to equal counts; often the same.
        space: Factors and cells.
        rules: Shift and flip rule of the classical augmentation.
        synthetic: Source of synthetic slices.
        filtered: The same through the version's filter; None where it has none.
        oracle: Fresh real slices of other patients instead; None where there are none.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    cells: NDArray[np.int64]
    classes: tuple[str, ...]
    factor: str
    balance: str
    space: ConditionSpace
    rules: AugmentConfig
    synthetic: SyntheticSource
    filtered: SyntheticSource | None = None
    oracle: SyntheticSource | None = None

    @classmethod
    def of(
        cls,
        train: Dataset,
        factor: str,
        rules: AugmentConfig,
        synthetic: SyntheticSource,
        filtered: SyntheticSource | None = None,
        oracle: SyntheticSource | None = None,
        balance: str | None = None,
    ) -> Material:
        """The labelled slices of ``train``.

        Args:
            train: The training part.
            factor: To predict.
            rules: Shift and flip rule of the classical augmentation.
            synthetic: Source of synthetic slices.
            filtered: See the attribute.
            oracle: See the attribute.
            balance: See the attribute; None is the predicted factor.

        Raises:
            ConfigError: there is no factor to balance by that name.
            DataError: they are of fewer than two classes.
        """
        if balance is not None and balance not in train.meta.space.names:
            raise ConfigError(
                f"downstream.balance is {balance!r}, which is no factor of the data",
                allowed=", ".join(train.meta.space.names),
                do="correct the configuration",
            )
        rows = train.labelled
        labels = class_labels(train, factor)
        if len(np.unique(labels)) < 2:
            raise DataError(
                f"the training data have fewer than two values of {factor!r}",
                allowed="two classes or more",
                do="predict another factor, or add slices",
            )
        cells, space = train.cell_index[rows], train.meta.space
        values = space.factor(factor).values
        images = train.images[rows]
        return cls(
            images, labels, cells, values, factor, balance or factor, space, rules, synthetic,
            filtered, oracle,
        )  # fmt: skip

    @property
    def counts(self) -> NDArray[np.int64]:
        """(classes,) slices of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @property
    def groups(self) -> tuple[str, ...]:
        """Values of the balanced factor."""
        return self.space.factor(self.balance).values

    @property
    def group_of_cell(self) -> NDArray[np.int64]:
        """(cells,) position of each cell's value in ``groups``."""
        position = self.space.names.index(self.balance)
        found = [self.groups.index(cell.values[position]) for cell in self.space.cells]
        return np.asarray(found, np.int64)


@dataclass(frozen=True)
class Fit:
    """What one fit of a classifier takes, beside steps and learning rate.

    Attributes:
        images: (N, S, S) float32 in [0, 1].
        labels: (N,) classes.
        synthetic: (N,) whether a slice is none of the real training slices: from a source, or
            interpolated.
        class_weights: (classes,) weights in the loss.
        sampling: (N,) probabilities of being drawn.
        augment: Applied to each batch.
        focal_gamma: Of the focal loss; 0 is cross-entropy.
        mixup_alpha: Of the Beta distribution of mixtures; 0 mixes nothing.
        pretraining: What the first ``PRETRAINING_SHARE`` of the steps is fitted on, None for
            nothing.
        cells: (N,) position of each slice's cell; None where a slice has none.
        missing: Slices that a source was asked for and did not give.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    synthetic: NDArray[np.bool_]
    class_weights: NDArray[np.float32] | None = None
    sampling: NDArray[np.float64] | None = None
    augment: Augment | None = None
    focal_gamma: float = 0.0
    mixup_alpha: float = 0.0
    pretraining: Fit | None = None
    cells: NDArray[np.int64] | None = None
    missing: int = 0

    @classmethod
    def of_real(
        cls,
        material: Material,
        *,
        class_weights: NDArray[np.float32] | None = None,
        sampling: NDArray[np.float64] | None = None,
        focal_gamma: float = 0.0,
        mixup_alpha: float = 0.0,
    ) -> Fit:
        """Of the real slices alone."""
        none = np.zeros(len(material.labels), np.bool_)
        return cls(
            material.images, material.labels, none, class_weights, sampling,
            focal_gamma=focal_gamma, mixup_alpha=mixup_alpha, cells=material.cells,
        )  # fmt: skip

    @property
    def n_real(self) -> int:
        """Real training slices among all."""
        before = self.pretraining.n_real if self.pretraining else 0
        return int((~self.synthetic).sum()) + before

    @property
    def n_synthetic(self) -> int:
        """Other slices among all, those of the pre-training included."""
        before = self.pretraining.n_synthetic if self.pretraining else 0
        return int(self.synthetic.sum()) + before

    @property
    def n_missing(self) -> int:
        """``missing``, that of the pre-training included."""
        return self.missing + (self.pretraining.n_missing if self.pretraining else 0)

    def phases(self, steps: int) -> list[tuple[Fit, int]]:
        """What is fitted one after the other, and for how many steps.

        Args:
            steps: In all; their sum is always this, whatever is fitted.
        """
        if self.pretraining is None:
            return [(self, steps)]
        first = int(PRETRAINING_SHARE * steps)
        before = self.pretraining.phases(first) if first else []
        return [*before, (self, steps - first)]
