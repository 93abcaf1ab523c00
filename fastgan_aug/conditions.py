"""Factors, cells and the condition vector (Werner et al. 2022, Table 2)."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import ConfigError, UnknownCell, UnknownFactorValue

SEPARATOR = "/"


@dataclass(frozen=True, order=True)
class Cell:
    """One value per factor, written ``COR/bilateral``."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return SEPARATOR.join(self.values)


@dataclass(frozen=True)
class Factor:
    """A labelled property of an image, for example ``level`` with CER, BG and COR.

    Raises:
        ConfigError: no value, a repeated value, or a value that is empty or holds ``/``.
    """

    name: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        bad = [v for v in self.values if not v or SEPARATOR in v]
        if bad or not self.values or len(set(self.values)) != len(self.values):
            raise ConfigError(
                f"factor {self.name!r} has values {list(self.values)!r}",
                allowed=f"at least one value, each once, not empty and without {SEPARATOR!r}",
                do="rename the values in the labels",
            )


@dataclass(frozen=True)
class ConditionSpace:
    """The product of factors: which cells exist, and how each is told to the networks."""

    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        names = [f.name for f in self.factors]
        if not names or len(set(names)) != len(names):
            raise ConfigError(
                f"the factors are {names!r}",
                allowed="at least one factor, each name once",
                do="name at least one label column",
            )

    @classmethod
    def of(cls, factors: Mapping[str, Iterable[str]]) -> ConditionSpace:
        """Builds the space from ``{factor: values}``, in the order given."""
        return cls(tuple(Factor(name, tuple(values)) for name, values in factors.items()))

    def to_dict(self) -> dict[str, list[str]]:
        """``{factor: values}``; ``ConditionSpace.of`` reads it back."""
        return {f.name: list(f.values) for f in self.factors}

    @property
    def names(self) -> tuple[str, ...]:
        """The factors' names, in order."""
        return tuple(f.name for f in self.factors)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every combination of values, the last factor running fastest."""
        return tuple(Cell(v) for v in itertools.product(*(f.values for f in self.factors)))

    @property
    def dimension(self) -> int:
        """Elements of the condition vector.

        A factor with one value tells nothing and takes no element: so data set B of the paper
        (level COR alone) has three elements (Table 2). A space of one cell has one element, 1.
        """
        return sum(len(f.values) for f in self.factors if len(f.values) > 1) or 1

    def factor(self, name: str) -> Factor:
        """The factor of that name.

        Raises:
            ConfigError: there is none.
        """
        for factor in self.factors:
            if factor.name == name:
                return factor
        raise ConfigError(
            f"there is no factor {name!r}",
            allowed=", ".join(self.names),
            do="name one of the data set's factors",
        )

    def restrict(self, keep: Mapping[str, Sequence[str]]) -> ConditionSpace:
        """The space whose factors have only the values of ``keep``, where it names them.

        Raises:
            ConfigError: no such factor.
            UnknownFactorValue: the factor has no such value.
        """
        for name, values in keep.items():
            unknown = sorted(set(values) - set(self.factor(name).values))
            if unknown:
                raise UnknownFactorValue(
                    f"{name} has no values {unknown}",
                    allowed=", ".join(self.factor(name).values),
                    do="correct data.keep in the configuration",
                )
        return ConditionSpace.of({f.name: keep.get(f.name, f.values) for f in self.factors})

    def parse(self, text: str) -> Cell:
        """The cell written as ``text``.

        Raises:
            UnknownCell: the space has no such cell.
        """
        cell = Cell(tuple(text.split(SEPARATOR)))
        if cell not in self.cells:
            raise UnknownCell(
                f"there is no cell {text!r}",
                allowed=", ".join(map(str, self.cells)),
                do="write one value per factor, in the factors' order",
            )
        return cell

    def index(self, cell: Cell) -> int:
        """The position of ``cell`` in ``cells``."""
        return self._positions[cell]

    @cached_property
    def _positions(self) -> dict[Cell, int]:
        return {cell: i for i, cell in enumerate(self.cells)}

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(cells, dimension) float32 of 0 and 1: one condition vector per cell (Table 2)."""
        telling = [(i, f) for i, f in enumerate(self.factors) if len(f.values) > 1]
        if not telling:
            return np.ones((1, 1), np.float32)
        rows = [
            [float(cell.values[i] == v) for i, f in telling for v in f.values]
            for cell in self.cells
        ]
        return np.asarray(rows, np.float32)


def json_with_space(plain: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Canonical JSON of what has a condition space under ``space``.

    Keys are sorted, but the factors stand as they are: cells and condition vectors follow their
    order, and the last one is what is predicted unless another is named.
    """
    ordered = json.loads(json.dumps(plain, sort_keys=True)) | {"space": plain["space"]}
    return json.dumps(ordered, indent=indent)
