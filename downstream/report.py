"""`UsefulnessReport`: what the arms scored and what that allows to say; rows, JSON and a plot."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from downstream.scores import Estimate, Ranking, Verdict


@dataclass(frozen=True)
class ArmScores:
    """Scores of one arm on the test patients, means over the seeds.

    Attributes:
        name: The arm.
        synthetic: Whether it used synthetic slices.
        n_synthetic: How many, in one fit.
        macro_f1: Mean F1 over the classes in the test.
        balanced_accuracy: Mean recall over the classes in the test.
        recall: Per class in the test.
        macro_f1_per_seed: One value per seed: how much the fit itself varies.
        ranking: AUROC, AUPRC and calibration; None where the test has one class alone.
        seconds_per_fit: Median, with the request for synthetic slices and the predictions.
    """

    name: str
    synthetic: bool
    n_synthetic: int
    macro_f1: Estimate
    balanced_accuracy: Estimate
    recall: Mapping[str, Estimate]
    macro_f1_per_seed: tuple[float, ...]
    seconds_per_fit: float
    ranking: Ranking | None = None


@dataclass(frozen=True)
class Comparison:
    """A synthetic arm against the best arm without synthetic slices.

    Attributes:
        arm: The synthetic arm.
        rival: The other one.
        difference: In macro-F1, paired by patient and seed; positive where synthetic is better.
        verdict: HELPS, NO EVIDENCE or HARMS.
        reason: Why that word.
        p: Two-sided, adjusted for the number of synthetic arms (Holm 1979).
        detectable: The smallest true gain that this test would have found with a power of 0.8; None
            where there are too few patients to tell.
    """

    arm: str
    rival: str
    difference: Estimate
    verdict: Verdict
    reason: str
    p: float
    detectable: float | None


@dataclass(frozen=True)
class UsefulnessReport:
    """Everything one experiment found.

    Attributes:
        factor: What was predicted.
        classes: Its values.
        train_slices: Real training slices per class.
        test_slices: Test slices per class.
        test_patients: Test patients with a slice of each class.
        train_digest: Digest of the training data.
        test_digest: Digest of the test data.
        seeds: Of the fits.
        steps: Optimiser steps of every fit, the same for all arms.
        batch: Slices per step.
        bootstrap: Resamplings of the test patients.
        arms: One entry per arm.
        comparisons: One entry per synthetic arm.
        notes: What a reader has to know.
        caveat: To be read before everything else: why the report proves nothing. Empty where
            nothing keeps it from doing so.
    """

    factor: str
    classes: tuple[str, ...]
    train_slices: tuple[int, ...]
    test_slices: tuple[int, ...]
    test_patients: tuple[int, ...]
    train_digest: str
    test_digest: str
    seeds: tuple[int, ...]
    steps: int
    batch: int
    bootstrap: int
    arms: tuple[ArmScores, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    caveat: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(json.loads(json.dumps(asdict(self), allow_nan=False)))

    def to_json(self) -> str:
        """JSON, indented."""
        return json.dumps(self.to_dict(), indent=2)


def usefulness_table(report: UsefulnessReport) -> list[dict[str, str]]:
    """One row per arm, scores with their intervals as text, the verdict beside synthetic arms."""
    verdicts = {c.arm: f"{c.verdict} ({_signed(c.difference)})" for c in report.comparisons}
    rivals = {c.rival for c in report.comparisons}
    return [
        {
            "arm": arm.name,
            "synthetic slices": str(arm.n_synthetic),
            "macro-F1": _interval(arm.macro_f1),
            "balanced accuracy": _interval(arm.balanced_accuracy),
            **{
                f"recall {name}": _interval(arm.recall[name]) if name in arm.recall else "no test"
                for name in report.classes
            },
            "AUROC": f"{arm.ranking.auroc:.3f}" if arm.ranking else "no test",
            "AUPRC": f"{arm.ranking.auprc:.3f}" if arm.ranking else "no test",
            "calibration error": f"{arm.ranking.ece:.3f}" if arm.ranking else "no test",
            "s/fit": f"{arm.seconds_per_fit:.1f}",
            "verdict": verdicts.get(arm.name, "rival" if arm.name in rivals else ""),
        }
        for arm in report.arms
    ]


def _interval(value: Estimate) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _signed(value: Estimate) -> str:
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def usefulness_plot(report: UsefulnessReport) -> bytes:
    """Points with 95 % intervals: macro-F1 and each class's recall by arm. A PNG."""
    from matplotlib.figure import Figure

    present = [name for name in report.classes if name in report.arms[0].recall]
    panels = ["macro-F1", *(f"recall {name}" for name in present)]
    height = 1.2 + 0.4 * len(report.arms)
    figure = Figure(figsize=(2.2 + 2.2 * len(panels), height), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, title in zip(axes, panels, strict=True):
        for y, arm in enumerate(report.arms):
            found = arm.macro_f1 if title == "macro-F1" else arm.recall[title[len("recall ") :]]
            axis.plot([found.low, found.high], [y, y], color=_colour(arm), linewidth=2)
            axis.plot(found.value, y, "o", color=_colour(arm), markersize=6)
        axis.set_title(title, fontsize=9)
        axis.set_xlim(-0.02, 1.02)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(report.arms)), [arm.name for arm in report.arms], fontsize=8)
    axes[0].invert_yaxis()
    words = "; ".join(f"{c.arm}: {c.verdict}" for c in report.comparisons)
    told = f"{report.factor}, {sum(report.test_slices)} test slices. {words}"
    figure.suptitle("\n".join(filter(None, (report.caveat, told))), fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _colour(arm: ArmScores) -> str:
    return "#c44e52" if arm.synthetic else "#4c72b0"
