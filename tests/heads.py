"""Drawn heads with one-sided lesions: enough for the laws of the endpoints, at any number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LEFT, EITHER = "left", "either"


def heads(
    n: int,
    seed: int,
    *,
    size: int = 32,
    side: str = EITHER,
    lesion: float = 1.0,
    patients: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """(n, size, size) slices with maximum 1; column 0 is the patient's right.

    Args:
        n: Slices.
        seed: Of everything.
        size: Rows and columns.
        side: Whose side is lesioned: ``left``, or ``either`` by chance.
        lesion: Multiplies the depth of the lesions, which is 0 to 0.6.
        patients: (n,) whose slices they are: those of one have the same shape and lesion.
    """
    random = np.random.default_rng(seed)
    owner = np.arange(n) if patients is None else patients
    people = int(owner.max()) + 1 if n else 0
    place = (size - 1) / 2 + random.normal(0, 0.02 * size, (people, 2))
    radius = size * random.normal((0.36, 0.28), 0.012, (people, 2))
    depth = lesion * random.uniform(0, 0.6, people)
    sides = np.where(random.random(people) < 0.5, -1.0, 1.0) if side == EITHER else np.ones(people)
    height = random.uniform(-0.3, 0.3, people)
    rim, core = random.normal(0.9, 0.04, people), random.normal(0.45, 0.04, people)
    each = [v[owner][:, None, None] for v in (depth, sides, height, rim, core)]
    y, x = np.mgrid[:size, :size]
    v = (y - place[owner, 0][:, None, None]) / radius[owner, 0][:, None, None]
    u = (x - place[owner, 1][:, None, None]) / radius[owner, 1][:, None, None]
    far = np.hypot(u, v)
    picture = np.where(far < 0.55, each[4], each[3]) * (far < 1)
    loss = each[0] * np.exp(-((u - 0.6 * each[1]) ** 2 + (v - each[2]) ** 2) / 0.15)
    picture = ndimage.gaussian_filter(picture * (1 - loss), (0, 0.8, 0.8))
    noise = ndimage.gaussian_filter(random.normal(0, 0.1, picture.shape), (0, 1.2, 1.2))
    picture = np.clip(picture * (1 + noise), 0, None)
    return (picture / picture.max(axis=(1, 2), keepdims=True)).astype(np.float32)
