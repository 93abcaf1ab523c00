"""How many slices of each value of the balanced factor are asked for: of each group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from downstream.material import Material
from fastgan_aug.balance import share
from fastgan_aug.target import SEPARATOR


def filled_to(counts: Mapping[str, int], ratio: float | None) -> dict[str, int]:
    """Desired count of each group: filled like water, the rarest first.

    One level L with ``sum over groups of max(0, L - n_g) = ratio x sum of n_g``; None is the level
    of the largest group.

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


def group_counts(material: Material) -> dict[str, int]:
    """Present slices of each group, without empty ones."""
    groups = material.group_of_cell[material.cells]
    named = zip(material.groups, np.bincount(groups, minlength=len(material.groups)), strict=True)
    return {name: int(n) for name, n in named if n > 0}


def request_counts(material: Material) -> dict[str, int]:
    """Present counts to be filled up: by the balanced factor's values, without empty ones.

    By cell where a value's name belongs to several factors, since it would be ambiguous.
    """
    owners = [v for f in material.space.factors for v in f.values]
    if all(owners.count(value) == 1 for value in material.groups):
        return group_counts(material)
    cells = [str(c) for c in material.space.cells]
    named = zip(cells, np.bincount(material.cells, minlength=len(cells)), strict=True)
    return {name: int(n) for name, n in named if n > 0}


def request_for(
    material: Material, more: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Present and desired counts that ask for further slices of each group.

    Where cells have to be asked for, a group's slices are shared among its cells as a generator
    shares a value's: in proportion to the training slices.

    Args:
        material: Whose slices are there.
        more: How many of each group, see ``group_counts``.
    """
    present = request_counts(material)
    if present.keys() == more.keys():
        return present, {name: n + more[name] for name, n in present.items()}
    position, desired = material.space.names.index(material.balance), dict(present)
    for value, n in more.items():
        cells = [cell for cell in present if cell.split(SEPARATOR)[position] == value]
        for cell, part in zip(cells, share(n, [present[c] for c in cells]), strict=True):
            desired[cell] += part
    return present, desired
