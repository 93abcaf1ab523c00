"""`QualityReport`: everything that was found out about a generator, and whether it passes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from fastgan_aug.errors import DataError
from fastgan_aug.quality.gate import Reason, Verdict
from fastgan_aug.quality.metric import OVERALL, Metric
from fastgan_aug.storage import replace_when_complete

FORMAT = 1

Table = Sequence[Mapping[str, Any]]
"""Rows of plain JSON values; a NaN stands for what could not be measured."""


@dataclass(frozen=True)
class QualityReport:
    """A generator, judged. No patient is named in it, nor any pseudonym.

    Attributes:
        metrics: Each figure with floor, interval and bound.
        tables: What belongs together, by name: see ``fastgan_aug.quality.evaluate``.
        verdict: Of the gate.
        provenance: Digests of checkpoint, configuration and data, of the features' classifier,
            seed, numbers of slices, code version: from these alone it can be made again.
    """

    metrics: Sequence[Metric]
    tables: Mapping[str, Table]
    verdict: Verdict
    provenance: Mapping[str, Any]

    def metric(self, name: str, cell: str = OVERALL, view: str = "") -> Metric | None:
        """The figure of that name and cell, of any view where none is named; None without one."""
        for metric in self.metrics:
            if (metric.name, metric.cell) == (name, cell) and view in ("", metric.view):
                return metric
        return None

    def to_json(self) -> str:
        """JSON without NaN: what is not finite becomes null. The same report, the same text."""
        plain = {
            "format": FORMAT,
            "verdict": Verdict([_known_reason(r) for r in self.verdict.reasons]).to_dict(),
            "metrics": [_known_metric(m).to_dict() for m in self.metrics],
            "tables": {name: [dict(row) for row in rows] for name, rows in self.tables.items()},
            "provenance": dict(self.provenance),
        }
        return json.dumps(_finite(plain), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """Sha256 of the JSON; 64 hex digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads ``to_json`` back.

        A metric without a value has a NaN; elsewhere null is None.

        Raises:
            DataError: it is no report, or of another format.
        """
        try:
            plain = json.loads(text)
            if plain["format"] != FORMAT:
                raise ValueError(f"format {plain['format']}")
            return cls(
                metrics=[_metric(row) for row in plain["metrics"]],
                tables=plain["tables"],
                verdict=Verdict([_reason(row) for row in plain["verdict"]["reasons"]]),
                provenance=plain["provenance"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"this is no quality report: {error}",
                allowed=f"report.json of `fastgan-aug evaluate`, format {FORMAT}",
                do="evaluate the model again",
            ) from error

    def write(self, path: Path) -> None:
        """Writes the JSON beside and renames it.

        Raises:
            StorageError: it cannot be written.
        """
        with replace_when_complete(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a report.json.

        Raises:
            DataError: there is none, or it is no report.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path.name} cannot be read: {error.strerror}", do="evaluate the model"
            ) from error
        return cls.from_json(text)


def rows_of(items: Sequence[Any], **more: Any) -> list[dict[str, Any]]:
    """A table of dataclasses, with further columns in front."""
    return [{**more, **asdict(item)} for item in items]


def _known_metric(metric: Metric) -> Metric:
    """Without what JSON cannot say, so that ``holds`` is what a reader would find again."""
    return replace(
        metric,
        value=metric.value if math.isfinite(metric.value) else math.nan,
        low=_limit(metric.low),
        high=_limit(metric.high),
        floor=_limit(metric.floor),
        bound=_limit(metric.bound),
    )


def _known_reason(reason: Reason) -> Reason:
    """As ``_known_metric``."""
    finite = reason.value is None or math.isfinite(reason.value)
    return replace(
        reason,
        value=reason.value if finite else math.nan,
        at_least=_limit(reason.at_least),
        at_most=_limit(reason.at_most),
    )


def _limit(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _metric(row: Mapping[str, Any]) -> Metric:
    values = {field.name: row[field.name] for field in fields(Metric)}
    value = math.nan if values["value"] is None else values["value"]
    return Metric(**(values | {"value": value}))


def _reason(row: Mapping[str, Any]) -> Reason:
    # A report that was written before reasons had notes is read too.
    values = {"note": ""} | dict(row)
    values = {field.name: values[field.name] for field in fields(Reason)}
    if values["value"] is None and values["cell"]:
        values["value"] = math.nan  # measured, in vain; without a cell nothing was measured
    return Reason(**values)


def _finite(value: Any) -> Any:
    """Plain JSON values: numpy scalars as Python's, tuples as lists, no NaN."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
