"""Which classifiers there are, by name."""

from __future__ import annotations

from collections.abc import Sequence

from downstream.classifiers.boosting import Boosting
from downstream.classifiers.kind import Kind
from downstream.classifiers.own import CONTRACT, own_kind
from downstream.classifiers.residual import residual_net
from downstream.classifiers.torch_kind import TorchKind
from fastgan_aug.errors import ConfigError
from fastgan_aug.quality.likeness.classifier import small_cnn

SMALL_CNN = "small-cnn"
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (TorchKind(SMALL_CNN, small_cnn), TorchKind("residual", residual_net), Boosting())
}
"""The built-in ones."""


def classifier_named(name: str) -> Kind:
    """A built-in classifier, or one's own by its import path.

    Args:
        name: One of ``KINDS``, or ``package.module:Name``.

    Raises:
        ConfigError: there is none such.
    """
    if name in KINDS:
        return KINDS[name]
    if ":" in name:
        return own_kind(name)
    raise ConfigError(
        f"downstream.classifiers names {name!r}", allowed=f"{', '.join(KINDS)}; or {CONTRACT}",
        do="correct the configuration",
    )  # fmt: skip


def check_classifiers(names: Sequence[str]) -> None:
    """Verifies that all are known, and none stands there twice.

    Raises:
        ConfigError: otherwise.
    """
    if len(set(names)) < len(names):
        raise ConfigError(
            "downstream.classifiers names a classifier twice", allowed="each once",
            do="correct the configuration",
        )  # fmt: skip
    for name in names:
        classifier_named(name)
