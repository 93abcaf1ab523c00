"""Laws of the usefulness page: one file, nothing outside it, what matters on top."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.simulated_outcomes import CLASSES, SimulatedArm, World, simulate
from downstream.judging import JudgeSettings, judge, learning_curve
from downstream.report import UsefulnessReport
from downstream.statistics.fieller import Ratio
from fastgan_aug.cli.downstream_page import share_text, write_usefulness_page
from fastgan_aug.cli.page import new_plot, plot_uri

ARMS = (
    SimulatedArm("real"),
    SimulatedArm("half <i>", "synthetic", "0.5", shift=2.0),
    SimulatedArm("oracle", "oracle", shift=2.5),
)
WORLD = World(folds=3, seeds=3, patients=30)
QUICK = JudgeSettings(
    bootstrap=100, independent=True, notes=("a note",), provenance={"train_digest": "abc123"}
)


@pytest.fixture(scope="module")
def report() -> UsefulnessReport:
    rungs = {(n, n // 2): simulate(WORLD, ARMS, np.random.default_rng(n)) for n in (8, 16)}
    found = judge(*rungs[16, 8], ARMS, CLASSES, QUICK)
    return replace(found, curves=learning_curve(rungs, ARMS, CLASSES, "half <i>", QUICK))


def page(report: UsefulnessReport, folder: Path, pictures: bool = True) -> str:
    images = {
        fold: np.random.default_rng(fold).random((120, 16, 16)).astype(np.float32)
        for fold in range(3)
    }
    write_usefulness_page(report, folder / "page.html", images if pictures else None)
    return (folder / "page.html").read_text()


def test_everything_is_inside(report: UsefulnessReport, tmp_path: Path) -> None:
    text = page(report, tmp_path)
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", text)
    assert len(links) >= 6
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not re.search(r"<(script|link|iframe)\b|@import|url\(", text)
    assert "<i>" not in text.replace("<i>simulated</i>", ""), "names are escaped"


def test_verdict_and_figures_are_told(report: UsefulnessReport, tmp_path: Path) -> None:
    text = page(report, tmp_path)
    (judgement,) = report.judgements
    assert f"<b>{judgement.comparisons[0].verdict}</b>" in text
    for told in (judgement.rival, "a note", "abc123", "training sets of their own", "oracle"):
        assert told in text
    gained = [c for c in judgement.changed if c.gained]
    assert f"{judgement.n_changed[0]} slices turned right" in text
    assert text.count('alt="test slice of') == len(judgement.changed) >= len(gained) > 0


def test_the_caveat_stands_on_top(report: UsefulnessReport, tmp_path: Path) -> None:
    caveat = "This report proves nothing: nobody knows the patients."
    text = page(replace(report, caveat=caveat), tmp_path)
    assert text.index(caveat) < text.index('class="verdict')


def test_no_gain_is_promised_where_none_can_help(report: UsefulnessReport, tmp_path: Path) -> None:
    assert "would have been found four times" in page(report, tmp_path)
    outcomes, truths = simulate(replace(WORLD, seeds=2), ARMS, np.random.default_rng(0))
    text = page(judge(outcomes, truths, ARMS, CLASSES, QUICK), tmp_path)
    assert "found four times" not in text
    assert "Seeds of each arm: 2, fewer than 3" in text


def test_without_slices_or_synthetic_arms_there_is_a_page(
    report: UsefulnessReport, tmp_path: Path
) -> None:
    assert 'alt="test slice' not in page(report, tmp_path, pictures=False)
    outcomes, truths = simulate(WORLD, ARMS[:1], np.random.default_rng(0))
    alone = judge(outcomes, truths, ARMS[:1], CLASSES, QUICK)
    assert "no synthetic arm was tried" in page(alone, tmp_path)


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (None, "–"),
        (Ratio(0.5, 0.25, 0.8), "50% [25%, 80%] of “oracle”"),
        (Ratio(None, None, None, "no oracle gain"), "undefined: no oracle gain"),
    ],
)
def test_the_share_is_told_or_why_there_is_none(
    report: UsefulnessReport, share: Ratio | None, told: str
) -> None:
    line = replace(report.judgements[0].comparisons[0], oracle="oracle", recovered=share)
    assert share_text(line) == told


def test_names_with_dollar_signs_are_no_formulas() -> None:
    plot, (axis,) = new_plot(3, 2)
    axis.set_title("$\\frac{$")  # as a formula it could not be drawn
    axis.set_yticks([0, 1], ["10 $", "$\\frac{$"])
    axis.plot([0, 1], [0, 1], label="$\\frac{$")
    axis.legend()
    assert plot_uri(plot).startswith("data:image/png;base64,")
