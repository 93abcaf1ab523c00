"""From what every fit predicted to what may be said of the synthetic slices.

Everything that is chosen, the rival and the synthetic arm with its ratio, is chosen on validation
slices; a fold's test is looked at once, by what was chosen before. Folds of one data set test the
patients that other folds validate on: the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from downstream.arm_scores import arm_scores
from downstream.changed_sides import changed_sides
from downstream.learning_curve import LearningCurve, Rung, curve_of
from downstream.notes import notes_of_missing_slices, notes_of_test
from downstream.outcome import Outcome, Truth
from downstream.report import Comparison, Judgement, OwnChoice, UsefulnessReport
from downstream.score_table import ScoreTable, mean_validation, patients_per_class, score_table
from downstream.statistics.bootstrap import estimate
from downstream.statistics.fieller import Ratio, fieller
from downstream.statistics.paired import (
    ROUNDING,
    PairedTest,
    Precision,
    detectable,
    holm,
    over_folds,
    paired_test,
    within_fold,
)
from downstream.verdict import MINIMUM_PATIENTS, MINIMUM_SEEDS, verdict
from fastgan_aug.errors import DataError

Source = Literal["real", "synthetic", "oracle"]


class ArmFacts(Protocol):
    """What a judgement has to know of an arm; ``downstream.arms.Arm`` is one."""

    @property
    def name(self) -> str:
        """As written in the outcomes."""

    @property
    def source(self) -> Source:
        """Where its further slices come from."""

    @property
    def ratio(self) -> str | None:
        """Of synthetic to real slices, as text."""

    @property
    def augmented(self) -> bool:
        """Whether the classical augmentation is applied too."""


@dataclass(frozen=True)
class JudgeSettings:
    """How outcomes are judged.

    Attributes:
        bootstrap: Resamplings.
        seed: Of the resamplings.
        independent: Whether the folds are replicates, with training sets of their own; else their
            training sets overlap, and the corrected resampled t test is taken.
        choose_synthetic: Whether the synthetic arm and its ratio are chosen on the validation;
            False where the generator saw the validation patients: then it is the first augmented
            one.
        caveat: Why nothing may be concluded (unknown patients, say): every verdict becomes NO
            EVIDENCE.
        notes: What a reader has to know beside what the judgement itself tells.
        provenance: Where data, generators and code come from.
    """

    bootstrap: int = 1000
    seed: int = 0
    independent: bool = False
    choose_synthetic: bool = True
    caveat: str = ""
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def judge(
    outcomes: Sequence[Outcome],
    truths: Sequence[Truth],
    arms: Sequence[ArmFacts],
    classes: Sequence[str],
    settings: JudgeSettings,
) -> UsefulnessReport:
    """Judges every classifier's arms.

    Args:
        outcomes: One for every classifier, fold, arm and seed.
        truths: One for every fold.
        arms: In the order of the report; one or more from real slices alone.
        classes: Names of the classes, C.
        settings: How.

    Raises:
        DataError: outcomes are missing, there twice or of other slices, or there is no rival.
    """
    if not any(arm.source == "real" for arm in arms):
        raise DataError(
            "there is no arm without synthetic slices", allowed="one or more",
            do='add "real" to the arms',
        )  # fmt: skip
    tested = np.asarray([patients_per_class(t, len(classes)) for t in truths]).sum(axis=0)
    patients = tuple(int(n) for n in tested)
    able = {
        name: arms_of(name, outcomes, arms)
        for name in dict.fromkeys(o.classifier for o in outcomes)
    }
    tables = [
        _table(classifier, outcomes, truths, tried, len(classes), settings)
        for classifier, tried in able.items()
    ]
    if not tables:
        raise DataError("there are no outcomes to judge", do="run the fits first")
    slices = sum(np.bincount(t.test_labels, minlength=len(classes)) for t in truths)
    return UsefulnessReport(
        classes=tuple(classes),
        folds=len(tables[0].folds),
        seeds=tables[0].seeds,
        independent=settings.independent,
        test_slices=tuple(int(n) for n in np.asarray(slices)),
        test_patients=patients,
        bootstrap=settings.bootstrap,
        judgements=tuple(
            _judgement(table, truths, able[table.classifier], classes, patients, settings)
            for table in tables
        ),
        notes=(
            *notes_of_test(tables[0], truths, classes, patients, settings.independent),
            *notes_of_missing_slices(outcomes),
            *settings.notes,
        ),
        caveat=f"This report proves nothing: {settings.caveat}." if settings.caveat else "",
        provenance=settings.provenance,
    )


def arms_of(
    classifier: str, outcomes: Sequence[Outcome], arms: Sequence[ArmFacts]
) -> list[ArmFacts]:
    """The arms that a classifier was tried with: some cannot what an arm needs."""
    tried = {o.arm for o in outcomes if o.classifier == classifier}
    return [arm for arm in arms if arm.name in tried]


def _table(
    classifier: str,
    outcomes: Sequence[Outcome],
    truths: Sequence[Truth],
    arms: Sequence[ArmFacts],
    n_classes: int,
    settings: JudgeSettings,
) -> ScoreTable:
    fixed = () if settings.choose_synthetic else [a.name for a in arms if a.source == "synthetic"]
    return score_table(
        [o for o in outcomes if o.classifier == classifier], truths, [a.name for a in arms],
        n_classes, resamplings=settings.bootstrap, seed=settings.seed, fixed=fixed,
    )  # fmt: skip


def _judgement(
    table: ScoreTable,
    truths: Sequence[Truth],
    arms: Sequence[ArmFacts],
    classes: Sequence[str],
    patients: Sequence[int],
    settings: JudgeSettings,
) -> Judgement:
    rival, chosen, how = _choose(table, arms, settings.choose_synthetic)
    precision = _precision(table, rival, settings.independent)
    tests = {arm.name: _test(table, precision, arm.name, rival) for arm in arms}
    synthetic = [arm for arm in arms if arm.source == "synthetic"]
    n_rivals = sum(arm.source == "real" for arm in arms)
    adjusted = holm([tests[arm.name].p for arm in synthetic])
    enough = min(patients) >= MINIMUM_PATIENTS and len(table.seeds) >= MINIMUM_SEEDS
    can_help = enough and not settings.caveat
    comparisons = []
    for arm, p in zip(synthetic, adjusted, strict=True):
        test, oracle = tests[arm.name], _oracle_of(arm, arms)
        apart = table.arms[arm.name].resampled[:, 0] - table.arms[rival].resampled[:, 0]
        bootstrap = estimate(test.value, apart)
        word, why = verdict(test, p, bootstrap, patients, len(table.seeds), n_rivals)
        if not any(o.n_synthetic for of_fold in table.arms[arm.name].outcomes for o in of_fold):
            word, why = "NO EVIDENCE", "no synthetic slice came: its fits are of real ones alone"
        if settings.caveat:
            word, why = "NO EVIDENCE", settings.caveat
        comparisons.append(
            Comparison(
                arm.name, rival, test, bootstrap, word, why, p, len(synthetic),
                detectable(test.se, test.df, len(synthetic)) if can_help else None,
                oracle.name if oracle else None,
                _recovered(table, precision, tests, arm.name, oracle.name) if oracle else None,
            )
        )  # fmt: skip
    changed, n_changed = changed_sides(table, truths, classes, rival, chosen)
    return Judgement(
        classifier=table.classifier,
        arms=tuple(arm_scores(table.arms[arm.name], arm, classes) for arm in arms),
        rival=rival,
        recommended=chosen,
        how=how,
        own_choice=_own_choice(table, arms, settings),
        comparisons=tuple(comparisons),
        oracle={arm.name: tests[arm.name] for arm in arms if arm.source == "oracle"},
        changed=changed,
        n_changed=n_changed,
    )


def _choose(
    table: ScoreTable, arms: Sequence[ArmFacts], choose_synthetic: bool
) -> tuple[str, str | None, str]:
    """The rival, the synthetic arm, and how they were chosen: never by the test."""
    scores = {arm.name: mean_validation(table.arms[arm.name]) for arm in arms}
    real = [arm.name for arm in arms if arm.source == "real"]
    synthetic = [arm for arm in arms if arm.source == "synthetic"]
    known = bool(np.isfinite(scores[real[0]]))
    # Of those fixed beforehand augmentation is the strongest published one.
    fixed = next((arm.name for arm in arms if arm.source == "real" and arm.augmented), real[0])
    rival = max(real, key=lambda name: scores[name]) if known else fixed
    if known:
        how = (
            f"The rival is {rival!r}: the best of {len(real)} arms without synthetic slices on the "
            f"validation slices (macro-F1 {scores[rival]:.3f})."
        )
    else:
        how = f"The rival is {rival!r}, fixed beforehand: there is no validation part to choose on."
    if not synthetic:
        return rival, None, how
    if known and choose_synthetic:
        chosen = max(synthetic, key=lambda arm: scores[arm.name]).name
        return rival, chosen, (
            f"{how} The synthetic arm is {chosen!r}, the best of {len(synthetic)} there "
            f"({scores[chosen]:.3f})."
        )  # fmt: skip
    chosen = next((arm for arm in synthetic if arm.augmented), synthetic[0]).name
    return rival, chosen, (
        f"{how} The synthetic arm is {chosen!r}, fixed beforehand: there is no validation part "
        "that the generator did not see."
    )  # fmt: skip


def _own_choice(
    table: ScoreTable, arms: Sequence[ArmFacts], settings: JudgeSettings
) -> OwnChoice | None:
    """The gain where each fold chooses rival and synthetic arm by its own validation."""
    real, synthetic = (
        [arm.name for arm in arms if arm.source == source] for source in ("real", "synthetic")
    )
    by_fold = {name: arm.validation.mean(axis=1) for name, arm in table.arms.items()}
    n = len(table.folds)
    if n < 2 or not synthetic or not settings.choose_synthetic:
        return None
    if not np.isfinite(by_fold[real[0]]).all():
        return None

    def best(names: Sequence[str]) -> tuple[str, ...]:
        scores = np.stack([by_fold[name] for name in names])
        return tuple(names[k] for k in scores.argmax(axis=0))

    rivals, chosen = best(real), best(synthetic)
    apart = np.asarray([
        table.arms[one].by_fold[i] - table.arms[other].by_fold[i]
        for i, (one, other) in enumerate(zip(chosen, rivals, strict=True))
    ])  # fmt: skip
    precision = over_folds(apart[:, None], None if settings.independent else table.test_over_train)
    return OwnChoice(rivals, chosen, _tested(float(apart.mean()), precision, 0))


def _precision(table: ScoreTable, rival: str, independent: bool) -> Precision:
    """Of all arms' differences from the rival, in the order of the table."""
    of_rival = table.arms[rival]
    if len(table.folds) > 1:
        apart = np.stack([arm.by_fold - of_rival.by_fold for arm in table.arms.values()], axis=1)
        return over_folds(apart, None if independent else table.test_over_train)
    by_seed = [arm.macro_f1[0] - of_rival.macro_f1[0] for arm in table.arms.values()]
    resampled = [
        arm.patients_resampled[:, 0] - of_rival.patients_resampled[:, 0]
        for arm in table.arms.values()
    ]
    return within_fold(np.stack(by_seed, -1), np.stack(resampled, -1), table.rare_patients)


