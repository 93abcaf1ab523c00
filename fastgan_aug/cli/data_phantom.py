"""`fastgan-aug data phantom`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastgan_aug.cli.data_tables import print_cells, print_written

_OUT = typer.Option("--out", "-o", help="Parquet file to write.")


def phantom(
    out: Annotated[Path, _OUT],
    config: Annotated[
        str | None,
        typer.Option(help="Configuration (name or TOML) whose \\[phantom] section is drawn; "
                     "without it the counts of Werner et al. 2022, Table 1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the configuration's.")] = None,
) -> None:  # fmt: skip
    """Draw a digital phantom of brain perfusion SPECT."""
    from dataclasses import replace

    from rich.progress import Progress

    from fastgan_aug.data.phantom import PhantomConfig, make_phantom

    settings = PhantomConfig()
    if config is not None:
        from fastgan_aug.config import load_config

        settings = load_config(config).phantom or PhantomConfig()
    if seed is not None:
        settings = replace(settings, seed=seed)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Drawing patients", total=settings.patients)
        dataset = make_phantom(settings, lambda done, _: progress.update(task, completed=done))
    dataset.write(out)
    print_cells(dataset, console)
    print_written(dataset, out, console)
