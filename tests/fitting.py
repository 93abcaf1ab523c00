"""What the tests of classifiers are fitted on."""

from __future__ import annotations

import numpy as np

from downstream.material import Fit
from fastgan_aug.quality.likeness.classifier import FitSettings

QUICK = FitSettings(steps=30, batch=16, width=4)


def bright_or_dark(seed: int, n: int = 60, size: int = 16) -> Fit:
    """Slices with a bright block on the left (0) or in the middle (1), noise elsewhere."""
    random = np.random.default_rng(seed)
    images = 0.3 * random.random((n, size, size), np.float32)
    labels = random.integers(0, 2, n)
    for image, label in zip(images, labels, strict=True):
        start = label * size // 2
        image[size // 4 : size // 2, start : start + size // 4] += 0.6
    return Fit(images, labels, np.zeros(n, np.bool_))