def _test(table: ScoreTable, precision: Precision, arm: str, rival: str) -> PairedTest:
    k = list(table.arms).index(arm)
    return _tested(table.arms[arm].value - table.arms[rival].value, precision, k)


def _tested(value: float, precision: Precision, k: int) -> PairedTest:
    variance = max(float(precision.covariance[k, k]), 0.0)
    se = float(np.sqrt(variance)) if variance > ROUNDING else 0.0
    return paired_test(value, se, float(precision.df[k]))


def _oracle_of(arm: ArmFacts, arms: Sequence[ArmFacts]) -> ArmFacts | None:
    """The oracle's arm that is augmented alike: of the same ratio, or else the one that fills."""
    alike = {a.ratio: a for a in arms if a.source == "oracle" and a.augmented == arm.augmented}
    return alike.get(arm.ratio, alike.get("fill"))


def _recovered(
    table: ScoreTable, precision: Precision, tests: Mapping[str, PairedTest], arm: str, oracle: str
) -> Ratio:
    """The share of the gain of the oracle's arm."""
    names = list(table.arms)
    pair = [names.index(arm), names.index(oracle)]
    covariance = precision.covariance[np.ix_(pair, pair)]
    df = float(precision.df[pair].min())
    return fieller(tests[arm].value, tests[oracle].value, covariance, df)


