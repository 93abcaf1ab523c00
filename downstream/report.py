"""`UsefulnessReport`: what the arms scored and what that allows to say; plain data and JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from downstream.learning_curve import LearningCurve
from downstream.statistics.bootstrap import Estimate
from downstream.statistics.fieller import Ratio
from downstream.statistics.paired import PairedTest
from downstream.verdict import Verdict


@dataclass(frozen=True)
class ArmScores:
    """Scores of one arm on the test slices, means over folds and seeds.

    Attributes:
        name: The arm.
        source: `real`, `synthetic` or `oracle`: where its further slices come from.
        ratio: Of further to real slices, as text; None where it has none.
        augmented: Whether the classical augmentation is applied too.
        n_real: Real slices in one fit, median.
        n_synthetic: Synthetic (or the oracle's fresh) slices in one fit, median.
        seconds_per_fit: Median.
        validation: Macro-F1 on the validation; None without one. What is chosen, is chosen by it.
        macro_f1: Mean F1 over the classes in the test; intervals resample folds, seeds, patients.
        balanced_accuracy: Mean recall over the classes in the test.
        recall: Per class in the test.
        auroc: Per class in the test, one against the others.
        auprc: Likewise, average precision.
        ece: Expected calibration error of the likeliest class, ten bins, mean over the fits.
        confusion: (C, C) rows true, columns predicted: slices of all folds, mean over the seeds.
        reliability: Ten rows, all fits together: slices, mean probability of the likeliest class,
            share it was right.
        each: Macro-F1 of every fold (rows) and seed (columns).
    """

    name: str
    source: str
    ratio: str | None
    augmented: bool
    n_real: int
    n_synthetic: int
    seconds_per_fit: float
    validation: float | None
    macro_f1: Estimate
    balanced_accuracy: Estimate
    recall: Mapping[str, Estimate]
    auroc: Mapping[str, float]
    auprc: Mapping[str, float]
    ece: float
    confusion: tuple[tuple[float, ...], ...]
    reliability: tuple[tuple[float, float, float], ...]
    each: tuple[tuple[float, ...], ...]

    @property
    def synthetic(self) -> bool:
        """Whether it uses synthetic slices."""
        return self.source == "synthetic"


@dataclass(frozen=True)
class Comparison:
    """A synthetic arm against the best arm without synthetic slices.

    Attributes:
        arm: The synthetic arm.
        rival: The other one.
        difference: In macro-F1, paired by fold and seed; positive where synthetic is better. Its t
            interval and test: over folds, or within the one fold there is.
        bootstrap: The same difference, folds, seeds and test patients resampled.
        verdict: HELPS, NO EVIDENCE or HARMS.
        reason: Why that word.
        p: Two-sided, adjusted for the number of synthetic arms (Holm 1979).
        tests: That number.
        detectable: The smallest true gain that this test would have found with a power of 0.8; None
            where nothing varied, or where no gain would have been called HELPS: too few patients or
            seeds, or a caveat.
        oracle: The oracle's arm like it: of the same ratio, or else the one that fills.
        recovered: Share of that one's gain that the arm recovers (Fieller 1954); None without one.
    """

    arm: str
    rival: str
    difference: PairedTest
    bootstrap: Estimate
    verdict: Verdict
    reason: str
    p: float
    tests: int
    detectable: float | None
    oracle: str | None
    recovered: Ratio | None


@dataclass(frozen=True)
class OwnChoice:
    """What choosing is worth: each fold by its own validation patients, of whom its test has none.

    Attributes:
        rivals: The arm without synthetic slices that each fold chose.
        arms: The synthetic arm that each fold chose.
        difference: In macro-F1, over the folds.
    """

    rivals: tuple[str, ...]
    arms: tuple[str, ...]
    difference: PairedTest

    @property
    def told(self) -> str:
        """As a sentence."""
        chosen, rivals = (
            ", ".join(f"{name!r} in {n}" for name, n in Counter(names).most_common())
            for names in (self.arms, self.rivals)
        )
        return (
            f"Chosen in each fold by its own validation patients alone, ratio and all ({chosen}; "
            f"rival {rivals}), synthetic slices gain {signed(self.difference)}."
        )


@dataclass(frozen=True)
class Changed:
    """A test slice on which rival and synthetic arm differ.

    Attributes:
        fold: Its fold.
        row: Its place among the fold's test slices.
        truth: Its class.
        rival: Class that the rival's seeds give the highest mean probability.
        synthetic: The same of the synthetic arm.
        rival_chance: Probability of the true class, mean over the rival's seeds.
        synthetic_chance: The same of the synthetic arm.
    """

    fold: int
    row: int
    truth: str
    rival: str
    synthetic: str
    rival_chance: float
    synthetic_chance: float

    @property
    def gained(self) -> bool:
        """Whether the synthetic arm is the right one."""
        return self.synthetic == self.truth


@dataclass(frozen=True)
class Judgement:
    """What was found with one classifier.

    Attributes:
        classifier: Its name.
        arms: One entry per arm.
        rival: The best arm without synthetic slices.
        recommended: The synthetic arm that was chosen; None without synthetic arms.
        how: How both were chosen.
        own_choice: The same, chosen by each fold alone; None with one fold, and where one has no
            validation part or the synthetic arm is fixed beforehand.
        comparisons: One entry per synthetic arm.
        oracle: The oracle's arms against the rival.
        changed: Slices that changed sides between the rival and the chosen synthetic arm, the
            largest changes of probability first.
        n_changed: How many turned from wrong to right, and from right to wrong.
    """

    classifier: str
    arms: tuple[ArmScores, ...]
    rival: str
    recommended: str | None
    how: str
    own_choice: OwnChoice | None
    comparisons: tuple[Comparison, ...]
    oracle: Mapping[str, PairedTest]
    changed: tuple[Changed, ...]
    n_changed: tuple[int, int]

    def arm(self, name: str) -> ArmScores:
        """The scores of an arm."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def headline(self) -> Comparison | None:
        """The comparison of the chosen synthetic arm."""
        return next((c for c in self.comparisons if c.arm == self.recommended), None)

    @property
    def recommended_ratio(self) -> str | None:
        """Synthetic over real slices, of the chosen arm; None unless it HELPS."""
        found = self.headline
        if found is None or found.verdict != "HELPS":
            return None
        return self.arm(found.arm).ratio


@dataclass(frozen=True)
class UsefulnessReport:
    """Everything one experiment found.

    Attributes:
        classes: Values of the predicted factor.
        folds: How many.
        seeds: Of the fits.
        independent: Whether the folds are replicates with training sets of their own.
        test_slices: Test slices per class, all folds.
        test_patients: Test patients with a slice of each class, all folds.
        bootstrap: Resamplings.
        judgements: One entry per classifier.
        curves: Gain against the number of rare-class slices, where it was tried.
        notes: What a reader has to know.
        caveat: To be read before everything else: why the report proves nothing. Empty where
            nothing keeps it from doing so.
        provenance: Where data, generators and code come from.
    """

    classes: tuple[str, ...]
    folds: int
    seeds: tuple[int, ...]
    independent: bool
    test_slices: tuple[int, ...]
    test_patients: tuple[int, ...]
    bootstrap: int
    judgements: tuple[Judgement, ...]
    curves: tuple[LearningCurve, ...] = ()
    notes: tuple[str, ...] = ()
    caveat: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is no number is null."""
        plain = asdict(self)
        for found, judgement in zip(plain["judgements"], self.judgements, strict=True):
            found["recommended_ratio"] = judgement.recommended_ratio
        return dict(json.loads(json.dumps(_finite(plain), allow_nan=False)))

    def to_json(self) -> str:
        """JSON, indented."""
        return json.dumps(self.to_dict(), indent=2)


def _finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def usefulness_table(judgement: Judgement) -> list[dict[str, str]]:
    """One row per arm, scores with their intervals as text, the verdict beside synthetic arms."""
    verdicts = {c.arm: f"{c.verdict} ({signed(c.difference)})" for c in judgement.comparisons}
    verdicts |= {name: f"oracle ({signed(test)})" for name, test in judgement.oracle.items()}
    verdicts[judgement.rival] = "rival"
    return [
        {
            "arm": arm.name,
            "synthetic slices": str(arm.n_synthetic),
            "macro-F1": interval(arm.macro_f1),
            "balanced accuracy": interval(arm.balanced_accuracy),
            **{f"recall {name}": interval(found) for name, found in arm.recall.items()},
            "AUROC": mean_text(arm.auroc),
            "AUPRC": mean_text(arm.auprc),
            "calibration error": f"{arm.ece:.3f}",
            "s/fit": f"{arm.seconds_per_fit:.1f}",
            "verdict": verdicts.get(arm.name, ""),
        }
        for arm in judgement.arms
    ]


def mean_text(by_class: Mapping[str, float]) -> str:
    """Mean over the classes in the test, as text."""
    return f"{sum(by_class.values()) / len(by_class):.3f}" if by_class else "no test"


def interval(value: Estimate) -> str:
    """A value with its interval."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def signed(value: Estimate | PairedTest) -> str:
    """A difference with its interval."""
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
