"""The paper's augmentation: draw parameters, then apply them deterministically."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgan_aug.conditions import ConditionSpace, Factor
from fastgan_aug.errors import UnknownFactorValue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SideRule:
    """Values of a factor by how many sides of a slice are affected.

    It says that a defect of one side may be put on any head of the same level, and that two of
    them make a slice of `both`.

    Attributes:
        none: No side.
        one: One of the two.
        both: Both.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    none: str
    one: str
    both: str


@dataclass(frozen=True)
class SideCells:
    """Positions of the cells that differ in such a value alone."""

    none: int
    one: int
    both: int


@dataclass(frozen=True)
class AugmentConfig:
    """What is drawn for each real slice.

    Attributes:
        neighbour_mean: Eq. 6, a weighted mean with a craniocaudal neighbour, w ~ U(0, 1).
        shift: Largest front-to-back shift, pixels; 0 turns it off.
        flip: Left-right flips with probability 1/2, by the label rule: the values of each factor
            named here under which a mirrored slice keeps its label. Empty: never.
        sides: A label rule too: for a factor, which of its values say that no side of a slice is
            affected, one, or both. Slices of the affected cells are then also made of heads and
            defects of others (`gan.moved_defects`). Empty: never.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    neighbour_mean: bool = True
    shift: int = 2
    flip: Mapping[str, list[str]] = field(default_factory=dict)
    sides: Mapping[str, SideRule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift is {self.shift}; allowed: 0 or more pixels")


@dataclass(frozen=True)
class AugmentParameters:
    """One draw for a batch of B slices.

    Attributes:
        neighbour: (B,) row of z_2 of Eq. 6; the slice itself where it has no neighbour.
        weight: (B,) float32 in [0, 1], w of Eq. 6.
        shift: (B,) rows towards the back, pixels.
        flip: (B,) whether left and right change places.
    """

    neighbour: NDArray[np.int64]
    weight: NDArray[np.float32]
    shift: NDArray[np.int64]
    flip: NDArray[np.bool_]


def flippable_cells(space: ConditionSpace, config: AugmentConfig) -> NDArray[np.bool_]:
    """(cells,) whether a mirrored slice of the cell keeps its label.

    Values that the space does not have are logged: this data set may lack them.

    Raises:
        ConfigError: the rule names a factor that the space does not have.
        UnknownFactorValue: the factor has none of the values that the rule names.
    """
    if not config.flip:
        return np.zeros(len(space.cells), np.bool_)
    for name, named in config.flip.items():
        _check_values("flip", space.factor(name), named)
    rules = {space.names.index(space.factor(name).name): set(v) for name, v in config.flip.items()}
    return np.asarray([all(c.values[i] in v for i, v in rules.items()) for c in space.cells])


def affected_cells(space: ConditionSpace, config: AugmentConfig) -> tuple[SideCells, ...]:
    """The cells that the rule of sides speaks of, together where they differ in its value alone.

    Raises:
        ConfigError: the rule names a factor that the space does not have.
        UnknownFactorValue: the factor has none of the values that the rule names.
    """
    found: list[SideCells] = []
    places = {cell.values: k for k, cell in enumerate(space.cells)}
    for name, rule in config.sides.items():
        factor, named = space.factor(name), (rule.none, rule.one, rule.both)
        _check_values("sides", factor, named)
        position = space.names.index(factor.name)
        for cell in space.cells:
            if cell.values[position] == rule.one and set(named) <= set(factor.values):
                before, after = cell.values[:position], cell.values[position + 1 :]
                found.append(SideCells(*(places[*before, value, *after] for value in named)))
    return tuple(found)


def _check_values(rule: str, factor: Factor, named: Sequence[str]) -> None:
    unknown, allowed = sorted(set(named) - set(factor.values)), ", ".join(factor.values)
    if unknown and not set(named) & set(factor.values):
        raise UnknownFactorValue(
            f"the {rule} rule names the values {unknown} of {factor.name}, which has none of them",
            allowed=allowed,
            do=f"correct augment.{rule} in the configuration, or leave it out",
        )
    if unknown:
        log.warning(
            "the %s rule names %s of %s; there are: %s", rule, unknown, factor.name, allowed
        )


def draw(
    rows: NDArray[np.int64],
    neighbours: Sequence[NDArray[np.int64]],
    flippable: NDArray[np.bool_],
    config: AugmentConfig,
    random: np.random.Generator,
) -> AugmentParameters:
    """Draws the parameters for these rows.

    Args:
        rows: (B,) rows of the data set.
        neighbours: Per row of the data set, its neighbours (``Dataset.neighbours``).
        flippable: (B,) whether each of the rows may be mirrored.
        config: What to draw.
        random: Its stream decides everything.
    """
    size = len(rows)
    pick, weight = random.random(size), random.random(size, np.float32)
    shift = random.integers(-config.shift, config.shift + 1, size)
    flip = (random.random(size) < 0.5) & flippable
    chosen = np.asarray(
        [
            neighbours[row][int(u * len(neighbours[row]))] if len(neighbours[row]) else row
            for row, u in zip(rows, pick, strict=True)
        ],
        np.int64,
    )
    if not config.neighbour_mean:
        chosen, weight = rows, np.ones(size, np.float32)
    return AugmentParameters(chosen, weight, shift, flip)


def apply(images: Tensor, rows: NDArray[np.int64], parameters: AugmentParameters) -> Tensor:
    """Applies Eq. 6, then the shift, then the flip.

    Args:
        images: (N, 1, S, S) float32 in [-1, 1], the whole data set. -1 is zero counts, so a
            shift fills with -1.
        rows: (B,) the slices taken.
        parameters: One draw.

    Returns:
        (B, 1, S, S) float32 in [-1, 1].
    """
    device = images.device

    def tensor(values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    weight = tensor(parameters.weight)[:, None, None, None]
    first, second = images[tensor(rows)], images[tensor(parameters.neighbour)]
    mixed = torch.lerp(second, first, weight)
    size = images.shape[-1]
    source = torch.arange(size, device=device)[None] - tensor(parameters.shift)[:, None]
    inside = ((source >= 0) & (source < size))[:, None, :, None]
    index = source.clamp(0, size - 1)[:, None, :, None].expand(-1, 1, -1, size)
    shifted = torch.where(inside, mixed.gather(2, index), mixed.new_tensor(-1.0))
    return torch.where(tensor(parameters.flip)[:, None, None, None], shifted.flip(-1), shifted)