def learning_curve(
    rungs: Mapping[tuple[int, int], tuple[Sequence[Outcome], Sequence[Truth]]],
    arms: Sequence[ArmFacts],
    classes: Sequence[str],
    arm: str,
    settings: JudgeSettings,
) -> tuple[LearningCurve, ...]:
    """Gain of one synthetic arm by rare-class slices, of every classifier that tried the arm.

    Args:
        rungs: (real training slices of the rare class, patients they are of) to outcomes and
            truths at that number.
        arms: All arms of the outcomes.
        classes: Names of the classes.
        arm: The synthetic arm.
        settings: As in ``judge``.

    Raises:
        DataError: as ``judge``.
    """
    found: dict[str, list[Rung]] = {}
    for (slices, patients), (outcomes, truths) in rungs.items():
        for classifier in dict.fromkeys(o.classifier for o in outcomes):
            tried = arms_of(classifier, outcomes, arms)
            if arm not in [a.name for a in tried]:
                continue
            table = _table(classifier, outcomes, truths, tried, len(classes), settings)
            rival = _choose(table, tried, settings.choose_synthetic)[0]
            gain = _test(table, _precision(table, rival, settings.independent), arm, rival)
            one = table.arms[arm]
            added = np.median([o.n_synthetic for of_fold in one.outcomes for o in of_fold])
            overlap = None if settings.independent else table.test_over_train
            rung = Rung(slices, patients, rival, table.arms[rival], one, gain, int(added), overlap)
            found.setdefault(classifier, []).append(rung)
    return tuple(curve_of(name, arm, of_one) for name, of_one in found.items())
