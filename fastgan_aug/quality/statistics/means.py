"""Tests of means, each also where slices come in patients: Welch, equivalence (TOST), effect size.

Everything rests on ``Mean``: a mean with a standard error that knows whose slices they are. Slices
of one patient are alike, so 938 slices of 250 patients tell less than 938 independent ones: the
cluster-robust error sums each patient's deviations before it squares them (Liang and Zeger 1986).
Without clusters, or where each is of one slice, it is the usual s / sqrt(n).

A test that cannot be made (a side with fewer than two values) has P = NaN, which passes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

ALPHA = 0.05
# Nodes of the integral over the standard deviation's distribution; 64 give six digits.
_NODES = 64


@dataclass(frozen=True)
class Mean:
    """A mean and how well it is known.

    Attributes:
        n: Finite values behind it.
        clusters: Patients they come from.
        mean: Of the values; NaN without any.
        sd: Their standard deviation (n - 1).
        se: Standard error of the mean, cluster-robust; NaN with fewer than two clusters.
        df: Degrees of freedom, clusters - 1.
    """

    n: int
    clusters: int
    mean: float
    sd: float
    se: float
    df: float

    @property
    def known(self) -> bool:
        """Whether there is a standard error."""
        return bool(np.isfinite(self.se))

    @property
    def effective_n(self) -> float:
        """Independent values that would know the mean as well: ``sd^2 / se^2``, at most n."""
        if not self.known:
            return 0.0
        return min(float(self.n), self.sd**2 / self.se**2) if self.se > 0 else float(self.n)


@dataclass(frozen=True)
class Difference:
    """Welch's test of two means.

    Attributes:
        difference: First minus second.
        low: Lower end of its interval of level 1 - alpha.
        high: Upper end.
        t: Student's t.
        df: Welch and Satterthwaite's degrees of freedom.
        p: Two-sided.
    """

    difference: float
    low: float
    high: float
    t: float
    df: float
    p: float


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests (Schuirmann 1987): is the estimate inside the margin for sure?

    Attributes:
        estimate: Difference or ratio of the means, first against second.
        low: Lower end of its interval of level 1 - 2 alpha, which lies in the margin where the
            test passes.
        high: Upper end; infinite where the second mean may be zero.
        margin: The bounds tested.
        p: The larger of the two one-sided P values; NaN where no test can be made.
        power: How often equal means with these errors would pass at this alpha.
        alpha: Level.
    """

    estimate: float
    low: float
    high: float
    margin: tuple[float, float]
    p: float
    power: float
    alpha: float = ALPHA

    @property
    def passes(self) -> bool:
        """Whether equivalence is shown; never where P is NaN."""
        return bool(self.p <= self.alpha)


@dataclass(frozen=True)
class Effect:
    """Hedges' g: the difference of means in standard deviations.

    Attributes:
        g: Corrected for small numbers.
        low: Lower end of its interval of level 1 - alpha.
        high: Upper end.
    """

    g: float
    low: float
    high: float


def mean_of(values: NDArray[np.float64], clusters: NDArray[np.generic] | None = None) -> Mean:
    """Mean of the finite values, with a cluster-robust standard error.

    ``se^2 = G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2 / n^2`` over the G clusters.

    Args:
        values: (N,); those that are not finite are left out.
        clusters: (N,) whose value each is; None where each is its own.
    """
    x = np.asarray(values, np.float64)
    finite = np.isfinite(x)
    x = x[finite]
    n = len(x)
    mean = float(x.mean()) if n else np.nan
    sums = x - mean
    if clusters is not None:
        place = np.unique(clusters[finite], return_inverse=True)[1]
        sums = np.bincount(place, sums).astype(np.float64)
    groups = len(sums)
    sd = float(x.std(ddof=1)) if n > 1 else np.nan
    se = np.sqrt(groups / (groups - 1) * (sums**2).sum()) / n if groups > 1 else np.nan
    return Mean(n, groups, mean, sd, float(se), float(max(groups - 1, 0)))


