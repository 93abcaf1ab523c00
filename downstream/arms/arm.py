"""What an arm is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from downstream.material import Fit, Material

Prepare = Callable[[Material, int], Fit]
"""(material, seed) to what is fitted."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: As written in the report.
        prepare: (material, seed) to what is fitted.
        source: Where its further slices come from.
        ratio: Of synthetic to real slices, as text; None where it has none.
        augmented: Whether the classical augmentation is applied too.
        filtered: Whether its further slices pass the version's filter.
        pretrained: Whether it is fitted on synthetic slices first.
    """

    name: str
    prepare: Prepare = field(repr=False)
    source: Literal["real", "synthetic", "oracle"] = "real"
    ratio: str | None = None
    augmented: bool = False
    filtered: bool = False
    pretrained: bool = False
