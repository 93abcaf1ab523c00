"""Gain against the number of rare-class slices, and what a real patient is worth.

The curve of the best rival says how much a further real patient gives. Where a synthetic arm stands
above it, it stands as high as the rival would with more patients: so many synthetic slices did the
work of so many patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from downstream.score_table import ArmTable
from downstream.statistics.bootstrap import Estimate, estimate
from downstream.statistics.paired import PairedTest, over_folds, paired_test


@dataclass(frozen=True)
class Worth:
    """How many synthetic slices do the work of one more real patient of the rare class.

    Attributes:
        value: Synthetic slices per patient; None where it is not identified.
        low: Lower end of the 95 % interval; None likewise; 0 where the interval of the gain
            reaches beyond the rival's curve, so that only a most is known.
        high: Upper end; None likewise.
        reason: Why it is not identified; empty where it is.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""


@dataclass(frozen=True)
class CurvePoint:
    """The arms at one number of rare-class slices.

    Attributes:
        rare_slices: Real training slices of the rare class.
        rare_patients: Patients they are of.
        rival: The best arm without synthetic slices, chosen on the validation of this number.
        rival_score: Its macro-F1.
        score: Macro-F1 of the synthetic arm.
        gain: Paired difference.
        n_synthetic: Synthetic slices in one fit, median.
        worth: Of a further real patient.
    """

    rare_slices: int
    rare_patients: int
    rival: str
    rival_score: Estimate
    score: Estimate
    gain: PairedTest
    n_synthetic: int
    worth: Worth


@dataclass(frozen=True)
class LearningCurve:
    """Points of one classifier and one synthetic arm, fewest slices first."""

    classifier: str
    arm: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, eq=False)
class Rung:
    """What is known at one number of rare-class slices.

    Attributes:
        rare_slices: Real training slices of the rare class.
        rare_patients: Patients they are of.
        rival: Name of the best arm without synthetic slices.
        of_rival: Its fits.
        of_arm: Those of the synthetic arm.
        gain: Test of their difference.
        n_synthetic: Synthetic slices in one fit, median.
        test_over_train: Test slices over training slices where the folds' training sets overlap;
            None where the folds are independent.
    """

    rare_slices: int
    rare_patients: int
    rival: str
    of_rival: ArmTable
    of_arm: ArmTable
    gain: PairedTest
    n_synthetic: int
    test_over_train: float | None = None


def curve_of(classifier: str, arm: str, rungs: Sequence[Rung]) -> LearningCurve:
    """The learning curve, with the worth of a patient at every point but the last.

    Args:
        classifier: Its name.
        arm: The synthetic arm.
        rungs: One per number of slices, in any order.
    """
    rungs = sorted(rungs, key=lambda rung: rung.rare_slices)
    points = [
        CurvePoint(
            rung.rare_slices,
            rung.rare_patients,
            rung.rival,
            estimate(rung.of_rival.value, rung.of_rival.resampled[:, 0]),
            estimate(rung.of_arm.value, rung.of_arm.resampled[:, 0]),
            rung.gain,
            rung.n_synthetic,
            _worth(rungs, i),
        )
        for i, rung in enumerate(rungs)
    ]
    return LearningCurve(classifier, arm, tuple(points))


def _worth(rungs: Sequence[Rung], i: int) -> Worth:
    """At the i-th point: by interpolation on the rival's curve, where all of it is identified."""
    rung = rungs[i]
    if i == len(rungs) - 1:
        return _unknown("the rival's curve ends here")
    if rung.gain.low <= 0:
        return _unknown("the gain is not shown to lie above 0")
    if not rises(rung.of_rival, rungs[-1].of_rival, rung.test_over_train):
        return _unknown("the rival is not shown to gain by further patients")
    slices = np.asarray([r.rare_slices for r in rungs], np.float64)
    patients = np.asarray([r.rare_patients for r in rungs], np.float64)
    of_rival = np.stack([r.of_rival.resampled[:, 0] for r in rungs], axis=1)
    gain = rung.of_arm.resampled[:, 0] - rung.of_rival.resampled[:, 0]
    reach = _interpolation(slices, patients, i)
    value = reach(np.asarray([r.of_rival.value for r in rungs]), rung.gain.value)
    drawn = np.sort([reach(c, g) for c, g in zip(of_rival, gain, strict=True)])
    # Percentiles without interpolation, which infinite values would not bear.
    low, high = (float(drawn[round(share * (len(drawn) - 1))]) for share in (0.025, 0.975))
    if not np.isfinite(value):
        return _unknown("the gain reaches beyond the end of the rival's curve")
    if low <= 0 or value <= 0:
        return _unknown("resampled, the gain is not shown to lie above 0")
    n = rung.n_synthetic  # over infinitely many patients, where the curve ends before: 0
    return Worth(n / value, n / high, n / low)


def rises(few: ArmTable, many: ArmTable, test_over_train: float | None = None) -> bool:
    """Whether an arm is shown to score higher with more slices.

    By the t test over folds, as for a gain: resampled, three folds would show a rise of a flat
    curve far too often. Where one rung has one fold or the folds are not the same, by the
    bootstrap.

    Args:
        few: The arm with fewer slices.
        many: The same arm, or that number's own, with more.
        test_over_train: As in ``over_folds``.
    """
    if not len(many.by_fold) == len(few.by_fold) > 1:
        return bool(np.percentile(many.resampled[:, 0] - few.resampled[:, 0], 2.5) > 0)
    difference = (many.by_fold - few.by_fold)[:, None]
    precision = over_folds(difference, test_over_train)
    se = float(np.sqrt(precision.covariance[0, 0]))
    test = paired_test(float(difference.mean()), se, float(precision.df[0]))
    return test.low > 0


def _unknown(reason: str) -> Worth:
    return Worth(None, None, None, reason)


def _interpolation(
    slices: NDArray[np.float64], patients: NDArray[np.float64], start: int
) -> Callable[[NDArray[np.float64], float], float]:
    """(the rival's scores, a gain) to further patients; infinite beyond the curve's end.

    The rival's scores are made monotone by least squares (isotonic regression), and are straight
    between two points over the logarithm of the slices, as learning curves nearly are.
    """
    from sklearn.isotonic import isotonic_regression

    places = np.log(slices)

    def reach(scores: NDArray[np.float64], gain: float) -> float:
        rising = isotonic_regression(scores) + 1e-12 * np.arange(len(scores))
        wanted = rising[start] + gain
        if wanted > rising[-1]:
            return float("inf")
        place = np.interp(wanted, rising, places)
        return float(np.interp(np.exp(place), slices, patients) - patients[start])

    return reach
