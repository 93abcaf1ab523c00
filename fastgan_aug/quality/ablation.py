"""The table of an ablation: one row a variant, ranked by a number that was declared beforehand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgan_aug.quality.copies.privacy import PIXELS
from fastgan_aug.quality.gate import Verdict
from fastgan_aug.quality.likeness.features import ClassifierView, FixedView
from fastgan_aug.quality.metric import OVERALL, Metric

RANKING = (
    "Ranked by the gate's answers that fail, mean over the seeds: each asks whether one figure of "
    "one cell is good enough, so that no cell's success hides another's failure and no weights "
    "had to be chosen. Of equals the smaller mean KID in the fixed features comes first, which no "
    "fit decides. A variant of which a run diverged comes after all that did not."
)
"""Declared before any run; ``order`` does it."""

FIXED, CLASSIFIER = FixedView.name, ClassifierView.name
SHOWN = (
    "kid", "mc_ratio", "abs_log_lr_ratio", "log_lr_difference", "sd_map_ratio", "coverage_ratio",
    "pairwise_ratio", "modes_ratio", "duplicate_rate", "nn_share", "copy_rate", "membership_auc",
    "real_on_synthetic", "synthetic_on_real",
)  # fmt: skip
"""Metrics that a run's record keeps."""

Run = Mapping[str, Any]
"""A run's record: ``variant``, ``overrides``, ``seed``, ``images``, ``seconds``,
``images_per_second``, ``diverged`` (why, or None), ``verdict`` (``verdict_record``) and
``metrics`` (``metric_records``)."""

_FIELDS = {"value": 0, "floor": 1, "bound": 2}


def metric_records(metrics: Sequence[Metric]) -> dict[str, dict[str, list[float | None]]]:
    """What a record keeps: ``{"name/view": {cell: [value, floor, bound]}}``.

    None stands for what is not there or not finite. Metrics without a view are named alone.
    """
    found: dict[str, dict[str, list[float | None]]] = {}
    for m in metrics:
        if m.name in SHOWN:
            cells = found.setdefault(f"{m.name}/{m.view}".rstrip("/"), {})
            cells[m.cell] = [_plain(m.value), _plain(m.floor), _plain(m.bound)]
    return found


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """What a record keeps of the verdict: how many answers, and those that fail."""
    return {
        "passed": verdict.passed,
        "answers": len(verdict.reasons),
        "failures": [{"metric": r.metric, "text": str(r)} for r in verdict.failures],
    }


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# -- one figure of one run -------------------------------------------------------------------------


def _by_cell(run: Run, name: str, field: str) -> dict[str, float]:
    """``{cell: figure}`` of the cells that could be judged; field: ``value``, ``floor``, ``bound``.

    Metrics of one value of a factor, written ``*/value``, are left out.
    """
    cells = run["metrics"].get(name, {})
    figures = {cell: of[_FIELDS[field]] for cell, of in cells.items() if cell != OVERALL}
    return {c: v for c, v in figures.items() if v is not None and not c.startswith("*/")}


def _overall(name: str) -> Callable[[Run, str], float]:
    def of(run: Run, field: str) -> float:
        figures = run["metrics"].get(name, {}).get(OVERALL)
        value = figures[_FIELDS[field]] if figures else None
        return math.nan if value is None else float(value)

    return of


def _mean(name: str) -> Callable[[Run, str], float]:
    def of(run: Run, field: str) -> float:
        values = list(_by_cell(run, name, field).values())
        return float(np.mean(values)) if values else math.nan

    return of


def _worst_of_bound(name: str) -> Callable[[Run, str], float]:
    def of(run: Run, field: str) -> float:
        bounds = _by_cell(run, name, "bound")
        found = [v / bounds[c] for c, v in _by_cell(run, name, field).items() if c in bounds]
        return max(found, default=math.nan)

    return of


def _times_off(ratio: float) -> float:
    """2 for a ratio of 2 and of one half; 1 is right."""
    return max(ratio, 1 / ratio) if ratio > 0 else math.inf


def _worst_ratio(name: str) -> Callable[[Run, str], float]:
    def of(run: Run, field: str) -> float:
        return max(map(_times_off, _by_cell(run, name, field).values()), default=math.nan)

    return of


def _worst_pattern(name: str) -> Callable[[Run, str], float]:
    def of(run: Run, field: str) -> float:
        patterns: dict[str, list[float]] = {}
        for cell, value in _by_cell(run, name, field).items():
            patterns.setdefault(cell.rpartition("/")[2], []).append(value)
        return max((_times_off(float(np.mean(v))) for v in patterns.values()), default=math.nan)

    return of


def _failures(run: Run, field: str) -> float:
    return float(len(run["verdict"]["failures"])) if field == "value" else math.nan


