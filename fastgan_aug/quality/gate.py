"""The gate: a table of bounds that decides whether a model version may be promoted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastgan_aug.quality.metric import OVERALL, Metric

EVERY = "every"


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Without a limit of its own, a rule asks that each metric meets the bound it came with (a KID's
    bound comes from real slices, say).

    Attributes:
        metric: Name of a metric.
        cells: ``every`` cell (one that could not be judged does not pass), ``overall``, or one
            cell by its name.
        view: Which features, where the metric has several views; empty for all of them.
        at_least: Smallest value that passes.
        at_most: Largest value that passes.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    metric: str
    cells: str = EVERY
    view: str = ""
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        low, high = self.at_least, self.at_most
        if low is not None and high is not None and low > high:
            raise ValueError(f"at_least is {low} and at_most {high}; allowed: at_least below")

    def asks_of(self, metric: Metric) -> bool:
        """Whether this rule speaks of that metric."""
        here = metric.cell == self.cells or (self.cells == EVERY and metric.cell != OVERALL)
        return metric.name == self.metric and here and self.view in ("", metric.view)

    def judge(self, metric: Metric) -> Reason:
        """Whether the metric passes; a NaN, and a metric without any bound, never does."""
        low, high = self.at_least, self.at_most
        if low is None and high is None:
            low, high = (metric.bound, None) if metric.lower else (None, metric.bound)
        bounded = low is not None or high is not None
        passed = (
            bounded
            and not math.isnan(metric.value)
            and (low is None or metric.value >= low)
            and (high is None or metric.value <= high)
        )
        why = metric.note if math.isnan(metric.value) else ""
        return Reason(self.metric, metric.cell, metric.view, metric.value, low, high, passed, why)


@dataclass(frozen=True)
class Reason:
    """What one rule said of one metric.

    Attributes:
        metric: Its name.
        cell: Its cell; empty where nothing was measured.
        view: Its features.
        value: Measured; None where nothing was, NaN where it could not be judged.
        at_least: Smallest value that passes; None for no such limit.
        at_most: Largest value that passes.
        passed: Whether it does.
        note: Why nothing could be judged; empty where something was, or nobody knows.
    """

    metric: str
    cell: str
    view: str
    value: float | None
    at_least: float | None
    at_most: float | None
    passed: bool
    note: str = ""

    @property
    def unjudged(self) -> bool:
        """Whether there is no figure, though one was looked for."""
        return self.value is not None and math.isnan(self.value)

    def __str__(self) -> str:
        name = f"{self.metric} ({self.view})" if self.view else self.metric
        if self.value is None:
            return f"{name}: not measured"
        if self.unjudged:
            why = f": {self.note}" if self.note else ""
            return f"{name} of {self.cell} could not be judged{why}"
        limits = [
            f"{word} {limit:.4g}"
            for word, limit in (("at least", self.at_least), ("at most", self.at_most))
            if limit is not None
        ]
        wanted = " and ".join(limits) or "no bound could be found"
        return f"{name} of {self.cell} is {self.value:.4g}, wanted: {wanted}"


@dataclass(frozen=True)
class Verdict:
    """PASS or FAIL, with what each rule said.

    Attributes:
        reasons: In the order of the rules; a rule without any metric gives one that fails.
    """

    reasons: list[Reason]

    @property
    def passed(self) -> bool:
        """Whether every rule passes; no rules, no PASS."""
        return bool(self.reasons) and all(reason.passed for reason in self.reasons)

    @property
    def failures(self) -> list[Reason]:
        """Why not."""
        return [reason for reason in self.reasons if not reason.passed]

    def __str__(self) -> str:
        return "PASS" if self.passed else "FAIL"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a NaN becomes None."""
        rows = [asdict(r) | {"text": str(r)} for r in self.reasons]
        for row in rows:
            if isinstance(row["value"], float) and not math.isfinite(row["value"]):
                row["value"] = None
        return {"passed": self.passed, "reasons": rows}


def judge(rules: Sequence[Rule], metrics: Sequence[Metric]) -> Verdict:
    """Holds metrics against the table.

    Args:
        rules: The table.
        metrics: All that was measured.
    """
    reasons: list[Reason] = []
    for rule in rules:
        found = [rule.judge(metric) for metric in metrics if rule.asks_of(metric)]
        reasons += found or [
            Reason(rule.metric, "", rule.view, None, rule.at_least, rule.at_most, False)
        ]
    return Verdict(reasons)
