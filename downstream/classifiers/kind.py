"""What a kind of classifier is: something that is fitted on a ``Fit`` and then predicts."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from downstream.arms.arm import AUGMENTATION, FOCAL, MIXUP, PRETRAINING, WEIGHTS
from downstream.material import Fit
from fastgan_aug.errors import ConfigError
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

    @property
    def cannot(self) -> frozenset[str]:
        """Which ``arms.arm.NEEDS`` it cannot meet: arms with these are not tried with it."""

    @property
    def takes_steps(self) -> bool:
        """Whether a fit lasts as long as ``FitSettings.steps`` say; others pay them no heed."""

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


def asked_by(fit: Fit) -> frozenset[str]:
    """Which ``arms.arm.NEEDS`` a fit has, its pre-training included."""
    asked = {
        FOCAL: bool(fit.focal_gamma),
        MIXUP: bool(fit.mixup_alpha),
        AUGMENTATION: fit.augment is not None,
        PRETRAINING: fit.pretraining is not None,
        WEIGHTS: fit.class_weights is not None or fit.sampling is not None,
    }
    before = asked_by(fit.pretraining) if fit.pretraining is not None else frozenset()
    return before | {need for need, is_asked in asked.items() if is_asked}


def check_takes(kind: Kind, fit: Fit) -> None:
    """Refuses a fit that the kind would only pretend to do.

    Raises:
        ConfigError: ``fit`` asks for something that the kind cannot.
    """
    if missing := sorted(kind.cannot & asked_by(fit)):
        raise ConfigError(
            f"the classifier {kind.name!r} takes no {', '.join(missing)}",
            allowed="a network: small-cnn, residual, or a torch module of yours",
            do="leave that arm or that classifier out",
        )
