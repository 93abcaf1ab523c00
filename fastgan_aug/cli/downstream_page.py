"""The page of `fastgan-aug downstream`: do the synthetic slices help, and what tells so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.cli.downstream_plots import confusion, forest, learning, reliability, scores
from fastgan_aug.cli.page import scale_uri, slice_uri, write_page

if TYPE_CHECKING:
    from downstream.report import Changed, Comparison, Judgement, UsefulnessReport

HIDDEN = ("verdict",)  # the forest plot has it


def write_usefulness_page(
    report: UsefulnessReport,
    target: Path,
    images: Mapping[int, NDArray[np.float32]] | None = None,
) -> None:
    """Writes one self-contained HTML page; nobody is named in it.

    Args:
        report: The report.
        target: HTML file.
        images: Of each fold (Nt, S, S) float32 in [0, 1], its test slices in the order of its
            truth; without them the slices that changed sides are not shown.

    Raises:
        StorageError: it cannot be written.
    """
    content = {
        "report": report,
        "caveat": report.caveat,
        "judgements": [_judgement(j, report, images or {}) for j in report.judgements],
        "curve_plot": learning(report.curves) if report.curves else "",
        "scale": scale_uri(),
        "shown": bool(images),
        "share": share_text,
        "words": _words(report),
        "facts": {name.replace("_", " "): value for name, value in report.provenance.items()},
    }
    write_page("downstream.html.jinja", target, content)


def _words(report: UsefulnessReport) -> list[tuple[str, str, str]]:
    """Classifier, verdict of the chosen synthetic arm, sentence."""
    found = []
    for judgement in report.judgements:
        line = judgement.headline
        if line is None:
            found.append((judgement.classifier, "NO EVIDENCE", "no synthetic arm was tried."))
            continue
        ratio = judgement.recommended_ratio
        test = line.difference
        text = (
            f"“{line.arm}” against “{line.rival}”: macro-F1 {100 * test.value:+.1f} points "
            f"[{100 * test.low:+.1f}, {100 * test.high:+.1f}]; {line.reason}."
        )
        if line.detectable is not None and line.detectable < 1:
            text += (
                f" A true gain of {100 * line.detectable:.1f} points would have been found four "
                "times out of five."
            )
        elif line.detectable is not None:
            text += " No gain would have been found four times out of five."
        if ratio is not None:
            text += f" Recommended ratio of synthetic to real slices: {ratio}."
        found.append((judgement.classifier, line.verdict, text))
    return found


def _judgement(
    judgement: Judgement, report: UsefulnessReport, images: Mapping[int, NDArray[np.float32]]
) -> dict[str, Any]:
    from downstream.report import usefulness_table

    names = dict.fromkeys(filter(None, (judgement.rival, judgement.recommended)))
    two = [judgement.arm(name) for name in names]
    table = [
        {k: v for k, v in row.items() if k not in HIDDEN} for row in usefulness_table(judgement)
    ]
    return {
        "found": judgement,
        "forest": forest(judgement) if judgement.comparisons or judgement.oracle else "",
        "scores": scores(judgement),
        "confusion": confusion(two, report.classes),
        "reliability": reliability(two),
        "table": table,
        "changed": {
            side: [_changed(c, images) for c in judgement.changed if c.gained == (side == "gained")]
            for side in ("gained", "lost")
        },
    }


def _changed(changed: Changed, images: Mapping[int, NDArray[np.float32]]) -> dict[str, Any]:
    shown = changed.fold in images
    return {
        "of": changed,
        "uri": slice_uri(images[changed.fold][changed.row]) if shown else "",
    }


def share_text(line: Comparison) -> str:
    """The recovered share of the gain of which oracle's arm, or why there is none."""
    share = line.recovered
    if share is None:
        return "–"
    if share.value is None or share.low is None or share.high is None:
        return f"undefined: {share.reason}"
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of “{line.oracle}”"
