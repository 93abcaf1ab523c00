"""Counts and target to how many images of each cell to generate (standard library only).

A target is the DESIRED count after filling, not the number to generate (``target``).

    >>> cells = ["CER/normal", "CER/bilateral", "COR/normal", "COR/bilateral"]
    >>> training = {"CER/normal": 248, "COR/normal": 129, "COR/bilateral": 52}
    >>> counts = {"COR/normal": 129, "COR/bilateral": 52}
    >>> agreed = plan(counts, "majority", cells=cells, training_counts=training)
    >>> dict(agreed.generate)
    {'COR/bilateral': 77}
    >>> print(agreed)
    cell           has  wants  gets  why
    COR/normal     129    129     0  has what it wants
    COR/bilateral   52    129    77  filled
    total          181    258    77
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Self

from fastgan_aug.errors import BalanceError, UnknownCell, UnseenCell
from fastgan_aug.target import SEPARATOR, Target, desired, integer

COLUMNS = ("cell", "has", "wants", "gets", "why")


@dataclass(frozen=True)
class CellPlan:
    """What becomes of one key of the request: a cell, or a value of one factor.

    Attributes:
        present: Real images there are.
        target: Images wanted in the end, real and synthetic together.
        generate: Images that will be generated; ``present + generate == target`` without a reason.
        seen: Whether the model was trained on at least one image of it.
        reason: Why it stays short of its target; empty where it does not.
    """

    present: int
    target: int
    generate: int
    seen: bool
    reason: str = ""


@dataclass(frozen=True)
class BalancePlan:
    """How a request will be met, decided before anything is generated.

    Attributes:
        asked: The request's own keys (cells, or values of one factor), in its order.
        generate: Images to generate per cell, in the condition space's order, without zeros.
        warnings: What the caller should know, for example more synthetic than real images.
    """

    asked: Mapping[str, CellPlan]
    generate: Mapping[str, int]
    warnings: tuple[str, ...] = ()

    @property
    def total_generate(self) -> int:
        """Images to generate, over all cells."""
        return sum(self.generate.values())

    @property
    def short(self) -> dict[str, str]:
        """The keys that stay short of their target, with the reason."""
        return {key: row.reason for key, row in self.asked.items() if row.reason}

    def rows(self) -> list[tuple[str, int, int, int, str]]:
        """One row of ``COLUMNS`` for each key asked: what it has, wants and gets, and why."""
        return [
            (key, row.present, row.target, row.generate, self._why(key, row))
            for key, row in self.asked.items()
        ]

    def __str__(self) -> str:
        """The table of ``rows`` with its total, and the warnings below it."""
        rows = self.rows()
        total = ("total", *(sum(int(row[i]) for row in rows) for i in (1, 2, 3)), "")
        texts = [tuple(map(str, row)) for row in (COLUMNS, *rows, total)]
        widths = [max(len(row[i]) for row in texts) for i in range(len(COLUMNS))]
        lines = [
            f"{row[0]:<{widths[0]}}  "
            + "  ".join(f"{row[i]:>{widths[i]}}" for i in (1, 2, 3))
            + f"  {row[4]}"
            for row in texts
        ]
        return "\n".join(line.rstrip() for line in (*lines, *self.warnings))

    def _why(self, key: str, row: CellPlan) -> str:
        why = row.reason or ("filled" if row.generate else "has what it wants")
        if key not in self.generate and row.generate:  # a factor's value: through which cells
            made = [f"{c} {n}" for c, n in self.generate.items() if key in c.split(SEPARATOR)]
            why += ": " + ", ".join(made)
        return why if row.seen or not row.generate else f"{why}; unseen in training"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` reads them back."""
        return {
            "asked": {key: asdict(row) for key, row in self.asked.items()},
            "generate": dict(self.generate),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Reads ``to_dict`` back."""
        asked = {key: CellPlan(**row) for key, row in plain["asked"].items()}
        return cls(asked, dict(plain["generate"]), tuple(plain["warnings"]))


def plan(
    counts: Mapping[str, int],
    target: Target,
    *,
    cells: Sequence[str],
    training_counts: Mapping[str, int],
    max_ratio: float | None = None,
    allow_unseen: bool = False,
) -> BalancePlan:
    """Decides how many images of each cell to generate.

    Args:
        counts: Real images there are, by cell or by the values of ONE factor. Only the keys
            mentioned here are filled.
        target: Desired count after filling: an integer for every key, one of ``STRATEGIES``, or a
            mapping (keys left out stay as they are).
        cells: Every cell of the model, in the condition space's order.
        training_counts: Training images per cell; a missing cell has none. What is generated for
            a factor's value is shared among its cells in this proportion.
        max_ratio: Most synthetic images per real image, over the whole request; None fills
            exactly and warns above 1.
        allow_unseen: Whether cells without any training image may be generated.

    Raises:
        BalanceError: counts or target are negative, no integers, below the present count, or mix
            cells with values.
        UnknownCell: a key is neither a cell nor a value of exactly one factor.
        UnseenCell: a cell without training images would have to be generated.
    """
    present = _checked_counts(counts)
    members = _members(list(present), cells)
    wanted = desired(present, target)
    missing = {key: wanted[key] - n for key, n in present.items()}
    shares = {key: _weights(members[key], training_counts) for key in present}
    seen = {key: any(training_counts.get(c, 0) > 0 for c in members[key]) for key in present}
    _refuse_unseen([k for k in present if missing[k] and not seen[k]], cells, training_counts,
                   allow_unseen)  # fmt: skip

    made, reason, warnings = _bounded(missing, sum(present.values()), max_ratio)
    asked = {
        key: CellPlan(n, wanted[key], made[key], seen[key],
                      reason if made[key] < missing[key] else "")
        for key, n in present.items()
    }  # fmt: skip
    generate: Counter[str] = Counter()
    for key in present:
        generate.update(dict(zip(members[key], share(made[key], shares[key]), strict=True)))
    ordered = {cell: generate[cell] for cell in cells if generate[cell]}
    return BalancePlan(asked, ordered, tuple(warnings))


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Shares ``total`` in proportion to ``weights`` by largest remainder; equally if all are 0.

    The parts sum to ``total`` exactly; where ``total <= sum(weights)`` no part exceeds its weight.
    """
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [total * w // whole for w in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(total * weights[i] % whole))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def _checked_counts(counts: Mapping[str, int]) -> dict[str, int]:
    if not counts:
        raise BalanceError(
            "counts is empty", allowed="at least one cell", do="give the images you have per cell"
        )
    present = {key: integer(f"counts[{key!r}]", n) for key, n in counts.items()}
    negative = {key: n for key, n in present.items() if n < 0}
    if negative:
        raise BalanceError(
            f"counts has negative values: {negative}",
            allowed="integers of 0 or more",
            do="give the number of real images you have of each cell",
        )
    return present


def _members(keys: Sequence[str], cells: Sequence[str]) -> dict[str, list[str]]:
    """The cells that each key stands for: one, or all those with a factor's value."""
    known = set(cells)
    owners = {key: -1 if key in known else _owner(key, cells) for key in keys}
    if len(set(owners.values())) > 1:
        raise BalanceError(
            f"the keys {list(keys)!r} mix cells with values, or values of several factors",
            allowed="only cells, or only the values of one factor",
            do=f"ask by cell, for example {cells[0]!r}",
        )
    return {
        key: [key] if i < 0 else [c for c in cells if c.split(SEPARATOR)[i] == key]
        for key, i in owners.items()
    }


def _owner(value: str, cells: Sequence[str]) -> int:
    """The position of the one factor that has this value."""
    found = {i for c in cells for i, v in enumerate(c.split(SEPARATOR)) if v == value}
    if len(found) != 1:
        several = f"{value!r} is a value of {len(found)} factors"
        raise UnknownCell(
            several if found else f"there is no cell {value!r}",
            allowed="the cells " + ", ".join(cells) + ", or the values of one factor",
            do="ask the service which cells the model has: GET /v1/model",
        )
    return found.pop()


def _weights(members: Sequence[str], training_counts: Mapping[str, int]) -> list[int]:
    return [training_counts.get(cell, 0) for cell in members]


def _refuse_unseen(
    keys: Sequence[str], cells: Sequence[str], training: Mapping[str, int], allow: bool
) -> None:
    if keys and not allow:
        raise UnseenCell(
            "the model has no training image of " + ", ".join(map(repr, keys)),
            allowed="cells with training images: " + ", ".join(c for c in cells if training.get(c)),
            do="leave it out of counts, or pass allow_unseen=True: the images are marked unseen",
        )


def is_ratio(value: object) -> bool:
    """Whether ``value`` can bound synthetic over real: a finite number of 0 or more."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < math.inf  # type: ignore[operator]


def _bounded(
    missing: Mapping[str, int], real: int, max_ratio: float | None
) -> tuple[dict[str, int], str, list[str]]:
    """What is generated of what is missing, why some stays missing, and warnings."""
    total = sum(missing.values())
    if max_ratio is None:
        if total <= real:
            return dict(missing), "", []
        warning = (
            f"{total} synthetic images are asked for {real} real ones: more than one synthetic "
            "image per real image; max_ratio bounds it"
        )
        return dict(missing), "", [warning]
    if not is_ratio(max_ratio):
        raise BalanceError(
            f"max_ratio is {max_ratio!r}",
            allowed="a number of 0 or more, or None",
            do="give the most synthetic images per real image, for example 1.0",
        )
    # By its decimal digits: 0.29 of 100 is 29, which binary floating point would round to 28.
    limit = math.floor(Fraction(str(max_ratio)) * real)
    if total <= limit:
        return dict(missing), "", []
    reason = (
        f"max_ratio {max_ratio} allows {limit} synthetic images for {real} real ones; "
        f"{total} would fill every cell"
    )
    made = dict(zip(missing, share(limit, list(missing.values())), strict=True))
    return made, reason, []
