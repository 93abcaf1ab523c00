"""Which arms there are: a new one is a function and a line here."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence

from downstream.arms.arm import Arm
from downstream.arms.augmentation import augmented
from downstream.arms.mixing import interpolated, mixup
from downstream.arms.reweighting import class_weights, focal, oversampling, real
from downstream.arms.sources import Origin, added, alone, first
from fastgan_aug.errors import ConfigError

log = logging.getLogger(__name__)

RATIOS = {"0.25": 0.25, "0.5": 0.5, "1": 1.0, "fill": None}
"""Synthetic to real slices in all; `fill` brings every class up to the largest."""
ORIGINS: dict[str, Origin] = {
    "real + synthetic": "synthetic",
    "real + filtered synthetic": "filtered",
    "oracle": "oracle",
}


def with_source(name: str, ratio: str, both: bool) -> Arm:
    """An arm with slices of a source.

    Args:
        name: One of ``ORIGINS``.
        ratio: One of ``RATIOS``; `fill` is not written.
        both: With classical augmentation too.
    """
    origin, prepare = ORIGINS[name], added(ORIGINS[name], RATIOS[ratio])
    words = name if ratio == "fill" else f"{name} {ratio}"
    return Arm(
        f"{words} + classical augmentation" if both else words,
        augmented(prepare) if both else prepare,
        "oracle" if origin == "oracle" else "synthetic",
        ratio,
        augmented=both,
        filtered=origin == "filtered",
    )


ARMS = (
    Arm("real", real),
    Arm("class weights", class_weights),
    Arm("oversampling + classical augmentation", augmented(oversampling), augmented=True),
    with_source("real + synthetic", "fill", both=False),
)
"""What is compared unless `downstream.arms` names others."""
FURTHER_ARMS = (
    Arm("focal loss", focal),
    Arm("oversampling", oversampling),
    Arm("classical augmentation", augmented(real), augmented=True),
    Arm("mixup", mixup),
    Arm("SMOTE", interpolated("SMOTE")),
    Arm("borderline SMOTE", interpolated("BorderlineSMOTE")),
    *(
        with_source(name, ratio, both)
        for name, both, ratio in itertools.product(ORIGINS, (False, True), RATIOS)
        if (name, ratio, both) != ("real + synthetic", "fill", False)
    ),
    Arm("synthetic, then real", first, "synthetic", pretrained=True),
    Arm("synthetic alone", alone, "synthetic"),
)
"""What else `downstream.arms` may name."""


def arms_named(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of these names, ``ARMS`` where there are none.

    Raises:
        ConfigError: an unknown name, one that stands there twice, or no arm without synthetic
            slices to compare with.
    """
    known = {arm.name: arm for arm in (*ARMS, *FURTHER_ARMS)}
    unknown = sorted(set(names) - set(known))
    if unknown or len(set(names)) < len(names):
        raise ConfigError(
            f"downstream.arms names {unknown or 'an arm twice'}",
            allowed=", ".join(known), do="correct the configuration",
        )  # fmt: skip
    chosen = tuple(known[name] for name in names) or ARMS
    if all(arm.source != "real" for arm in chosen):
        raise ConfigError(
            "downstream.arms has no arm without synthetic slices",
            allowed="one or more, which the others are compared with",
            do='add "real" or "oversampling + classical augmentation"',
        )
    return chosen


def available(arms: Iterable[Arm], *, filtered: bool, oracle: bool) -> tuple[Arm, ...]:
    """The arms whose slices there are; the others are left out, and the log says which.

    Args:
        arms: What is asked for.
        filtered: Whether there is a filtered source.
        oracle: Whether there is an oracle.
    """
    asked = tuple(arms)
    kept = tuple(
        arm
        for arm in asked
        if (filtered or not arm.filtered) and (oracle or arm.source != "oracle")
    )
    if left := [arm.name for arm in asked if arm not in kept]:
        log.warning("left out, since there is no filter or no oracle: %s", ", ".join(left))
    return kept
