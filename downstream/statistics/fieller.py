"""The interval of a ratio of two means, whose denominator may be 0 (Fieller 1954)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from downstream.statistics.paired import LEVEL, ROUNDING


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % interval.

    Attributes:
        value: None where it is undefined.
        low: Lower end; None where it is undefined.
        high: Upper end; None where it is undefined.
        reason: Why it is undefined; empty where it is not.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""


def fieller(top: float, bottom: float, covariance: NDArray[np.float64], df: float) -> Ratio:
    """The ratio ``top / bottom`` and every value that the data do not speak against.

    These are the r with (top - r bottom)^2 <= t^2 (v11 - 2 r v12 + r^2 v22). The set is an interval
    exactly where the denominator's own t interval leaves 0 out; else it is unbounded.

    Args:
        top: Mean of the numerator.
        bottom: Mean of the denominator.
        covariance: (2, 2) of both means.
        df: Degrees of freedom of the covariance.

    Returns:
        The ratio, undefined where the denominator's interval holds 0, lies below it, or nothing
        varied.
    """
    from scipy.stats import t

    (v11, v12), (_, v22) = covariance
    if v22 <= ROUNDING:
        return Ratio(None, None, None, "the denominator did not vary: its precision is unknown")
    squared = float(t.ppf(1 - LEVEL / 2, df)) ** 2
    # a r^2 - 2 b r + c <= 0
    a = bottom**2 - squared * v22
    b = top * bottom - squared * v12
    c = top**2 - squared * v11
    if a <= 0:
        return Ratio(None, None, None, "the interval of the denominator holds 0")
    if bottom < 0:
        return Ratio(None, None, None, "the denominator lies below 0")
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Ratio(top / bottom, (b - root) / a, (b + root) / a)
