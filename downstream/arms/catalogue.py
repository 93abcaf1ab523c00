"""Which arms there are: a new one is a function and a line here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from downstream.arms.arm import AUGMENTATION, FOCAL, MIXUP, PRETRAINING, WEIGHTS, Arm
from downstream.arms.augmentation import augmented
from downstream.arms.mixing import interpolated, mixup
from downstream.arms.moving import moved_defects
from downstream.arms.reweighting import class_weights, focal, oversampling, real
from downstream.arms.sources import Origin, added, alone, everywhere, first, halved
from fastgan_aug.errors import ConfigError

RATIOS = {"0.25": 0.25, "0.5": 0.5, "1": 1.0, "fill": None}
"""Synthetic to real slices in all; `fill` brings every class up to the largest."""
EVERY_CLASS = "half of every class"
AUGMENTS, WEIGHS = frozenset({AUGMENTATION}), frozenset({WEIGHTS})
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
        filtered=origin == "filtered",
        needs=AUGMENTS if both else frozenset(),
    )


ARMS = (
    Arm("real", real),
    Arm("class weights", class_weights, needs=WEIGHS),
    # Scarce classes need the first of these two, others do better by the second (docs/proof.md).
    Arm("oversampling + classical augmentation", augmented(oversampling), needs=AUGMENTS | WEIGHS),
    Arm("classical augmentation", augmented(real), needs=AUGMENTS),
    with_source("real + synthetic", "fill", both=False),
    Arm("half synthetic in every class + classical augmentation",
        augmented(everywhere("synthetic")), "synthetic", EVERY_CLASS, needs=AUGMENTS | WEIGHS),
)  # fmt: skip
"""What is compared unless `downstream.arms` names others."""
FURTHER_ARMS = (
    Arm("focal loss", focal, needs=frozenset({FOCAL})),
    Arm("oversampling", oversampling, needs=WEIGHS),
    Arm("mixup", mixup, needs=frozenset({MIXUP})),
    Arm("moved defects", moved_defects, needs=WEIGHS),
    Arm("moved defects + classical augmentation", augmented(moved_defects),
        needs=AUGMENTS | WEIGHS),
    Arm("SMOTE", interpolated("SMOTE")),
    Arm("borderline SMOTE", interpolated("BorderlineSMOTE")),
    *(
        with_source(name, ratio, both)
        for name, both, ratio in itertools.product(ORIGINS, (False, True), RATIOS)
        if (name, ratio, both) != ("real + synthetic", "fill", False)
    ),
    Arm("half real, half synthetic + classical augmentation", augmented(halved("synthetic")),
        "synthetic", "fill", needs=AUGMENTS | WEIGHS),
    Arm("moved defects, half synthetic in every class + classical augmentation",
        augmented(everywhere("synthetic", moved_defects)), "synthetic", EVERY_CLASS,
        needs=AUGMENTS | WEIGHS),
    Arm("half oracle in every class + classical augmentation", augmented(everywhere("oracle")),
        "oracle", EVERY_CLASS, needs=AUGMENTS | WEIGHS),
    Arm("synthetic, then real", first(alone, real), "synthetic", needs=frozenset({PRETRAINING})),
    Arm("synthetic, then real + classical augmentation",
        first(augmented(alone), augmented(oversampling)), "synthetic",
        needs=AUGMENTS | WEIGHS | {PRETRAINING}),
    Arm("synthetic alone", alone, "synthetic"),
)  # fmt: skip
"""What else `downstream.arms` may name."""


KNOWN = {arm.name: arm for arm in (*ARMS, *FURTHER_ARMS)}


def arms_named(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of these names, ``ARMS`` where there are none.

    Raises:
        ConfigError: an unknown name, one that stands there twice, or no arm without synthetic
            slices to compare with.
    """
    unknown = sorted(set(names) - set(KNOWN))
    if unknown or len(set(names)) < len(names):
        raise ConfigError(
            f"downstream.arms names {unknown or 'an arm twice'}",
            allowed=", ".join(KNOWN), do="correct the configuration",
        )  # fmt: skip
    chosen = tuple(KNOWN[name] for name in names) or ARMS
    if all(arm.source != "real" for arm in chosen):
        raise ConfigError(
            "downstream.arms has no arm without synthetic slices",
            allowed="one or more, which the others are compared with",
            do='add "real" or "oversampling + classical augmentation"',
        )
    return chosen