def welch(first: Mean, second: Mean, alpha: float = ALPHA) -> Difference:
    """Welch's t test: are the means different?

    Args:
        first: The one side.
        second: The other, of other patients.
        alpha: One minus the level of the interval.
    """
    difference = first.mean - second.mean
    se, df = _error(first, second)
    if np.isnan(se):
        return Difference(difference, np.nan, np.nan, np.nan, df, np.nan)
    half = _quantile(df, 1 - alpha / 2) * se
    t = _t(difference, se)
    p = 2 * _above(abs(t), df)
    return Difference(difference, difference - half, difference + half, t, df, p)


def tost_difference(
    first: Mean, second: Mean, margin: tuple[float, float], alpha: float = ALPHA
) -> Equivalence:
    """Is the difference of the means, first minus second, inside the margin?

    Args:
        first: The one side (synthetic).
        second: The other (real), of other patients.
        margin: Lower and upper bound of the difference.
        alpha: Level of each one-sided test.
    """
    low, high = margin
    difference = first.mean - second.mean
    se, df = _error(first, second)
    if np.isnan(se):
        return Equivalence(difference, np.nan, np.nan, margin, np.nan, np.nan, alpha)
    p = max(_above(_t(difference - low, se), df), _above(_t(high - difference, se), df))
    half = _quantile(df, 1 - alpha) * se
    power = tost_power(se, df, margin, 0.0, alpha)
    return Equivalence(difference, difference - half, difference + half, margin, p, power, alpha)


def tost_ratio(
    first: Mean, second: Mean, margin: tuple[float, float], alpha: float = ALPHA
) -> Equivalence:
    """Is the ratio of the means, first over second, inside the margin?

    Tests ``first - low * second > 0`` and ``high * second - first > 0`` on the values' own scale
    (Sasabuchi 1988; Hauschke et al. 1999); the interval is Fieller's (1954), for a positive second
    mean.

    Args:
        first: The one side (synthetic).
        second: The other (real), with a positive mean.
        margin: Lower and upper bound of the ratio, around 1.
        alpha: Level of each one-sided test.
    """
    if not (first.known and second.known and second.mean > 0):
        ratio = first.mean / second.mean if second.mean > 0 else np.nan
        return Equivalence(ratio, np.nan, np.nan, margin, np.nan, np.nan, alpha)
    ratio = first.mean / second.mean
    p = max(_ratio_above(first, second, margin[0]), _ratio_below(first, second, margin[1]))
    low, high = _fieller(first, second, alpha)
    # The power at equal means: the error of first - second, the margin in the mean's unit.
    se, df = _error(first, second)
    absolute = ((margin[0] - 1) * second.mean, (margin[1] - 1) * second.mean)
    power = tost_power(se, df, absolute, 0.0, alpha)
    return Equivalence(ratio, low, high, margin, p, power, alpha)


def hedges_g(first: Mean, second: Mean, alpha: float = ALPHA) -> Effect:
    """Standardised difference of means with its interval (Hedges and Olkin 1985).

    ``g = (1 - 3 / (4 df - 1)) (m1 - m2) / s``, s pooled over both sides. The interval's n are
    effective ones, so that slices of one patient do not count as independent.

    Args:
        first: The one side.
        second: The other.
        alpha: One minus the level of the interval.
    """
    if not (first.known and second.known):
        return Effect(np.nan, np.nan, np.nan)
    df = first.n + second.n - 2
    pooled = np.sqrt(((first.n - 1) * first.sd**2 + (second.n - 1) * second.sd**2) / df)
    difference = first.mean - second.mean
    if pooled == 0:
        g = 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
        return Effect(g, g, g)
    g = float((1 - 3 / (4 * df - 1)) * difference / pooled)
    one, two = first.effective_n, second.effective_n
    error = np.sqrt(1 / one + 1 / two + g**2 / (2 * (one + two)))
    half = float(special.ndtri(1 - alpha / 2) * error)
    return Effect(g, g - half, g + half)


