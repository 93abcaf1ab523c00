"""What the nested experiment says: the judgement, its notes, and the learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from downstream.fold import Fold
    from downstream.judging import JudgeSettings
    from downstream.learning_curve import LearningCurve
    from downstream.outcome import Outcome, Truth
    from downstream.report import UsefulnessReport
    from fastgan_aug.cli.nested_command import Fitted, Nested


def judged(asked: Nested, fitted: Sequence[Fitted]) -> UsefulnessReport | None:
    """What the complete seeds of all slices say, and the learning curve over the other rungs.

    Returns:
        None where no seed is complete.
    """
    from downstream.experiment import NO_GROUPS, untried
    from downstream.fold import factor_of
    from downstream.judging import JudgeSettings, judge
    from downstream.notes import notes_of_balance
    from fastgan_aug.data.schema import BY_PATIENT

    whole, *fewer = fitted
    if not whole.experiment.complete_seeds:
        return None
    folds, arms, section = whole.rung.folds, whole.experiment.arms, asked.config.downstream
    factor = factor_of(folds[0].train, section)
    balance = section.balance or factor
    grouped = all(fold.train.meta.grouping == BY_PATIENT for fold in folds)
    provenance = {
        "factor": factor,
        "balance": balance,
        "config_digest": asked.config.digest,
        "generators": list(whole.records),
        "folds": [digests(fold) for fold in folds],
    }
    if fewer:
        provenance["fewer_slices"] = [
            {
                "rare_slices": one.rung.parts[0].rare_slices,
                "generators": list(one.records),
                "folds": [digests(fold) for fold in one.rung.folds],
            }
            for one in fewer
        ]
    gate = (note for one in fitted for note in gate_notes(one.records, one.rung.name))
    settings = JudgeSettings(
        bootstrap=section.bootstrap,
        caveat="" if grouped else NO_GROUPS,
        notes=(
            *notes_of_balance(factor, balance),
            *gate,
            *untried(section.classifiers, arms),
        ),
        provenance=provenance,
    )
    classes = folds[0].train.meta.space.factor(factor).values
    report = judge(*_known(whole, factor), arms, classes, settings)
    rungs = [one for one in fitted if one.experiment.complete_seeds]
    return _with_curves(report, rungs, factor, settings) if len(rungs) > 1 else report


def _known(fitted: Fitted, factor: str) -> tuple[list[Outcome], list[Truth]]:
    """What the complete seeds predicted, and what it is held against."""
    from downstream.fold import truth_of

    seeds = fitted.experiment.complete_seeds
    outcomes = [o for o in fitted.experiment.outcomes if o.seed in seeds]
    return outcomes, [truth_of(fold, factor) for fold in fitted.rung.folds]


def _with_curves(
    report: UsefulnessReport, fitted: Sequence[Fitted], factor: str, settings: JudgeSettings
) -> UsefulnessReport:
    """The report with a curve of each classifier's chosen synthetic arm."""
    from downstream.fold import rarest_value
    from downstream.judging import learning_curve

    whole = fitted[0]
    rarest = rarest_value(whole.rung.parts[0].dataset, factor)
    rungs = {one.rung.rare(factor): _known(one, factor) for one in fitted}
    curves: list[LearningCurve] = []
    for judgement in report.judgements:
        if judgement.recommended is None:
            continue
        of_one = {
            place: ([o for o in outcomes if o.classifier == judgement.classifier], truths)
            for place, (outcomes, truths) in rungs.items()
        }
        curves += learning_curve(
            of_one, whole.experiment.arms, report.classes, judgement.recommended, settings
        )
    told = (
        f"Learning curve: fewer slices are those of fewer patients with {rarest}; slices and "
        "patients are the folds' median. Validation and test are the same at every number, so the "
        "rival is chosen on more slices than such a data set would have."
    )
    return replace(report, curves=tuple(curves), notes=(*report.notes, told))


def gate_notes(records: Sequence[dict[str, Any]], name: str = "") -> list[str]:
    """What the gate said of each fold's generator; a fold is kept whatever it said."""
    told = [f"{name}fold {r['seed']}: {_gate_words(r['verdict'])}" for r in records]
    return [note[0].upper() + note[1:] for note in told]


def _gate_words(verdict: dict[str, Any]) -> str:
    if verdict["passed"]:
        return "the gate says PASS of its generator."
    if not verdict["answers"]:
        return f"the gate {verdict['failures'][0]['text']}; the fold is kept."
    return (
        f"the gate says FAIL of its generator ({len(verdict['failures'])} of {verdict['answers']} "
        "answers); the fold is kept, since to drop it would select."
    )


def digests(fold: Fold) -> dict[str, str]:
    """Of the fold's parts."""
    parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    return {name: part.digest for name, part in parts.items()}
