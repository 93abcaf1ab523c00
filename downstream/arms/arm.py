"""What an arm is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from downstream.material import Fit, Material

FOCAL, MIXUP, AUGMENTATION, PRETRAINING = "focal loss", "mixup", "augmentation", "pre-training"
WEIGHTS = "weights of slices (sample_weight)"
NEEDS = frozenset({FOCAL, MIXUP, AUGMENTATION, PRETRAINING, WEIGHTS})
"""What an arm may need of a classifier, beyond slices and labels."""
Prepare = Callable[[Material, int], Fit]
"""(material, seed) to what is fitted."""


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: As written in the report.
        prepare: (material, seed) to what is fitted.
        source: Where its further slices come from.
        ratio: Of further to real slices, as text; None where it has none.
        filtered: Whether its further slices pass the version's filter.
        needs: Which ``NEEDS`` it has of a classifier.
    """

    name: str
    prepare: Prepare = field(repr=False)
    source: Literal["real", "synthetic", "oracle"] = "real"
    ratio: str | None = None
    filtered: bool = False
    needs: frozenset[str] = frozenset()

    @property
    def augmented(self) -> bool:
        """Whether the classical augmentation is applied too."""
        return AUGMENTATION in self.needs
