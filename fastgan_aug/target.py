"""Labels and targets: how many images there are, and how many are wanted (standard library only).

A target is a DESIRED count after filling. Its words are imbalanced-learn's for over-sampling
(``imblearn.utils._validation``), and its three errors are kept word for word. One word differs:
that library refuses ``"majority"`` for over-samplers, here it fills every class to the largest
count, as ``"all"`` does.

    >>> desired({"normal": 5, "left": 3, "both": 1}, "minority")
    {'normal': 5, 'left': 3, 'both': 5}
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

from fastgan_aug.errors import BalanceError

SEPARATOR = "/"
MAJORITY = "majority"
STRATEGIES = (MAJORITY, "not majority", "not minority", "minority", "all", "auto")
Target = int | str | Mapping[str, int]


def count_labels(labels: Iterable[Hashable]) -> dict[str, int]:
    """Counts a sequence of labels, as in ``y``.

    Args:
        labels: Cells (``"COR/bilateral"``, ``("COR", "bilateral")`` or ``Cell``), or values of one
            factor; a list, an array of numpy or a tensor of torch, a series of pandas. A row of a
            two-dimensional array is a cell.

    Raises:
        BalanceError: a single text instead of a sequence, or a missing label.
    """
    if hasattr(labels, "tolist"):  # numpy's, torch's and pandas' own scalars are not plain labels
        labels = labels.tolist()
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        raise BalanceError(
            f"counts is {labels!r}",
            allowed="a mapping {cell: count}, or a sequence of labels",
            do="give one label per image, or the counts themselves",
        )
    return dict(Counter(key_text(label) for label in labels))


def key_text(key: object) -> str:
    """A key as it is written on the wire: ``("COR", "bilateral")`` is ``COR/bilateral``.

    Raises:
        BalanceError: the label is missing (None, NaN or NA).
    """
    try:
        missing = key is None or bool(key != key)
    except TypeError:  # pandas' NA is neither equal nor unequal to itself
        missing = True
    if missing:
        raise BalanceError(
            "a label is missing", allowed="one label per image", do="drop or label those images"
        )
    if isinstance(key, tuple | list):
        return SEPARATOR.join(key_text(part) for part in key)
    return str(key)


def integer(what: str, value: object) -> int:
    """``value`` as a plain integer; ``what`` names it in the error.

    Raises:
        BalanceError: it is none.
    """
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]  # raises TypeError for others
        except TypeError:
            pass
    raise BalanceError(f"{what} is {value!r}", allowed="an integer", do="give whole images")


def desired(present: Mapping[str, int], target: Target) -> dict[str, int]:
    """The desired count of every key of ``present``, in its order.

    Args:
        present: Real images there are, at least one key.
        target: An integer for every key, one of ``STRATEGIES``, or a mapping; keys that are left
            out stay as they are.

    Raises:
        BalanceError: no target of these kinds, or one of imbalanced-learn's three errors.
    """
    if isinstance(target, Mapping):
        asked = {str(key): integer(f"target[{key!r}]", n) for key, n in target.items()}
    elif isinstance(target, str):
        asked = _of_strategy(present, target)
    else:
        asked = dict.fromkeys(present, integer("target", target))
    _check_like_imbalanced_learn(asked, present)
    return dict(present) | asked


def _of_strategy(present: Mapping[str, int], name: str) -> dict[str, int]:
    """The keys that a word aims at, each with the largest count (``_sampling_strategy_*``)."""
    if name not in STRATEGIES:
        raise BalanceError(
            f"target is {name!r}",
            allowed=", ".join(f'"{s}"' for s in STRATEGIES) + ", an integer, or a mapping "
            "{cell: desired count}",
            do="say how many images each cell shall have in the end",
        )
    # Of classes that are as large as each other, the first in the order of the labels counts.
    ordered = _in_label_order(present)
    largest, smallest = max(ordered, key=present.__getitem__), min(ordered, key=present.__getitem__)
    aimed = {
        "not majority": [key for key in present if key != largest],
        "auto": [key for key in present if key != largest],
        "not minority": [key for key in present if key != smallest],
        "minority": [smallest],
    }.get(name, list(present))
    return dict.fromkeys(aimed, present[largest])


def _in_label_order(keys: Iterable[str]) -> list[str]:
    """As ``numpy.unique`` sorts labels: integers by value, texts by their characters."""
    numbers = {key: int(key) for key in keys if key.removeprefix("-").isdecimal()}
    return sorted(keys, key=numbers.__getitem__) if numbers.keys() == set(keys) else sorted(keys)


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
