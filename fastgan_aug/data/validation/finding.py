"""`Finding`: one thing that validation has to say of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "warning", "note"]
ERROR: Severity = "error"
WARNING: Severity = "warning"
NOTE: Severity = "note"
SEVERITIES: tuple[Severity, ...] = (ERROR, WARNING, NOTE)
_ROWS_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One plain sentence and what to do about it.

    Attributes:
        severity: ``error`` blocks a fit, ``warning`` weakens what can be claimed, ``note`` is worth
            knowing.
        code: Stable name of the kind.
        where: The cells or rows meant. Rows are counted from 0; nobody is named.
        what: One sentence.
        advice: What to do.
    """

    severity: Severity
    code: str
    where: str
    what: str
    advice: str


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; otherwise in the order found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def name_rows(rows: Sequence[int] | NDArray[np.int64]) -> str:
    """``rows 3, 8, 11, 12, 40 and 7 more``."""
    named = ", ".join(str(int(row)) for row in rows[:_ROWS_NAMED])
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    return f"row{'s' if len(rows) != 1 else ''} {named}{more}"


def plural(count: int, word: str) -> str:
    """``1 slice``, ``3 slices``, ``2 copies``."""
    if count == 1:
        return f"1 {word}"
    return f"{count:,} {word[:-1]}ies" if word.endswith("y") else f"{count:,} {word}s"
