"""`fastgan-aug data phantom`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fastgan_aug.cli.data_tables import print_cells, print_written
from fastgan_aug.cli.own_input import keep_inputs

if TYPE_CHECKING:
    from fastgan_aug.data.phantom.population import Run

_TABLE_ROWS = 20_000  # a larger file is not read again to count its cells
_OUT = typer.Option("--out", "-o", help="Parquet file to write.")


def phantom(
    out: Annotated[Path, _OUT],
    config: Annotated[
        str | None,
        typer.Option(help="Configuration (name or TOML) whose \\[phantom] section is drawn; "
                     "without it the counts of Werner et al. 2022, Table 1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the configuration's.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; by default one for each core.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Ray workers: of RAY_ADDRESS, or of a Ray started here.")
    ] = False,
) -> None:  # fmt: skip
    """Draw a digital phantom of brain perfusion SPECT, as large as you like.

    The file has the same bytes whatever the number of workers, and memory stays flat: patients
    are drawn, written and forgotten in blocks.
    """
    from dataclasses import replace

    from rich.progress import Progress

    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.phantom.population import PhantomConfig, write_phantom

    settings = PhantomConfig()
    if config is not None:
        from fastgan_aug.config import load_config

        keep_inputs(out, [Path(config)])
        settings = load_config(config).phantom or PhantomConfig()
    if seed is not None:
        settings = replace(settings, seed=seed)
    console = Console()
    with _runner(workers, ray) as run, Progress(console=console, transient=True) as progress:
        task = progress.add_task("Drawing patients", total=settings.patients)
        rows = write_phantom(
            settings, out, run, lambda done, _: progress.update(task, completed=done)
        )
    if rows > _TABLE_ROWS:
        console.print(f"Wrote {out}: {rows} slices", highlight=False, soft_wrap=True)
        return
    dataset = Dataset.read(out)
    print_cells(dataset, console)
    print_written(dataset, out, console)


@contextmanager
def _runner(workers: int | None, ray: bool) -> Iterator[Run]:
    from fastgan_aug.engines.tasks import map_on_ray, on_all_cores

    if ray:
        from fastgan_aug.engines.ray_cluster import ray_cluster

        with ray_cluster():
            import ray as started

            count = workers or int(started.cluster_resources().get("CPU", 1))
            yield partial(map_on_ray, workers=count)
    else:
        yield on_all_cores(workers)
