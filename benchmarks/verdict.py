"""How often the verdict is wrong, and how often it finds a gain: `python -m benchmarks.verdict`.

Outcomes are simulated (`benchmarks.simulated_outcomes`) and judged as real ones are, 200 runs each,
1,000 where one arm has no effect (there the rate is nearest to its bound, and runs are cheap):

- no arm has an effect: how often does any synthetic arm get HELPS? At most 5 % may. The rival is
  the best of three arms on the validation, as always, though none is better than the others;
- one synthetic arm gains five points of macro-F1 over the best other arm: how often does it get
  HELPS, and how often should it by the power that the same reports state?

Folds are replicates with training sets of their own, or overlap as a cross-validation's do, where
any two training sets share most patients; with one fold, the claim is about its training set, which
then has no effect of its own. `--quick` makes 40 runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import figure, publish
from benchmarks.simulated_outcomes import CLASSES, SimulatedArm, World, shift_of_gain, simulate
from downstream.judging import JudgeSettings, judge
from downstream.report import Comparison, Judgement
from downstream.statistics.paired import stated_power
from fastgan_aug.code_version import code_version

RUNS, MANY_RUNS, QUICK_RUNS, BOOTSTRAP = 200, 1000, 40, 300
GAIN, SHARE = 0.05, 0.5
WORSE = -0.35  # shift of the planted runs' other arms: the best one is known there
ONE, EIGHT = 1, 8


@dataclass(frozen=True)
class Case:
    """What is simulated, and how it is called in the table."""

    name: str
    world: World
    synthetic: int
    planted: bool = False
    rivals: int = 3

    @property
    def runs(self) -> int:
        return RUNS if self.planted or self.synthetic > 1 else MANY_RUNS


ONE_DATA_SET = World(folds=5, overlapping=True, patients=50)  # Table 1 has 250 patients
CASES = (
    Case("5 replicates, 1 arm", World(folds=5), ONE),
    Case("5 replicates, 8 arms", World(folds=5), EIGHT),
    Case("3 replicates, 8 arms", World(folds=3), EIGHT),
    Case("5 replicates, 1 arm, 1 rival", World(folds=5), ONE, rivals=1),
    Case("3 replicates, 1 arm, 1 rival", World(folds=3), ONE, rivals=1),
    Case("5 folds of one data set, 1 arm", ONE_DATA_SET, ONE),
    Case("5 folds of one data set, 8 arms", ONE_DATA_SET, EIGHT),
    Case("5 folds of one data set, 1 arm, 1 rival", ONE_DATA_SET, ONE, rivals=1),
    Case("5 folds of one data set, 8 arms, 1 rival", ONE_DATA_SET, EIGHT, rivals=1),
    Case("1 fold, 8 arms", World(folds=1, training=0.0), EIGHT),
    Case("1 fold, 1 arm, 1 rival", World(folds=1, training=0.0), ONE, rivals=1),
    Case("5 replicates, 1 arm", World(folds=5), ONE, planted=True),
    Case("10 replicates, 1 arm", World(folds=10), ONE, planted=True),
    Case("10 replicates, 8 arms", World(folds=10), EIGHT, planted=True),
    Case("5 folds of one data set, 1 arm", ONE_DATA_SET, ONE, planted=True),
    Case("1 fold, 1 arm", World(folds=1, training=0.0), ONE, planted=True),
)


@dataclass
class Found:
    """What the reports of all runs of a case said; a row a run.

    Attributes:
        helps: Whether any synthetic arm got HELPS.
        harms: Whether any got HARMS.
        found: Whether the first synthetic arm, the planted one, got HELPS.
        claimed: Power for the gain that its report states.
        held: Whether its interval held the true difference.
        differences: Its difference from the rival, per fold.
        shares: Whether Fieller's interval held the true share; NaN where it was undefined.
    """

    helps: list[bool] = field(default_factory=list)
    harms: list[bool] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    claimed: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    differences: list[NDArray[np.float64]] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def add(self, judgement: Judgement, truth: float) -> None:
        """One run."""
        words = [c.verdict for c in judgement.comparisons]
        first = judgement.comparisons[0]
        test = first.difference
        self.helps.append("HELPS" in words)
        self.harms.append("HARMS" in words)
        self.found.append(words[0] == "HELPS")
        self.claimed.append(stated_power(GAIN, test.se, test.df, first.tests))
        self.held.append(test.low <= truth <= test.high)
        one, other = (np.asarray(judgement.arm(n).each) for n in (first.arm, first.rival))
        self.differences.append((one - other).mean(axis=1))
        self.shares.append(_held_share(first))


def _held_share(first: Comparison) -> float:
    share = first.recovered
    if share is None or share.low is None or share.high is None:
        return float("nan")
    return float(share.low <= SHARE <= share.high)


def arms_of(case: Case, shift: float, oracle: float) -> tuple[SimulatedArm, ...]:
    """The real arms, and the synthetic ones, the first of which may be planted."""
    worse = WORSE if case.planted else 0.0
    real = [SimulatedArm("strong rival")]
    real += [SimulatedArm(f"rival {i}", shift=worse) for i in range(1, case.rivals)]
    synthetic = [SimulatedArm(f"synthetic {i}", "synthetic", str(i)) for i in range(case.synthetic)]
    if not case.planted:
        return (*real, *synthetic)
    synthetic[0] = SimulatedArm("synthetic 0", "synthetic", "0", shift=shift)
    return (*real, *synthetic, SimulatedArm("oracle", "oracle", "fill", shift=oracle))


def run_case(case: Case, runs: int, shift: float = 0.0, oracle: float = 0.0) -> Found:
    """Simulates and judges; run i of every case has a seed of its own."""
    arms, found = arms_of(case, shift, oracle), Found()
    for run in range(runs):
        outcomes, truths = simulate(case.world, arms, np.random.default_rng([0, run]))
        settings = JudgeSettings(
            bootstrap=BOOTSTRAP, seed=run, independent=not case.world.overlapping
        )
        report = judge(outcomes, truths, arms, CLASSES, settings)
        found.add(report.judgements[0], GAIN if case.planted else 0.0)
    return found


def figures_of(case: Case, found: Found) -> list[dict[str, Any]]:
    """How often a case was judged how."""
    name = f"{'gain of 5 points' if case.planted else 'no effect'}, {case.name}"
    held = figure(f"{name}: 95 % interval holds the truth", float(np.mean(found.held)), "of runs")
    if not case.planted:
        spread = np.concatenate(found.differences).std()
        return [
            figure(f"{name}: HELPS", float(np.mean(found.helps)), "of runs", 0.05),
            figure(f"{name}: HARMS", float(np.mean(found.harms)), "of runs"),
            held,
            figure(f"{name}: SD of a fold's difference", float(spread), "macro-F1"),
        ]
    rate, claimed = float(np.mean(found.found)), float(np.mean(found.claimed))
    error = 2 * float(np.sqrt(max(claimed * (1 - claimed), 0.01) / len(found.found)))
    shares = np.asarray(found.shares)
    known = shares[np.isfinite(shares)]
    rows = [
        figure(f"{name}: HELPS", rate, "of runs"),
        figure(f"{name}: power stated, mean", claimed, "of runs"),
        figure(f"{name}: apart (two simulation errors)", abs(rate - claimed), "", error),
        held,
        figure(f"{name}: recovered share defined", len(known) / len(shares), "of runs"),
    ]
    if len(known):
        rows.append(
            figure(f"{name}: its interval holds the truth", float(known.mean()), "of these")
        )
    return rows


def main() -> None:
    """Runs every case and publishes the rates."""
    quick = "--quick" in sys.argv
    figures: list[dict[str, Any]] = []
    for case in CASES:
        shift = shift_of_gain(case.world, GAIN) if case.planted else 0.0
        oracle = shift_of_gain(case.world, GAIN / SHARE) if case.planted else 0.0
        runs = QUICK_RUNS if quick else case.runs
        figures += figures_of(case, run_case(case, runs, shift, oracle))
    kinds = {"one arm without effect": MANY_RUNS, "other cases": RUNS}
    publish(
        "verdict", figures, seeds=[0], runs=QUICK_RUNS if quick else kinds, bootstrap=BOOTSTRAP,
        code=code_version(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
