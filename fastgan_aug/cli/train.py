"""`fastgan-aug train`: fits the generator."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from fastgan_aug.config import Config
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.job import FitJob, FitResult

EXAMPLES = """Fit the conditional FastGAN on a data set; checkpoints and curves go to --out.

Examples:

  fastgan-aug train --config demo --data phantom.parquet --out runs/first

  fastgan-aug train --config werner2022-a --dry-run

  fastgan-aug train --config demo --data phantom.parquet --out runs/first --resume
"""


def register_commands(app: typer.Typer) -> None:
    """Adds ``train``."""
    app.command("train", help=EXAMPLES)(train_command)


def train_command(
    config: Annotated[
        str, typer.Option(help="Configuration: a TOML file or a shipped name.")
    ] = "demo",
    data: Annotated[
        Path | None, typer.Option(help="Data set; without one the configured phantom is made.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. [default: runs/NAME]")] = None,
    engine: Annotated[
        str | None, typer.Option(help="local or ray, instead of the config's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Ray Train workers.")] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI", help="MLflow. [default: SQLite in the run folder]"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the newest good checkpoint.")] = False,
    unsafe_no_groups: Annotated[
        bool,
        typer.Option("--unsafe-no-groups", help="Split data without patients: proves nothing."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print configuration, sizes and expected time.")
    ] = False,
) -> None:
    """Fits the generator."""
    from fastgan_aug.config import Config, load_config

    console = Console()
    values = load_config(config).to_dict()
    changes = {"kind": engine, "workers": workers}
    values["engine"] |= {k: v for k, v in changes.items() if v is not None}
    resolved = Config.of(values, "the command line").for_data(data is not None)
    dataset = _dataset(resolved, data, dry_run)
    if dry_run:
        _print_cost(console, resolved, dataset)
        return
    from fastgan_aug.cli.data_validate import print_warnings
    from fastgan_aug.data.validation.validate import check_valid
    from fastgan_aug.engines.job import FitJob, training_part
    from fastgan_aug.engines.mlflow_client import local_uri, without_password

    assert dataset is not None
    # The whole of it: a slice under two patients may stand on both sides of the split.
    print_warnings(check_valid(dataset), console)
    folder = out or Path("runs") / resolved.name
    uri = tracking_uri or resolved.tracking.uri or local_uri(folder)
    _warn_of_biased_choice(resolved, console)
    train_part, _ = training_part(resolved, dataset, unsafe_no_groups=unsafe_no_groups)
    result, _ = fit_with_progress(FitJob(resolved, train_part, folder, uri, resume), console)
    for line in (
        f"checkpoint  {result.checkpoint}",
        f"MLflow run  {result.run_id} at {without_password(uri)}",
        f"next        {_next(folder, data, result)}",
    ):
        console.print(line, markup=False, soft_wrap=True)


def _warn_of_biased_choice(config: Config, console: Console) -> None:
    """Before the time is spent, not after: later it could not be helped."""
    from fastgan_aug.quality.selection import UNVALIDATED

    chosen = config.selection
    if chosen.samples and not chosen.validation_fraction:
        console.print(f"[bold yellow]warning[/]     {UNVALIDATED}.", soft_wrap=True)


def _next(folder: Path, data: Path | None, result: FitResult) -> str:
    """The command that follows: choose a checkpoint, where they have scores or can have them."""
    from fastgan_aug.engines.scoring import kept_scores

    if kept_scores(folder):
        return f"fastgan-aug select {shlex.quote(str(folder))}"
    if data is not None:
        return f"fastgan-aug select {shlex.quote(str(folder))} --data {shlex.quote(str(data))}"
    return f"fastgan-aug register {shlex.quote(str(result.checkpoint))}"


def fit_with_progress(job: FitJob, console: Console) -> tuple[FitResult, list[dict[str, float]]]:
    """Fits on the configured engine under a bar with images/s, losses and time left.

    Returns:
        The result, and the points of the curves.
    """
    from fastgan_aug.engines import local, ray_train

    engine = ray_train if job.config.engine.kind == "ray" else local
    curve: list[dict[str, float]] = []
    columns = (
        TextColumn("  images"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )  # fmt: skip
    # Points of slow fits are minutes apart: the time left is estimated over ten minutes.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=600) as bar:
        total = job.config.training.images
        task = bar.add_task("fit", total=total, rate="starting", losses="")

        def progress(images_seen: int, values: Mapping[str, float]) -> None:
            curve.append({"images_seen": images_seen, **values})
            discriminator = values["loss_real"] + values["loss_fake"]
            bar.update(
                task,
                completed=images_seen,
                rate=f"{values['images_per_second']:.0f} images/s",
                losses=f"D {discriminator:.2f} G {values['loss_generator']:.2f}",
            )

        return engine.fit(job, progress), curve


def _dataset(config: Config, path: Path | None, dry_run: bool) -> Dataset | None:
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.phantom.population import make_phantom
    from fastgan_aug.engines.tasks import on_all_cores

    if path is not None:
        return Dataset.read(path)
    if dry_run or config.phantom is None:
        return None
    return make_phantom(config.phantom, on_all_cores())


def _print_cost(console: Console, config: Config, dataset: Dataset | None) -> None:
    import torch

    from fastgan_aug.engines.job import training_part
    from fastgan_aug.gan.cost import measure_cost

    if dataset is not None:
        space = training_part(config, dataset, unsafe_no_groups=True)[0].meta.space
    else:
        from fastgan_aug.data.phantom.population import SPACE

        space = SPACE.restrict(config.data.keep)
    torch.set_num_threads(config.engine.threads)
    console.print_json(data=config.to_dict())
    cost = measure_cost(config.network, config.training, space.dimension)
    table = Table(title="What this fit costs here", show_header=False)
    rows = {
        "cells": ", ".join(map(str, space.cells)),
        "condition vector": f"{space.dimension} elements",
        "generator": f"{cost.generator_parameters:,} parameters",
        "discriminator": f"{cost.discriminator_parameters:,} parameters with its decoders",
        "operations": f"{cost.operations_per_image / 1e9:.2f} GFLOP an image, forward and backward",
        "measured": f"{cost.seconds_per_step:.2f} s per step of {config.training.batch} "
        f"= {cost.images_per_second:.1f} images/s, one process, {config.engine.threads} threads",
        "budget": f"{config.training.images:,} images",
        "expected time": f"{_duration(cost.seconds)} in one process on this machine's CPU",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{max(minutes, 1)} min"