def _own(key: str) -> Callable[[Run, str], float]:
    def of(run: Run, field: str) -> float:
        return float(run[key]) if field == "value" and run[key] is not None else math.nan

    return of


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: In JSON.
        title: Above it.
        meaning: One sentence.
        of: The figure of a run; with ``floor`` that of real slices; NaN where there is none.
        narrow: Whether it stands in a table as wide as a terminal.
    """

    key: str
    title: str
    meaning: str
    of: Callable[[Run, str], float]
    narrow: bool = False


COLUMNS = (
    Column("failures", "failures", "answers of the gate that fail", _failures, narrow=True),
    Column("kid", "KID", "fixed features, mean of the cells", _mean(f"kid/{FIXED}"), narrow=True),
    Column("kid_worst", "KID worst / bound", "the worst cell over its bound; 1 or less passes",
           _worst_of_bound(f"kid/{FIXED}")),
    Column("kid_classifier", "KID cl.", "as KID, in the classifier's features",
           _mean(f"kid/{CLASSIFIER}")),
    Column("kid_classifier_worst", "KID cl. worst / bound", "as before, of these",
           _worst_of_bound(f"kid/{CLASSIFIER}")),
    Column("mc_worst", "MC worst", "mean counts, synthetic over real, in the worst cell: how many "
           "times off either way; 1 is right", _worst_ratio("mc_ratio"), narrow=True),
    Column("abs_log_lr_worst", "|log LR| worst", "as MC, of the mean size of the asymmetry",
           _worst_ratio("abs_log_lr_ratio"), narrow=True),
    Column("sd_map", "SD map", "pixel-wise SD, synthetic over real, mean of the cells",
           _mean("sd_map_ratio"), narrow=True),
    Column("sd_map_worst", "SD map worst", "the worst value of the last factor, times off",
           _worst_pattern("sd_map_ratio")),
    Column("coverage", "coverage", "share of real slices that have a synthetic one near, over what "
           "real slices give; fixed features", _overall(f"coverage_ratio/{FIXED}"), narrow=True),
    Column("nn_share", "near. neighb.", "share of synthetic slices nearer to training slices than "
           "to the hold-out's; 0.5 is ideal", _overall(f"nn_share/{PIXELS}"), narrow=True),
    Column("real_on_synthetic", "real on syn.", "recall, mean of the cells, on synthetic slices of "
           "a classifier that learnt from real ones", _overall("real_on_synthetic")),
    Column("synthetic_on_real", "syn. on real", "the other way round",
           _overall("synthetic_on_real")),
    Column("images_per_second", "images/s", "median over the run", _own("images_per_second"),
           narrow=True),
    Column("seconds", "seconds", "of training alone", _own("seconds")),
    Column("images", "images", "seen by the judged weights", _own("images")),
)  # fmt: skip


COMPARED = ("failures", "kid", "sd_map")
"""Columns of which the difference to the plain variant is told."""


# -- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds: mean, smallest and largest."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None unless every seed has the figure."""
        if not values or not all(map(math.isfinite, values)):
            return None
        return cls(float(np.mean(values)), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        variant: Its name.
        overrides: What it changes.
        seeds: Of its runs.
        figures: By the columns' keys; None where a seed has none.
        against: Figures less those of the plain variant's run of the same seed, which has the same
            random streams: ``failures``, ``kid`` and ``sd_map``. Empty
            for the plain variant itself.
        failing: ``{metric: answers that fail, mean over the seeds}``, most first.
        diverged: Why, for each run that did.
    """

    variant: str
    overrides: Mapping[str, Any]
    seeds: Sequence[int]
    figures: Mapping[str, Spread | None]
    against: Mapping[str, Spread | None]
    failing: Mapping[str, float]
    diverged: Sequence[str]

    @property
    def order(self) -> tuple[bool, float, float, str]:
        """Smaller is better: see ``RANKING``."""
        failures, kid = self.figures["failures"], self.figures["kid"]
        return (
            bool(self.diverged),
            failures.mean if failures else math.inf,
            kid.mean if kid else math.inf,
            self.variant,
        )


def ablation_table(runs: Sequence[Run]) -> list[Row]:
    """One row a variant, the best first; a variant's seeds in the order given."""
    by_variant: dict[str, list[Run]] = {}
    for run in runs:
        by_variant.setdefault(run["variant"], []).append(run)
    plain = {run["seed"]: run for run in runs if not run["overrides"] and not run["diverged"]}
    rows = [_row(own, plain) for own in by_variant.values()]
    return sorted(rows, key=lambda row: row.order)


def _row(runs: Sequence[Run], plain: Mapping[int, Run]) -> Row:
    judged = [run for run in runs if not run["diverged"]]
    failing = Counter(f["metric"] for run in judged for f in run["verdict"]["failures"])
    pairs = [(run, plain[run["seed"]]) for run in judged if run["seed"] in plain]
    compared = [c for c in COLUMNS if c.key in COMPARED and runs[0]["overrides"]]
    return Row(
        variant=runs[0]["variant"],
        overrides=runs[0]["overrides"],
        seeds=[run["seed"] for run in runs],
        figures={c.key: Spread.of([c.of(run, "value") for run in judged]) for c in COLUMNS},
        against={
            c.key: Spread.of([c.of(one, "value") - c.of(other, "value") for one, other in pairs])
            for c in compared
        },
        failing={name: n / len(judged) for name, n in failing.most_common()},
        diverged=[run["diverged"] for run in runs if run["diverged"]],
    )


def real_figures(runs: Sequence[Run]) -> dict[str, float | None]:
    """The same figures of real slices against real slices of other patients, where that is known.

    They are of the data alone, so that every run has the same.
    """
    judged = [run for run in runs if not run["diverged"]]
    return {c.key: _plain(c.of(judged[0], "floor")) if judged else None for c in COLUMNS}
