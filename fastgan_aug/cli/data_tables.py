"""Tables of data sets that several commands print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastgan_aug.data.dataset import Dataset


def print_written(dataset: Dataset, out: Path, console: Console) -> None:
    """Prints what was written where, and its digest."""
    console.print(f"Wrote {out}: {len(dataset)} slices", highlight=False, soft_wrap=True)
    console.print(f"Digest {dataset.digest}", highlight=False, soft_wrap=True)


def print_cells(dataset: Dataset, console: Console) -> None:
    """Prints slices, patients and scans of each cell."""
    from fastgan_aug.data.schema import NEIGHBOUR

    table = Table("cell", title="Slices, patients and scans of each cell")
    for name in ("slices", "patients", "scans"):
        table.add_column(name, justify="right")
    patients, scans = dataset.column("patient_id"), dataset.column("scan_id")

    def line(name: str, rows: NDArray[np.bool_]) -> None:
        people, visits = set(patients[rows]), set(scans[rows])
        count = len(patients[rows])
        style = None if count else "dim"
        table.add_row(escape(name), str(count), str(len(people)), str(len(visits)), style=style)

    for i, cell in enumerate(dataset.meta.space.cells):
        line(str(cell), dataset.cell_index == i)
    table.add_section()
    line("all labelled", dataset.labelled)
    line("neighbours", dataset.column("role") == NEIGHBOUR)
    console.print(table)


def print_facts(dataset: Dataset, console: Console) -> None:
    """Prints what holds for all rows."""
    meta = dataset.meta
    pixel = "unknown" if meta.pixel_mm is None else f"{meta.pixel_mm:g} mm"
    synthetic = int(dataset.column("synthetic").sum())
    units = ", ".join(sorted(set(dataset.table["unit"].to_pylist())))
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("source", meta.source),
        ("slices", f"{len(dataset)}, of which {synthetic} synthetic"),
        ("size", f"{meta.size} x {meta.size} pixels of {pixel}"),
        ("normalisation", f"{meta.normalisation}; scale in {units}"),
        ("laterality", meta.laterality),
        ("grouping", meta.grouping),
        ("digest", dataset.digest),
    ):
        facts.add_row(f"[bold]{name}[/bold]", escape(value))
    console.print(facts)