def tost_power(
    se: float,
    df: float,
    margin: tuple[float, float],
    difference: float = 0.0,
    alpha: float = ALPHA,
) -> float:
    """How often two one-sided t tests pass, exactly (Owen 1965; Phillips 1990).

    With s the estimated error, ``P(low + t s < d < high - t s)`` for a normal d, averaged over the
    chi distribution of s.

    Args:
        se: True standard error of the difference of means.
        df: Degrees of freedom of its estimate.
        margin: Bounds of the difference.
        difference: True difference of the means.
        alpha: Level of each one-sided test.

    Returns:
        In [0, 1]; NaN for an unknown error.
    """
    low, high = margin
    if not np.isfinite(se) or df <= 0:
        return np.nan
    if se == 0:
        return float(low < difference < high)
    place, weight = np.polynomial.legendre.leggauss(_NODES)
    share, weight = (place + 1) / 2, weight / 2
    estimate = se * np.sqrt(2 * special.gammaincinv(df / 2, share) / df)
    reach = _quantile(df, 1 - alpha) * estimate
    above = special.ndtr((high - reach - difference) / se)
    below = special.ndtr((low + reach - difference) / se)
    return float((weight * np.maximum(above - below, 0)).sum())


def tost_power_at(n: int, sd: float, margin: float, alpha: float = ALPHA) -> float:
    """Power for equal means of two sides with n independent values each.

    Args:
        n: Values on each side, 2 or more.
        sd: Their standard deviation.
        margin: The difference that would matter, as ``-margin .. margin``.
        alpha: Level of each one-sided test.
    """
    if n < 2:
        return np.nan
    return tost_power(sd * np.sqrt(2 / n), 2 * n - 2, (-margin, margin), 0.0, alpha)


def bootstrap_weights(clusters: NDArray[np.generic], draws: int, seed: int) -> NDArray[np.float64]:
    """How often each cluster is drawn, when as many as there are are drawn with replacement.

    Args:
        clusters: (N,) whose each value is.
        draws: Resamples.
        seed: Of the draws.

    Returns:
        (draws, G) for the G clusters in ``np.unique``'s order; rows sum to G.
    """
    groups = len(np.unique(clusters))
    random = np.random.default_rng(seed)
    return random.multinomial(groups, np.full(groups, 1 / max(groups, 1)), draws).astype(np.float64)


def _error(first: Mean, second: Mean, weight: float = 1.0) -> tuple[float, float]:
    """Standard error of ``first - weight * second`` and Welch and Satterthwaite's df."""
    one, two = first.se**2, (weight * second.se) ** 2
    total = one + two
    if not np.isfinite(total):
        return np.nan, np.nan
    if total == 0:
        return 0.0, first.df + second.df
    return float(np.sqrt(total)), float(total**2 / (one**2 / first.df + two**2 / second.df))


def _t(difference: float, se: float) -> float:
    """Student's t; infinite where nothing varies, 0 where there is no difference either."""
    if se > 0:
        return float(difference / se)
    return 0.0 if difference == 0 else float(np.copysign(np.inf, difference))


def _above(t: float, df: float) -> float:
    """P(T > t)."""
    return float(special.stdtr(df, -t)) if np.isfinite(t) else float(t < 0)


def _quantile(df: float, share: float) -> float:
    return float(special.stdtrit(df, share))


def _ratio_above(first: Mean, second: Mean, bound: float) -> float:
    """P value of "the ratio is not above the bound"."""
    se, df = _error(first, second, bound)
    return _above(_t(first.mean - bound * second.mean, se), df)


def _ratio_below(first: Mean, second: Mean, bound: float) -> float:
    se, df = _error(first, second, bound)
    return _above(_t(bound * second.mean - first.mean, se), df)


def _fieller(first: Mean, second: Mean, alpha: float) -> tuple[float, float]:
    """The ratios r that ``first - r * second = 0`` is not rejected for, each side at alpha."""
    t = _quantile(_error(first, second)[1], 1 - alpha)
    square = second.mean**2 - (t * second.se) ** 2
    if square <= 0:
        return -np.inf, np.inf
    middle = first.mean * second.mean / square
    inner = (first.mean**2 - (t * first.se) ** 2) / square
    half = np.sqrt(max(middle**2 - inner, 0.0))
    return float(middle - half), float(middle + half)
