"""The page of `fastgan-aug evaluate`: is the generator any good, and what tells so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.cli.evaluate_plots import curves, dispersion, whiskers
from fastgan_aug.cli.page import FIRST, SECOND, SPREAD, scale_uri, slice_uri, write_page
from fastgan_aug.data.contact_sheet import examples
from fastgan_aug.data.schema import RADIOLOGICAL
from fastgan_aug.quality.case import HOLD_OUT
from fastgan_aug.quality.clinical.counts import laterality_note
from fastgan_aug.quality.gate import Reason
from fastgan_aug.quality.metric import OVERALL, Metric
from fastgan_aug.quality.plain_words import ADVICE, lines_of

if TYPE_CHECKING:
    from fastgan_aug.cli.evaluate import Judged
    from fastgan_aug.quality.report import QualityReport

PER_CELL = 5
FIGURES = {
    "Counts and sides": ("mc_ratio", "log_lr_difference", "abs_log_lr_ratio", "mc_equivalence",
                         "log_lr_equivalence", "abs_log_lr_equivalence"),
    "Likeness": ("kid", "precision", "recall", "density", "coverage", "coverage_ratio"),
    "Diversity": ("sd_map_ratio", "sd_map_ratio_front", "sd_map_ratio_middle", "sd_map_ratio_back",
                  "pairwise_ratio", "modes_ratio", "duplicate_rate"),
    "Memorisation": ("nn_share", "copy_rate", "membership_auc", "membership_control"),
    "Recognition": ("real_on_synthetic", "synthetic_on_real"),
}  # fmt: skip
"""Metrics in the order of reading; further ones come last."""


def write_evaluate_page(judged: Judged, target: Path) -> None:
    """Writes one self-contained HTML page; nobody is named in it.

    Args:
        judged: The report, and the slices it is of.
        target: HTML file.

    Raises:
        StorageError: it cannot be written.
    """
    report, meta = judged.report, judged.train.meta
    tables = report.tables
    cells = _cells(judged)
    content = {
        "report": report,
        "verdict": str(report.verdict),
        "lines": lines_of(report.verdict),
        "advice": ADVICE if any(r.unjudged for r in report.verdict.failures) else "",
        "cells": cells,
        "colours": {"real": FIRST, "synthetic": SECOND},
        "sides": meta.laterality == RADIOLOGICAL,
        "laterality": laterality_note(meta),
        "sd_peak": max((cell["sd_peak"] for cell in cells), default=1.0),
        "scales": {"counts": scale_uri(), "sd": scale_uri(SPREAD)},
        "plots": {
            "counts": whiskers(tables["distributions"], ("mc", "lr", "abs_log_lr")),
            "defects": whiskers(tables["distributions"], ("severity", "extent")),
            "dispersion": dispersion(tables["dispersion"], meta.pixel_mm),
            "curves": curves(judged.curve) if judged.curve else None,
        },
        "pairs": _pairs(judged),
        "paper": tables["paper"],
        "equivalence": [
            ("On fresh patients, equivalence asked for", tables.get("fresh_patients", [])),
            ("At the numbers of the training data, shown only", tables["training_counts"]),
        ],
        "figures": _figures(report),
        "facts": _facts(report),
        "patients": report.provenance["patients"],
        "slices": report.provenance["slices"],
        "number": _number,
    }
    write_page("evaluate.html.jinja", target, content)


def _cells(judged: Judged) -> list[dict[str, Any]]:
    """Examples and maps of each compared cell, equally many slices on both sides."""
    random, found = np.random.default_rng(0), []
    names = np.asarray(judged.cells)
    space = judged.train.meta.space
    for row in judged.report.tables["cells"]:
        dataset = judged.holdout if row["real"] == HOLD_OUT else judged.train
        rows = np.flatnonzero(dataset.cell_index == space.index(space.parse(row["cell"])))
        made = judged.images[names == row["cell"]][: row["n"]]
        real = dataset.images[rows][: row["n"]]
        chosen = examples(dataset, rows, PER_CELL, random)
        spread = (
            real.std(axis=0, ddof=min(1, len(real) - 1)),
            made.std(axis=0, ddof=min(1, len(made) - 1)),
        )
        found.append(
            dict(row)
            | {
                "real_examples": [slice_uri(dataset.images[i]) for i in chosen],
                "made_examples": [slice_uri(image) for image in made[:PER_CELL]],
                "mean": (slice_uri(real.mean(axis=0)), slice_uri(made.mean(axis=0))),
                "sd": spread,
                "sd_peak": float(max(s.max() for s in spread)),
                "sd_ratio": judged.report.metric("sd_map_ratio", row["cell"]),
            }
        )
    peak = max((cell["sd_peak"] for cell in found), default=1.0)
    for cell in found:
        cell["sd"] = tuple(slice_uri(image, peak, SPREAD) for image in cell["sd"])
    return found


def _pairs(judged: Judged) -> list[dict[str, Any]]:
    """The closest pairs: synthetic slice, training slice, and what differs."""
    images: NDArray[np.float32] = judged.train.images[judged.train.labelled]
    return [
        dict(row)
        | {
            "synthetic_uri": slice_uri(judged.images[row["synthetic"]]),
            "train_uri": slice_uri(images[row["train"]]),
        }
        for row in judged.report.tables["pairs"]
    ]


def _figures(report: QualityReport) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every metric in groups, overall first; with what the gate said of it."""
    asked: dict[tuple[str, str, str], list[Reason]] = {}
    for reason in report.verdict.reasons:
        asked.setdefault((reason.metric, reason.cell, reason.view), []).append(reason)
    known = {name for names in FIGURES.values() for name in names}
    others = tuple(dict.fromkeys(m.name for m in report.metrics if m.name not in known))
    groups = []
    for title, names in (FIGURES | {"Further": others}).items():
        metrics = [m for m in report.metrics if m.name in names]
        metrics.sort(key=lambda m: (names.index(m.name), m.view, m.cell != OVERALL, m.cell))
        rows = [_row(m, asked.get((m.name, m.cell, m.view), [])) for m in metrics]
        if rows:
            groups.append((title, rows))
    return groups


def _row(metric: Metric, reasons: list[Reason]) -> dict[str, Any]:
    limits = [("≥", r.at_least) for r in reasons] + [("≤", r.at_most) for r in reasons]
    if not reasons:
        limits = [("≥" if metric.lower else "≤", metric.bound)]
    state = ("passed" if all(r.passed for r in reasons) else "failed") if reasons else ""
    bound = ", ".join(f"{sign} {_number(limit)}" for sign, limit in limits if limit is not None)
    return {"metric": metric, "state": state, "bound": bound or "–"}


def _facts(report: QualityReport) -> dict[str, str]:
    """Where it comes from, in the order of making."""
    told = report.provenance
    views = told["views"]
    names = {
        "checkpoint": "checkpoint (sha256)",
        "images_seen": "images seen in training",
        "config": "configuration of the training",
        "trained_on": "training data, as the model says",
        "prior": "weights that the training started from (sha256)",
        "training_code": "code of the training",
        "train": "training slices used here",
        "holdout": "slices of other patients",
        "reference": "fresh patients",
        "synthetic": "synthetic slices",
        "engine": "engine",
        "code_version": "code of this report",
    }
    facts = {label: str(told[key]) for key, label in names.items() if told.get(key) is not None}
    facts |= {f"features: {name}": digest for name, digest in views.items()}
    return facts | {"seed": str(told["settings"]["seed"]), "report": report.digest}


def _number(value: float | None) -> str:
    """Two or three digits, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.2g}"
