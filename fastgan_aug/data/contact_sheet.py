"""A picture of a few slices of every cell."""

from __future__ import annotations

import io

import numpy as np

from fastgan_aug.data.dataset import Dataset

_INCHES = 1.1


def contact_sheet(dataset: Dataset, per_cell: int = 8, seed: int = 0) -> bytes:
    """Draws a row of example slices for each cell that has any.

    Args:
        dataset: Whose labelled slices to show.
        per_cell: Most slices of a cell.
        seed: Of the choice; slices of different patients come first.

    Returns:
        PNG. Grey scale 0 to 1 in every picture; the row's name tells the cell and its slices.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = {cell: n for cell, n in dataset.class_counts.items() if n}
    random = np.random.default_rng(seed)
    figure = Figure(figsize=(_INCHES * (per_cell + 1.4), _INCHES * max(len(counts), 1)))
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(len(counts), 1), per_cell + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (cell, count) in zip(axes, counts.items(), strict=False):
        line[0].text(1.0, 0.5, f"{cell}\n{count} slices", ha="right", va="center", fontsize=8,
                     transform=line[0].transAxes, parse_math=False)  # fmt: skip
        rows = np.flatnonzero(dataset.cell_index == dataset.meta.space.index(cell))
        for axis, row in zip(line[1:], examples(dataset, rows, per_cell, random), strict=False):
            axis.imshow(dataset.images[row], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99, 0.03, 0.03)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def examples(
    dataset: Dataset, rows: np.ndarray, per_cell: int, random: np.random.Generator
) -> list[int]:
    """Some of the rows, one per patient before anyone's second.

    Args:
        dataset: Whose rows they are.
        rows: Positions to choose from.
        per_cell: Most rows to choose.
        random: Of the choice.
    """
    seen: dict[str, int] = {}
    shuffled = random.permutation(rows)
    turns = []
    for patient in dataset.column("patient_id")[shuffled]:
        turns.append(seen.get(patient, 0))
        seen[patient] = turns[-1] + 1
    return [int(r) for r in shuffled[np.argsort(turns, kind="stable")][:per_cell]]
