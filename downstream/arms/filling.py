"""How many slices of each class are asked for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from downstream.material import Material


def filled_to(counts: Mapping[str, int], ratio: float | None) -> dict[str, int]:
    """Desired count of each class: filled like water, the rarest first.

    One level L with ``sum over classes of max(0, L - n_c) = ratio x sum of n_c``; None is the level
    of the largest class.

    Args:
        counts: Present ones.
        ratio: Added over present slices in all; None fills all to the largest count.

    Returns:
        As many of each as of any other, but for those that had more and, by one, the last.
    """
    if ratio is None:
        return dict.fromkeys(counts, max(counts.values()))
    wanted, left = dict(counts), round(ratio * sum(counts.values()))
    while left > 0:
        least = min(wanted.values())
        lowest = [name for name, n in wanted.items() if n == least]
        above = min((n for n in wanted.values() if n > least), default=least + left)
        step = min(max(left // len(lowest), 1), above - least)
        for name in lowest[: left // step]:
            wanted[name] += step
            left -= step
    return wanted


def request_counts(material: Material) -> dict[str, int]:
    """Present counts to be filled up: by the predicted factor's values, without empty ones.

    By cell where a value's name belongs to several factors, since it would be ambiguous.
    """
    owners = [v for f in material.space.factors for v in f.values]
    if all(owners.count(value) == 1 for value in material.classes):
        named = zip(material.classes, material.counts, strict=True)
    else:
        cells = [str(c) for c in material.space.cells]
        named = zip(cells, np.bincount(material.cells, minlength=len(cells)), strict=True)
    return {name: int(n) for name, n in named if n > 0}
