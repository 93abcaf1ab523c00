"""Are several groups' means the same? As the paper asked it, and with patients as clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.stats import studentized_range

from fastgan_aug.quality.statistics.means import Mean

_FEWEST = 2  # groups with a mean and an error of its own


@dataclass(frozen=True)
class Anova:
    """One test of all groups.

    Attributes:
        f: Fisher's F; NaN where no test can be made.
        df_between: Groups - 1.
        df_within: Of the error.
        p: P value; NaN where no test can be made.
    """

    f: float
    df_between: float
    df_within: float
    p: float


@dataclass(frozen=True)
class Pair:
    """Two groups out of several.

    Attributes:
        first: Name of the one group.
        second: Name of the other.
        difference: Mean of the first minus that of the second.
        p: Adjusted for all pairs; NaN where no test can be made.
    """

    first: str
    second: str
    difference: float
    p: float


def anova(groups: Sequence[Mean]) -> Anova:
    """One-way analysis of variance, every value independent, one variance (Fisher 1925).

    Args:
        groups: Their means; groups with fewer than two values are left out.
    """
    groups = [g for g in groups if g.n >= _FEWEST]
    if len(groups) < _FEWEST:
        return Anova(np.nan, np.nan, np.nan, np.nan)
    n = np.asarray([g.n for g in groups], np.float64)
    means = np.asarray([g.mean for g in groups])
    between = float((n * (means - (n * means).sum() / n.sum()) ** 2).sum())
    within, df = _within(groups)
    return _anova(between / (len(groups) - 1), within, len(groups) - 1, df)


def anova_clustered(groups: Sequence[Mean]) -> Anova:
    """Welch's analysis of variance (1951) on cluster-robust errors.

    Each group is weighted by 1 / se^2 of its mean and has the df of its clusters; with one value
    per cluster it is Welch's own test.

    Args:
        groups: Means of different patients; groups without a standard error are left out.
    """
    groups = [g for g in groups if g.known and g.se > 0]
    k = len(groups)
    if k < _FEWEST:
        return Anova(np.nan, np.nan, np.nan, np.nan)
    weight = np.asarray([g.se**-2 for g in groups])
    means = np.asarray([g.mean for g in groups])
    df = np.asarray([g.df for g in groups])
    share = weight / weight.sum()
    spread = float((weight * (means - (share * means).sum()) ** 2).sum() / (k - 1))
    loss = float(((1 - share) ** 2 / df).sum())
    f = spread / (1 + 2 * (k - 2) / (k**2 - 1) * loss)
    return _anova(f, 1.0, k - 1, (k**2 - 1) / (3 * loss))


def tukey(groups: Mapping[str, Mean]) -> list[Pair]:
    """All pairs, Tukey and Kramer: every value independent, one variance.

    Args:
        groups: Mean of each by name.

    Returns:
        Each pair of groups once, in their order.
    """
    enough = [g for g in groups.values() if g.n >= _FEWEST]
    within, df = _within(enough)
    return [
        _pair(one, two, groups, np.sqrt(within * (1 / groups[one].n + 1 / groups[two].n) / 2), df)
        if min(groups[one].n, groups[two].n) >= _FEWEST
        else _pair(one, two, groups, np.nan, df)
        for one, two in combinations(groups, 2)
    ]


def tukey_clustered(groups: Mapping[str, Mean]) -> list[Pair]:
    """All pairs, Games and Howell (1976) on cluster-robust errors.

    Args:
        groups: Mean of each by name, of different patients.

    Returns:
        Each pair of groups once, in their order.
    """
    pairs = []
    for one, two in combinations(groups, 2):
        a, b = groups[one].se ** 2, groups[two].se ** 2
        known = groups[one].known and groups[two].known and a + b > 0
        df = (a + b) ** 2 / (a**2 / groups[one].df + b**2 / groups[two].df) if known else np.nan
        pairs.append(_pair(one, two, groups, float(np.sqrt((a + b) / 2)), df))
    return pairs


def _within(groups: Sequence[Mean]) -> tuple[float, float]:
    """Mean square inside the groups, and its degrees of freedom."""
    df = float(sum(g.n - 1 for g in groups))
    return (sum((g.n - 1) * g.sd**2 for g in groups) / df if df else np.nan), df


def _anova(between: float, within: float, df_between: float, df_within: float) -> Anova:
    if within > 0:
        f = between / within
        p = float(special.fdtrc(df_between, df_within, f))
    else:
        f, p = (np.inf, 0.0) if between > 0 else (0.0, 1.0)
    return Anova(float(f), float(df_between), float(df_within), p)


def _pair(one: str, two: str, groups: Mapping[str, Mean], error: float, df: float) -> Pair:
    """A pair whose difference over ``error`` is a studentised range."""
    difference = groups[one].mean - groups[two].mean
    if not np.isfinite(error) or np.isnan(df):
        return Pair(one, two, difference, np.nan)
    if error == 0:
        return Pair(one, two, difference, float(difference == 0))
    q: NDArray[np.float64] = np.abs(difference) / error
    return Pair(one, two, difference, float(studentized_range.sf(q, len(groups), df)))
