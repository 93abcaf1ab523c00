"""`BatchRequest`: the JSON body of a request, checked the same way on both sides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self
from uuid import uuid4

from fastgan_aug.balance import is_ratio
from fastgan_aug.errors import BalanceError
from fastgan_aug.target import MAJORITY, STRATEGIES, Target

DEFAULT_MODEL = "champion"
FILTER = "default"
LONGEST_KEY = 200
LARGEST_COUNT = 10**9
LARGEST_SEED = 2**64 - 1
LARGEST_POSITION = 2**53 - 1  # what a JSON number of any reader holds exactly
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}\Z")


@dataclass(frozen=True)
class BatchRequest:
    """What is asked of the service.

    Attributes:
        counts: Real images there are, by cell or by the values of one factor.
        target: Desired count after filling: one of ``STRATEGIES``, an integer, or a mapping.
        model: An alias of the registered model, or a version's number.
        seed: 0 to 2**64 - 1; the same request with the same seed gives the same images.
        max_ratio: Most synthetic per real image over the whole request; None fills exactly.
        allow_unseen: Whether cells without training images may be generated.
        request_id: Kept over retries and pages, and written into the provenance.
        page: First position and the one after the last of the images to send, of all that are
            planned (``protocol.positions``); None sends all. An answer may end before the page
            does: the next page starts where it ended.
        filter: ``"default"`` has the version's own filter judge each image, and makes those that
            it refuses anew; None returns every image.

    Raises:
        BalanceError: a field has a value of another kind; the message names it.
    """

    counts: Mapping[str, int]
    target: Target = MAJORITY
    model: str = DEFAULT_MODEL
    seed: int = 0
    max_ratio: float | None = None
    allow_unseen: bool = False
    request_id: str = field(default_factory=lambda: uuid4().hex)
    page: tuple[int, int] | None = None
    filter: str | None = None

    def __post_init__(self) -> None:
        for name in _RULES:
            _check(name, getattr(self, name))

    def to_json(self) -> str:
        """The body; ``from_json`` reads it back."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Reads a body.

        Raises:
            BalanceError: no JSON object, an unknown or missing field, or a bad value.
        """
        try:
            plain = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _refused(f"the body is no JSON: {error}", "a JSON object") from None
        if not isinstance(plain, dict):
            raise _refused(f"the body is a JSON {type(plain).__name__}", "a JSON object")
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(plain) - set(known))
        if unknown:
            raise _refused(f"unknown fields {unknown}"[:LONGEST_KEY], ", ".join(known))
        if "counts" not in plain:
            raise _refused("counts is missing", "a mapping {cell: number of real images}")
        if isinstance(plain.get("page"), list):
            plain["page"] = tuple(plain["page"])
        return cls(**plain)


def checked_model(model: str) -> str:
    """``model`` itself, if it can be an alias or a version.

    Raises:
        BalanceError: it cannot.
    """
    _check("model", model)
    return model


def _check(name: str, value: object) -> None:
    holds, allowed = _RULES[name]
    if not holds(value):
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST_KEY else shown[:LONGEST_KEY] + "..."
        raise _refused(f"{name} is {shown}", allowed)


def _refused(what: str, allowed: str) -> BalanceError:
    return BalanceError(what, allowed=allowed, do="correct the request; /openapi.json describes it")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(_NAME.match(value))


def _is_counts(value: object) -> bool:
    # Negative counts pass here: the plan refuses them in imbalanced-learn's words.
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and len(key) <= LONGEST_KEY and _is_integer(n) and n <= LARGEST_COUNT
        for key, n in value.items()
    )


def _is_target(value: object) -> bool:
    if isinstance(value, str):
        return value in STRATEGIES
    return _is_counts(value if isinstance(value, Mapping) else {"": value})


def _is_page(value: object) -> bool:
    if value is None:
        return True
    pair = isinstance(value, tuple) and len(value) == 2 and all(map(_is_integer, value))
    return pair and 0 <= value[0] <= value[1] <= LARGEST_POSITION  # type: ignore[index]


_WORDS = ", ".join(f'"{word}"' for word in STRATEGIES)
_COUNTS = f"a mapping of keys up to {LONGEST_KEY} characters to integers up to {LARGEST_COUNT}"
_NAMES = "1 to 100 letters, digits, '_', '.', '-'"
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "counts": (_is_counts, _COUNTS),
    "target": (_is_target, f"{_WORDS}, an integer up to {LARGEST_COUNT}, or {_COUNTS}"),
    "model": (_is_name, f"an alias or version: {_NAMES}"),
    "seed": (lambda v: _is_integer(v) and 0 <= v <= LARGEST_SEED, "an integer, 0 to 2**64 - 1"),
    "max_ratio": (lambda v: v is None or is_ratio(v), "null, or a number of 0 or more"),
    "allow_unseen": (lambda v: isinstance(v, bool), "true or false"),
    "request_id": (_is_name, _NAMES),
    "filter": (lambda v: v is None or v == FILTER, f'null, or "{FILTER}"'),
    "page": (_is_page, "null, or two integers [first, after the last], ascending from 0"),
}  # fmt: skip

_COUNTS_SCHEMA = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
REQUEST_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["counts"],
    "additionalProperties": False,
    "properties": {
        "counts": _COUNTS_SCHEMA | {"description": "real images by cell or by a factor's values"},
        "target": {
            "default": MAJORITY,
            "description": "desired count after filling, real and synthetic together",
            "anyOf": [
                {"enum": list(STRATEGIES)},
                {"type": "integer", "minimum": 0},
                _COUNTS_SCHEMA,
            ],
        },
        "model": {"type": "string", "default": DEFAULT_MODEL, "description": "alias or version"},
        "seed": {"type": "integer", "minimum": 0, "maximum": LARGEST_SEED, "default": 0},
        "max_ratio": {"type": ["number", "null"], "minimum": 0, "default": None},
        "allow_unseen": {"type": "boolean", "default": False},
        "filter": {
            "description": "whether the version's filter judges each image",
            "anyOf": [{"enum": [FILTER]}, {"type": "null"}],
            "default": None,
        },
        "request_id": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,100}$"},
        "page": {
            "description": "positions of the images to send: the first and the one after the last",
            "type": ["array", "null"],
            "items": {"type": "integer", "minimum": 0, "maximum": LARGEST_POSITION},
            "minItems": 2,
            "maxItems": 2,
            "default": None,
        },
    },
    "examples": [{"counts": {"a": 50, "b": 20}, "target": MAJORITY, "seed": 7}],
}
