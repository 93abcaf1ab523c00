"""The plots of a quality report: whiskers, diversity by scale, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastgan_aug.cli.page import FIRST, INK, SECOND, new_plot, plot_uri
from fastgan_aug.quality.report import Table

TITLES = {
    "mc": "mean counts (MC)",
    "lr": "left/right ratio (LR)",
    "abs_log_lr": "|log LR|",
    "severity": "severity of defects",
    "extent": "extent of defects",
}
SIDES = {"real": (FIRST, -0.19), "synthetic": (SECOND, 0.19)}
# Colours of the cells' lines, told apart by colour-blind readers too (Okabe and Ito).
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777", "#000000")


def whiskers(rows: Table, measures: Sequence[str]) -> str:
    """Box and whiskers of real and synthetic slices, a row a cell, a panel a measure.

    Args:
        rows: The report's table ``distributions``.
        measures: Which of its measures.
    """
    names = list(dict.fromkeys(row["cell"] for row in rows))
    plot, axes = new_plot(9.6, 1.0 + 0.42 * len(names), len(measures))
    for axis, measure in zip(axes, measures, strict=True):
        for row in rows:
            if row["measure"] == measure and row["n"]:
                colour, shift = SIDES[row["side"]]
                _box(axis, row, names.index(row["cell"]) + shift, colour)
        axis.set_title(TITLES[measure], fontsize=10)
        axis.set_ylim(len(names) - 0.4, -0.6)
        first = axis is axes[0]
        axis.set_yticks(range(len(names)), names if first else [""] * len(names))
        axis.grid(axis="x", color="#e8ebef", lw=0.7)
        axis.set_axisbelow(True)
        if measure == "lr":
            axis.axvline(1, color=INK, lw=0.8, ls=":")
    return plot_uri(plot)


def _box(axis: Any, row: Mapping[str, Any], place: float, colour: str) -> None:
    axis.plot([row["p5"], row["p95"]], [place] * 2, color=colour, lw=1.1)
    axis.barh(place, row["p75"] - row["p25"], 0.26, row["p25"], color=colour, alpha=0.35, lw=0)
    axis.plot([row["p50"]] * 2, [place - 0.13, place + 0.13], color=colour, lw=2.2)


def dispersion(rows: Table, pixel_mm: float | None) -> str:
    """Diversity of synthetic slices over that of real ones, by the size of what differs.

    Args:
        rows: The report's table ``dispersion``.
        pixel_mm: Pixel edge; None shows sizes in pixels.
    """
    plot, (axis,) = new_plot(8.2, 3.2)
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    bands = list(dict.fromkeys((row["low"], row["high"]) for row in rows))
    for i, cell in enumerate(cells):
        ratios = [_number(row["ratio"]) for row in rows if row["cell"] == cell]
        axis.plot(range(len(ratios)), ratios, "o-", color=LINES[i % len(LINES)], lw=1.5, ms=3.5,
                  label=cell)  # fmt: skip
    axis.axhline(1, color=INK, lw=0.9, ls=":")
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xticks(range(len(bands)), [_size(low, high, pixel_mm) for low, high in bands])
    axis.set_xlabel("size of what differs between slices")
    axis.set_ylabel("variance, synthetic / real")
    axis.grid(axis="y", color="#e8ebef", lw=0.7)
    axis.legend(frameon=False, fontsize=8, bbox_to_anchor=(1, 1), loc="upper left")
    return plot_uri(plot)


def _size(low: float, high: float, pixel_mm: float | None) -> str:
    """A band of frequencies as the wave lengths it holds."""
    edge, unit = (1.0, "px") if pixel_mm is None else (pixel_mm, "mm")
    short = edge / high
    return f"> {short:.3g} {unit}" if low == 0 else f"{short:.3g} to {edge / low:.3g} {unit}"


def curves(points: Sequence[Mapping[str, float]]) -> str:
    """The losses over images seen."""
    plot, (axis,) = new_plot(8.2, 2.6)
    names = [name for name in dict.fromkeys(k for p in points for k in p) if "loss" in name]
    for i, name in enumerate(names):
        here = [(p["images_seen"], _number(p[name])) for p in points if name in p]
        seen, values = zip(*here, strict=True)
        label = name.removeprefix("loss_").replace("_", " ")
        axis.plot(seen, values, color=LINES[i % len(LINES)], lw=1.3, label=label)
    axis.set_xlabel("real images seen")
    axis.set_ylabel("loss")
    axis.grid(axis="y", color="#e8ebef", lw=0.7)
    axis.legend(frameon=False, fontsize=8, ncols=4)
    return plot_uri(plot)


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
