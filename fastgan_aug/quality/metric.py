"""One measured figure of a quality report, beside what real slices give."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

OVERALL = "overall"
NO_SLICES = "no synthetic slice of it was given"
"""Why a cell that was trained on could not be judged."""


def too_few(what: str, n: int, wanted: int) -> str:
    """Why something could not be judged: "too few patients (3, wanted at least 4)"."""
    return f"too few {what} ({n}, wanted at least {wanted})"


@dataclass(frozen=True)
class Metric:
    """A figure of synthetic slices against real ones.

    Attributes:
        name: What was measured: ``kid``, ``mc_ratio``; the names are stable, the gate uses them.
        cell: The cell, written ``COR/bilateral``; one factor's value, written ``*/bilateral``; or
            ``overall``.
        value: The figure; NaN where it could not be found, which never passes.
        n: Synthetic slices behind it (as many real ones).
        low: Lower end of its interval; None where there is none.
        high: Upper end.
        floor: The same figure of real slices against real ones of other patients; None where that
            means nothing.
        bound: The largest (or with ``lower`` the smallest) value that passes; None where it is
            shown only.
        lower: Whether the bound is from below.
        view: Which features it rests on; empty where none.
        note: What a reader must know of it, one sentence; may be empty. Of a NaN: why.
    """

    name: str
    cell: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    bound: float | None = None
    lower: bool = False
    view: str = ""
    note: str = ""

    @classmethod
    def unjudged(cls, name: str, cell: str, why: str, n: int = 0, view: str = "") -> Self:
        """What stands for a figure that could not be found: left out, it would not fail."""
        return cls(name, cell, math.nan, n, view=view, note=why)

    @property
    def holds(self) -> bool | None:
        """Whether the bound is met; None without one. A NaN never is."""
        if self.bound is None:
            return None
        return self.value >= self.bound if self.lower else self.value <= self.bound

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"holds": self.holds}
