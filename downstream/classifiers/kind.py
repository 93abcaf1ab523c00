"""What a kind of classifier is: something that is fitted on a ``Fit`` and then predicts."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from downstream.material import Fit
from fastgan_aug.quality.likeness.classifier import FitSettings


class Fitted(Protocol):
    """A classifier after its fit."""

    def predict_proba(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, S, S) float32 in [0, 1] to (N, C) float32 probabilities, rows sum to 1."""


class Kind(Protocol):
    """A kind of classifier; every arm is fitted by the same."""

    @property
    def name(self) -> str:
        """As written in the report."""

    def fit(self, fit: Fit, n_classes: int, settings: FitSettings, seed: int) -> Fitted:
        """A new classifier, fitted; the same arguments give the same predictions.

        Args:
            fit: The slices, and how they are drawn, weighted and changed.
            n_classes: C; a class may have no slice.
            settings: Their ``steps`` are taken in all, pre-training included, by every arm.
            seed: Of everything that is drawn.

        Raises:
            DataError: slices or labels that cannot be fitted.
            ConfigError: a user's own classifier does not keep to what is asked of it.
        """
