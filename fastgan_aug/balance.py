"""Counts and target to how many images of each cell to generate (standard library only).

The words are imbalanced-learn's: a target is the DESIRED count after filling, not the number to
generate, and its three errors are kept word for word (``imblearn.utils._validation``).

    >>> cells = ["CER/normal", "CER/bilateral", "COR/normal", "COR/bilateral"]
    >>> training = {"CER/normal": 248, "COR/normal": 129, "COR/bilateral": 52}
    >>> counts = {"COR/normal": 129, "COR/bilateral": 52}
    >>> dict(plan(counts, "majority", cells=cells, training_counts=training).generate)
    {'COR/bilateral': 77}
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Self

from fastgan_aug.errors import BalanceError, UnknownCell, UnseenCell

SEPARATOR = "/"
MAJORITY = "majority"
Target = int | str | Mapping[str, int]


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


def count_labels(labels: Iterable[Hashable]) -> dict[str, int]:
    """Counts a sequence of labels, as in ``y``.

    Args:
        labels: Cells (``"COR/bilateral"``, ``("COR", "bilateral")`` or ``Cell``), or values of one
            factor.

    Raises:
        BalanceError: a single text instead of a sequence, or a missing label.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise BalanceError(
            f"counts is {labels!r}",
            allowed="a mapping {cell: count}, or a sequence of labels",
            do="give one label per image, or the counts themselves",
        )
    counted = Counter(key_text(label) for label in labels)
    return dict(counted)


def key_text(key: object) -> str:
    """A key as it is written on the wire: ``("COR", "bilateral")`` is ``COR/bilateral``.

    Raises:
        BalanceError: the label is missing (None or NaN).
    """
    if key is None or key != key:
        raise BalanceError(
            "a label is missing", allowed="one label per image", do="drop or label those images"
        )
    return SEPARATOR.join(map(str, key)) if isinstance(key, tuple) else str(key)


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
        target: Desired count after filling: an integer for every key, ``"majority"`` for the
            largest count, or a mapping (keys left out stay as they are).
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
    wanted = _desired(present, target)
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
    present = {key: _integer(f"counts[{key!r}]", n) for key, n in counts.items()}
    negative = {key: n for key, n in present.items() if n < 0}
    if negative:
        raise BalanceError(
            f"counts has negative values: {negative}",
            allowed="integers of 0 or more",
            do="give the number of real images you have of each cell",
        )
    return present


def _integer(what: str, value: object) -> int:
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]  # raises TypeError for others
        except TypeError:
            pass
    raise BalanceError(f"{what} is {value!r}", allowed="an integer", do="give whole images")


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


def _desired(present: Mapping[str, int], target: Target) -> dict[str, int]:
    """The desired count of every key, with imbalanced-learn's three errors, in its order."""
    if isinstance(target, Mapping):
        asked = {str(key): _integer(f"target[{key!r}]", n) for key, n in target.items()}
    elif isinstance(target, str):
        if target != MAJORITY:
            raise BalanceError(
                f"target is {target!r}",
                allowed='"majority", an integer, or a mapping {cell: desired count}',
                do="say how many images each cell shall have in the end",
            )
        asked = dict.fromkeys(present, max(present.values()))
    else:
        asked = dict.fromkeys(present, _integer("target", target))
    _check_like_imbalanced_learn(asked, present)
    return dict(present) | asked


def _check_like_imbalanced_learn(asked: Mapping[str, int], present: Mapping[str, int]) -> None:
    absent = sorted(set(asked) - set(present))
    if absent:
        shown = "{" + ", ".join(map(repr, absent)) + "}"
        raise BalanceError(
            f"The {shown} target class is/are not present in the data.",
            allowed="keys of counts: " + ", ".join(present),
            do="count the cell in `counts` too; 0 is a count",
        )
    if any(n < 0 for n in asked.values()):
        raise BalanceError(
            "The number of samples in a class cannot be negative."
            f"'sampling_strategy' contains some negative value: {dict(asked)}",
            allowed="integers of 0 or more",
            do="give the desired count of each cell after filling",
        )
    for key, n in asked.items():
        if n < present[key]:
            raise BalanceError(
                "With over-sampling methods, the number of samples in a class should be greater or"
                f" equal to the original number of samples. Originally, there is {present[key]} "
                f"samples and {n} samples are asked.",
                allowed=f"{present[key]} or more for {key!r}",
                do="raise the target, or leave the cell out; images are never taken away here",
            )


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
