"""What the gate found, one line a question, in words for those who do not live with the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastgan_aug.quality.gate import Reason, Verdict
from fastgan_aug.quality.metric import OVERALL

SHOWN = 3  # cells named in a line
ADVICE = (
    "What could not be judged does not pass. What can be done: add patients (or synthetic slices) "
    "of these cells; or write gate rules that name the cells which can be judged (cells in "
    "[[quality.gate]] of a configuration, given with --config); or have a person promote the "
    "version by name with --override, which is recorded."
)
"""Said once where a cell could not be judged."""
PHANTOM_FROM_PHANTOMS = (
    "This generator started from a prior that was fitted to phantoms, and was fitted to a phantom: "
    "that proves nothing about what few slices are enough for."
)
"""Said wherever such a generator is judged."""


@dataclass(frozen=True)
class Words:
    """How a metric is spoken of.

    Attributes:
        title: What is asked.
        good: When it passes.
        bad: When it does not; followed by where and by how much.
    """

    title: str
    good: str
    bad: str


WORDS = {
    "mc_ratio": Words(
        "Mean counts",
        "synthetic slices have the mean counts of real ones",
        "mean counts are off, synthetic over real",
    ),
    "log_lr_difference": Words(
        "Left against right",
        "no side is favoured more than among real slices",
        "one side is favoured, difference of log left/right",
    ),
    "abs_log_lr_ratio": Words(
        "Asymmetry",
        "slices are as lopsided as real ones",
        "the asymmetry is not that of real slices, synthetic over real",
    ),
    "mc_equivalence": Words(
        "Mean counts, equivalence",
        "shown to be equivalent on fresh patients",
        "equivalence on fresh patients is not shown, P value",
    ),
    "log_lr_equivalence": Words(
        "Left against right, equivalence",
        "shown to be equivalent on fresh patients",
        "equivalence on fresh patients is not shown, P value",
    ),
    "abs_log_lr_equivalence": Words(
        "Asymmetry, equivalence",
        "shown to be equivalent on fresh patients",
        "equivalence on fresh patients is not shown, P value",
    ),
    "sd_map_ratio": Words(
        "Diversity, pixel by pixel",
        "slices vary as real ones do",
        "slices vary too little or too much, SD map synthetic over real",
    ),
    "kid": Words(
        "Likeness",
        "the distance to real slices is what other real patients have, or little more",
        "slices can be told from real ones, kernel distance",
    ),
    "coverage_ratio": Words(
        "Kinds of slices covered",
        "what real patients show is found among synthetic slices",
        "kinds of real slices are missing, coverage over that of real patients",
    ),
    "pairwise_ratio": Words(
        "Spread",
        "two synthetic slices differ as two real ones do",
        "synthetic slices are too alike, mean distance over that of real ones",
    ),
    "modes_ratio": Words(
        "Number of kinds",
        "about as many kinds of slices as in real data",
        "there are too few kinds of slices, share of the real number",
    ),
    "duplicate_rate": Words(
        "Repeats",
        "the generator does not repeat itself",
        "the generator repeats itself, share of slices with a twin",
    ),
    "nn_share": Words(
        "Nearness to training patients",
        "slices lie no nearer to training patients than to others",
        "slices lie too near to training patients, share with a training slice as nearest",
    ),
    "copy_rate": Words(
        "Copies",
        "no more near-copies of training slices than chance gives",
        "training slices are given back, share of near-copies",
    ),
    "membership_auc": Words(
        "Who was trained on",
        "the slices do not tell who was in the training data",
        "the slices tell who was in the training data, AUC",
    ),
    "real_on_synthetic": Words(
        "Made for a cell, seen as that cell",
        "a classifier that learnt from real slices recognises the synthetic ones",
        "a classifier that learnt from real slices does not recognise the synthetic ones, share",
    ),
    "synthetic_on_real": Words(
        "Teaches what is real",
        "a classifier that learnt from synthetic slices recognises real ones",
        "a classifier that learnt from synthetic slices does not recognise real ones, share",
    ),
}


@dataclass(frozen=True)
class Line:
    """One question and its answer.

    Attributes:
        title: What was asked.
        text: The answer, a sentence.
        passed: Whether every rule of it passes.
    """

    title: str
    text: str
    passed: bool


def lines_of(verdict: Verdict) -> list[Line]:
    """One line for each metric that a rule speaks of, in the table's order."""
    asked: dict[str, list[Reason]] = {}
    for reason in verdict.reasons:
        asked.setdefault(reason.metric, []).append(reason)
    return [_line(metric, reasons) for metric, reasons in asked.items()]


def _line(metric: str, reasons: Sequence[Reason]) -> Line:
    words = WORDS.get(metric) or Words(metric, "as it should be", "not as it should be")
    failed = [reason for reason in reasons if not reason.passed]
    if not failed:
        return Line(words.title, f"{_sentence(words.good)}{_range(reasons)}.", True)
    if all(reason.value is None for reason in failed):
        return Line(words.title, "Not measured, so nothing can be said.", False)
    bad = [reason for reason in failed if not reason.unjudged]
    said = [f"{_sentence(words.bad)}: {_worst(bad)}."] if bad else []
    return Line(words.title, " ".join([*said, *_unjudged(failed)]), False)


def _unjudged(failed: Sequence[Reason]) -> list[str]:
    """A sentence for each reason why cells could not be judged; a cell is named once in it."""
    cells: dict[str, dict[str, None]] = {}
    for reason in failed:
        if reason.unjudged:
            cells.setdefault(reason.note, {})[_group(reason)] = None
    said = []
    for note, where in cells.items():
        names = list(where)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        why = f": {note}" if note else ""
        said.append(f"Could not be judged in {', '.join(names[:SHOWN])}{more}{why}.")
    return said


def _worst(failed: Sequence[Reason]) -> str:
    """The first failures; a bound that all have in common is told once."""
    bounds = {(reason.at_least, reason.at_most) for reason in failed}
    alike = len(bounds) == 1
    shown = ", ".join(_where(reason, not alike) for reason in failed[:SHOWN])
    more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    return shown + more + (f" (wanted: {_wanted(failed[0])})" if alike else "")


def _range(reasons: Sequence[Reason]) -> str:
    """The values, from the least to the largest."""
    values = [reason.value for reason in reasons if reason.value is not None]
    low, high = _short(min(values)), _short(max(values))
    return f" ({low})" if low == high else f" ({low} to {high})"


def _where(reason: Reason, with_bound: bool) -> str:
    if reason.value is None:
        return "not measured"
    where = _group(reason)
    view = f", {reason.view}," if reason.view else ""
    bound = f" (wanted: {_wanted(reason)})" if with_bound else ""
    return f"{where}{view} {_short(reason.value)}{bound}"


def _group(reason: Reason) -> str:
    return "all cells together" if reason.cell == OVERALL else reason.cell


def _wanted(reason: Reason) -> str:
    low, high = reason.at_least, reason.at_most
    if low is not None and high is not None:
        return f"{_short(low)} to {_short(high)}"
    if low is None and high is None:
        return "a bound that could be found"
    return f"at least {_short(low)}" if low is not None else f"at most {_short(high or 0.0)}"


def _short(value: float) -> str:
    """Three digits at most; two are enough below 0.1."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2g}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
