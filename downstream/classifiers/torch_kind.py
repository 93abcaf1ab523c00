"""Classifiers that are torch modules: all fitted by the same optimiser, steps and batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from downstream.material import Fit
from fastgan_aug.quality.likeness.classifier import FitSettings, fit_network, in_chunks

Make = Callable[[NDArray[np.float32], int, FitSettings], nn.Module]
"""(images (N, S, S) in [0, 1], classes, settings) to a new module: (B, 1, S, S) to logits (B, C).

Its weights are drawn from torch's global stream."""


@dataclass(frozen=True)
class FittedNetwork:
    """A fitted module.

    Attributes:
        network: In evaluation mode.
        size: Rows and columns of the slices it was fitted on.
    """

    network: nn.Module
    size: int

    def predict_proba(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``Fitted``.

        Raises:
            DataError: images of another shape.
        """
        return in_chunks(lambda x: self.network(x).softmax(dim=1), images, self.size)


@dataclass(frozen=True)
class TorchKind:
    """A torch module, fitted by ``fit_network``.

    Attributes:
        name: As written in the report.
        make: Makes a new one.
        cannot: Nothing.
        takes_steps: It does.
    """

    name: str
    make: Make = field(repr=False)
    cannot: frozenset[str] = frozenset()
    takes_steps: bool = True

    def fit(self, fit: Fit, n_classes: int, settings: FitSettings, seed: int) -> FittedNetwork:
        """See ``Kind``; after a pre-training the same weights go on, with a new schedule."""
        network: nn.Module | None = None
        for phase, steps in fit.phases(settings.steps):
            network = fit_network(
                self.make if network is None else _same(network),
                phase.images,
                phase.labels,
                n_classes,
                replace(settings, steps=steps),
                seed=seed,
                class_weights=phase.class_weights,
                augment=phase.augment,
                sampling=phase.sampling,
                focal_gamma=phase.focal_gamma,
                mixup_alpha=phase.mixup_alpha,
            )
        assert network is not None, "a fit has one phase or more"
        return FittedNetwork(network, fit.images.shape[1])


def _same(network: nn.Module) -> Make:
    return lambda images, n_classes, settings: network
