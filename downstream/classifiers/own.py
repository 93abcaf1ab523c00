"""A user's own classifier, named by its import path: a torch module or a scikit-learn estimator."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from downstream.arms.arm import NEEDS, WEIGHTS
from downstream.classifiers.boosting import slice_weights
from downstream.classifiers.kind import Kind, check_takes
from downstream.classifiers.torch_kind import Make, TorchKind
from downstream.material import Fit
from fastgan_aug.errors import ConfigError, FastGANAugError
from fastgan_aug.quality.likeness.classifier import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable

CONTRACT = (
    "package.module:Name of a torch.nn.Module, made by Name(n_classes=C, size=S), that takes "
    "(B, 1, S, S) in [0, 1] to (B, C) logits; or of a scikit-learn classifier, made by Name(), "
    "that is fitted on (N, S * S) pixels and has predict_proba"
)


def own_kind(path: str) -> Kind:
    """The kind that an import path names.

    Args:
        path: ``package.module:Name``.

    Raises:
        ConfigError: nothing stands there, or it is neither module nor estimator.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"the classifier {path!r} cannot be imported: {error}", allowed=CONTRACT,
            do="correct the path, or put the module's folder on PYTHONPATH",
        ) from error  # fmt: skip
    if inspect.isclass(found) and issubclass(found, nn.Module):
        return TorchKind(path, _module_maker(path, found))
    if inspect.isclass(found) and all(hasattr(found, m) for m in ("fit", "predict_proba")):
        return Estimator(path, found, NEEDS - ({WEIGHTS} if _takes_weights(found) else set()))
    raise ConfigError(
        f"the classifier {path!r} is neither a torch module nor a scikit-learn classifier",
        allowed=CONTRACT, do="name a class of one of the two",
    )  # fmt: skip


def _takes_weights(found: type) -> bool:
    from sklearn.utils.validation import has_fit_parameter

    return bool(has_fit_parameter(found, "sample_weight"))


def _module_maker(path: str, found: Callable[..., nn.Module]) -> Make:
    def make(images: NDArray[np.float32], n_classes: int, settings: FitSettings) -> nn.Module:
        try:
            network = found(n_classes=n_classes, size=images.shape[1])
            with torch.no_grad():
                shape = network(torch.zeros(2, 1, *images.shape[1:])).shape
        except Exception as error:  # whatever a user's own code raises
            raise ConfigError(
                f"the classifier {path!r} cannot be used: {error}", allowed=CONTRACT,
                do="try it on a batch of your own first",
            ) from error  # fmt: skip
        if shape != (2, n_classes):
            raise ConfigError(
                f"the classifier {path!r} makes {tuple(shape)} of two slices of {n_classes} "
                "classes", allowed=CONTRACT, do="let it return logits",
            )  # fmt: skip
        return network

    return make


@dataclass(frozen=True)
class Estimator:
    """A scikit-learn classifier on pixels.

    Attributes:
        name: Its import path.
        make: Makes a new one; ``random_state`` is set where it has one.
        cannot: It is fitted on all slices at once, and takes nothing but these, their labels and,
            where its ``fit`` has a ``sample_weight``, their weights.
    """

    name: str
    make: Callable[[], Any] = field(repr=False)
    cannot: frozenset[str]
    takes_steps: bool = False

    def fit(self, fit: Fit, n_classes: int, settings: FitSettings, seed: int) -> FittedEstimator:
        """See ``Kind``; sampling and class weights become weights of slices.

        Raises:
            ConfigError: the arm needs one of ``cannot``, or the estimator fails.
        """
        check_takes(self, fit)
        weighted = fit.sampling is not None or fit.class_weights is not None
        more = {"sample_weight": slice_weights(fit)} if weighted else {}
        try:
            estimator = self.make()
            if "random_state" in estimator.get_params():
                estimator.set_params(random_state=seed)
            estimator.fit(_flat(fit.images), fit.labels, **more)
        except FastGANAugError:
            raise
        except Exception as error:  # whatever a user's own code raises
            raise ConfigError(
                f"the classifier {self.name!r} cannot be fitted: {error}", allowed=CONTRACT,
                do="try it on an array of your own first",
            ) from error  # fmt: skip
        return FittedEstimator(self.name, estimator, n_classes)


@dataclass(frozen=True)
class FittedEstimator:
    """A fitted one.

    Attributes:
        name: Its import path.
        estimator: With ``classes_`` and ``predict_proba``.
        n_classes: C; classes without a slice have no chance.
    """

    name: str
    estimator: Any
    n_classes: int

    def predict_proba(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``Fitted``.

        Raises:
            ConfigError: the estimator fails.
        """
        found = np.zeros((len(images), self.n_classes), np.float32)
        try:
            found[:, self.estimator.classes_] = self.estimator.predict_proba(_flat(images))
        except Exception as error:  # a class may have what its instances lack: sklearn.svm:SVC
            raise ConfigError(
                f"the classifier {self.name!r} gives no probabilities: {error}", allowed=CONTRACT,
                do="name another, or wrap it in a class of yours, in a CalibratedClassifierCV say",
            ) from error  # fmt: skip
        return found


def _flat(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1)
