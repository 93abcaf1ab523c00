"""The plots of a usefulness report: differences, scores, confusions, calibration, curves."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgan_aug.cli.page import FIRST, INK, SECOND, new_plot, plot_uri

if TYPE_CHECKING:
    from downstream.learning_curve import LearningCurve
    from downstream.report import ArmScores, Judgement

COLOURS = {"real": FIRST, "synthetic": SECOND, "oracle": "#3c8d5a"}
WORDS = {"HELPS": "#1f6b3c", "HARMS": "#a3271d", "NO EVIDENCE": INK}
GRID = "#e8ebef"


def forest(judgement: Judgement) -> str:
    """Differences from the rival: thick the t interval, thin the bootstrap's; verdicts beside.

    Args:
        judgement: With one synthetic or oracle arm at least.
    """
    rows = [(c.arm, c.difference, c.bootstrap, c.verdict) for c in judgement.comparisons]
    oracle = [(name, test, None, "oracle") for name, test in judgement.oracle.items()]
    plot, (axis,) = new_plot(9.0, 0.9 + 0.38 * (len(rows) + len(oracle)))
    names = []
    for place, (name, test, bootstrap, word) in enumerate([*rows, *oracle]):
        colour = WORDS.get(word, COLOURS["oracle"])
        axis.plot([test.low, test.high], [place] * 2, color=colour, lw=2.2)
        if bootstrap is not None:
            axis.plot([bootstrap.low, bootstrap.high], [place + 0.22] * 2, color=colour, lw=0.8)
        axis.plot(test.value, place, "o", color=colour, ms=6)
        text = f"{word}  {test.value:+.3f}"
        axis.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), fontsize=8,
                      color=colour, va="center", annotation_clip=False)  # fmt: skip
        names.append(f"{name} *" if name == judgement.recommended else name)
    axis.axvline(0, color=INK, lw=0.9, ls=":")
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel(f"macro-F1, difference from {judgement.rival!r}")
    axis.grid(axis="x", color=GRID, lw=0.7)
    return plot_uri(plot)


def scores(judgement: Judgement) -> str:
    """Macro-F1 and each class's recall by arm, with intervals."""
    arms = judgement.arms
    present = list(arms[0].recall)
    panels = ["macro-F1", *(f"recall {name}" for name in present)]
    plot, axes = new_plot(2.6 + 2.2 * len(panels), 0.9 + 0.34 * len(arms), len(panels))
    for axis, title in zip(axes, panels, strict=True):
        for place, arm in enumerate(arms):
            found = arm.macro_f1 if title == "macro-F1" else arm.recall[title[len("recall ") :]]
            colour = COLOURS[arm.source]
            axis.plot([found.low, found.high], [place] * 2, color=colour, lw=1.8)
            axis.plot(found.value, place, "o", color=colour, ms=5)
        axis.set_title(title, fontsize=9)
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(len(arms) - 0.4, -0.6)
        labels = [arm.name for arm in arms] if axis is axes[0] else [""] * len(arms)
        axis.set_yticks(range(len(arms)), labels)
        axis.grid(axis="x", color=GRID, lw=0.7)
    return plot_uri(plot)


def confusion(arms: Sequence[ArmScores], classes: Sequence[str]) -> str:
    """Confusion matrices side by side: shares of each true class, slices in the middle."""
    side = 1.1 + 0.62 * len(classes)
    plot, axes = new_plot((side + 1.0) * len(arms), side + 0.5, len(arms))
    for axis, arm in zip(axes, arms, strict=True):
        counts = np.asarray(arm.confusion)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            share = shares[row, column]
            axis.text(column, row, f"{share:.0%}\n{counts[row, column]:.0f}", ha="center",
                      va="center", fontsize=7, color="white" if share > 0.55 else INK)  # fmt: skip
        axis.set_title(_folded(arm.name), fontsize=9)
        axis.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
        axis.set_yticks(range(len(classes)), classes)
        axis.set_xlabel("said")
        axis.set_ylabel("true")
    return plot_uri(plot)


def reliability(arms: Sequence[ArmScores]) -> str:
    """How often the likeliest class is right, by its probability; the area tells the slices."""
    plot, axes = new_plot(3.1 * len(arms), 3.0, len(arms))
    for axis, arm in zip(axes, arms, strict=True):
        rows = np.asarray([row for row in arm.reliability if row[0]])
        colour = COLOURS[arm.source]
        axis.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=":")
        axis.plot(rows[:, 1], rows[:, 2], color=colour, lw=1.2)
        axis.scatter(rows[:, 1], rows[:, 2], 120 * rows[:, 0] / rows[:, 0].max(), color=colour)
        axis.set_title(f"{_folded(arm.name)}\ncalibration error {arm.ece:.3f}", fontsize=9)
        axis.set(xlim=(0, 1.03), ylim=(0, 1.03))
        axis.set_xlabel("probability of the likeliest class")
        axis.set_ylabel("how often it is right")
        axis.grid(color=GRID, lw=0.7)
    return plot_uri(plot)


def learning(curves: Sequence[LearningCurve]) -> str:
    """Macro-F1 of rival and synthetic arm over the slices of the rare class, a panel a curve."""
    plot, axes = new_plot(4.4 * len(curves), 3.2, len(curves))
    for axis, curve in zip(axes, curves, strict=True):
        slices = [point.rare_slices for point in curve.points]
        _band(axis, slices, [p.rival_score for p in curve.points], FIRST, "best real arm", 0.98)
        _band(axis, slices, [p.score for p in curve.points], SECOND, curve.arm, 1.02)
        axis.set_xscale("log")
        axis.set_xticks(slices, [str(n) for n in slices])
        axis.minorticks_off()
        axis.set_title(curve.classifier, fontsize=9)
        axis.set_xlabel("real training slices of the rare class")
        axis.set_ylabel("macro-F1")
        axis.grid(axis="y", color=GRID, lw=0.7)
    handles, labels = axes[0].get_legend_handles_labels()
    plot.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=8)
    return plot_uri(plot)


def _band(
    axis: Any, slices: Sequence[int], found: Sequence[Any], colour: str, label: str, aside: float
) -> None:
    """A line with intervals; both lines' stand a little apart."""
    places = np.asarray(slices) * aside
    values = np.asarray([(f.value, f.low, f.high) for f in found]).T
    axis.plot(places, values[0], "o-", color=colour, lw=1.6, ms=5, label=label)
    axis.vlines(places, values[1], values[2], color=colour, lw=1.1)


def _folded(name: str) -> str:
    """On lines that are no wider than a small plot."""
    return textwrap.fill(name, 34)
