"""`fastgan-aug data describe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastgan_aug.cli.data_tables import print_cells, print_facts


def describe(
    path: Annotated[Path, typer.Argument(help="Data set, a Parquet file.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write; by default PATH with .png.")
    ] = None,
    per_cell: Annotated[int, typer.Option(min=1, help="Example slices of each cell.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the choice of examples.")] = 0,
) -> None:
    """Print cells, facts and digest; write a contact sheet."""
    from fastgan_aug.data.contact_sheet import contact_sheet
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.storage import replace_when_complete

    dataset = Dataset.read(path)
    console = Console()
    print_cells(dataset, console)
    print_facts(dataset, console)
    target = sheet or path.with_suffix(".png")
    with replace_when_complete(target) as temporary:
        temporary.write_bytes(contact_sheet(dataset, per_cell, seed))
    console.print(f"Contact sheet: {target}", highlight=False, soft_wrap=True)
