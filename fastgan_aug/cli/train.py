"""`fastgan-aug train`: fits the generator."""

from __future__ import annotations

import math
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fastgan_aug.config import Config
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.job import FitJob, FitResult

EXAMPLES = """Fit the conditional FastGAN on a data set; checkpoints and curves go to --out.

Examples:

  fastgan-aug train --config demo --data phantom.parquet --out runs/first

  fastgan-aug train --config werner2022-a --dry-run

  fastgan-aug train --config demo --data phantom.parquet --out runs/first --resume

  fastgan-aug train --config demo --data phantom.parquet --out runs/timed --budget 10m
"""
BUDGET = """Train for a time instead of a count: 90s, 10m, 2h. It is counted from the first step on
with checkpoints and scores, but without Ray's start; the run ends within a few steps of it, with
a last checkpoint. training.images stays the upper limit. It is the time of the whole run: with
--resume it goes on for what is left of it, and a larger one gives the difference."""
_RECENT = 50  # points of the curves that the time left is estimated from
GOAL_START, GOAL_OVERHEAD = 60.0, 0.05  # seconds; share of the run


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
    out: Annotated[Path | None, typer.Option(help="Run folder; without one runs/NAME.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="local or ray, instead of the config's.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Ray Train workers.")] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI", help="MLflow; without one SQLite in the run folder."
        ),
    ] = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help=BUDGET)] = None,
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

    console, seconds = Console(), _seconds(budget)
    values = load_config(config).to_dict()
    changes = {"kind": engine, "workers": workers}
    values["engine"] |= {k: v for k, v in changes.items() if v is not None}
    resolved = Config.of(values, "the command line").for_data(data is not None)
    dataset = _dataset(resolved, data, dry_run)
    if dry_run:
        _print_cost(console, resolved, dataset, seconds)
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
    job = FitJob(resolved, train_part, folder, uri, resume, seconds)
    result, _ = fit_with_progress(job, console)
    for line in (
        *_times(job),
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


def _seconds(budget: str | None) -> float | None:
    """Seconds of a time such as 90s, 10m or 2h; None for None.

    Raises:
        ConfigError: it is no such time, or none that a step fits into.
    """
    from fastgan_aug.errors import ConfigError

    if budget is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if seconds < 1:
        raise ConfigError(
            f"--budget {budget} is no time to train for",
            allowed="a number with its unit, at least 1s: 90s, 10m, 1.5h",
            do="correct it; a number of images is training.images in the configuration",
        )
    return seconds


def _times(job: FitJob) -> list[str]:
    """How long the run trained, what ended it, and Ray Train's part in that."""
    from fastgan_aug.cli.fits import duration
    from fastgan_aug.engines.stopwatch import RunTimes

    run = RunTimes.read(job.folder)
    last = run.last
    if not run.points:
        return []  # the run had ended before times were kept
    if last.images_seen >= job.config.training.images:
        why = "training.images"
    elif job.seconds is not None and last.seconds >= job.seconds - 1:
        why = "the budget of time"
    else:
        why = "selection.patience"
    lines = [f"trained     {last.images_seen:,} images in {duration(last.seconds)}: {why} ended it"]
    if job.config.engine.kind == "ray":
        lines.append(
            f"Ray Train   workers ready after {run.start:.0f} s (goal {GOAL_START:.0f}); report "
            f"and checkpoint {last.overhead:.1%} of the run (goal {GOAL_OVERHEAD:.0%})"
        )
    return lines


def _next(folder: Path, data: Path | None, result: FitResult) -> str:
    """The command that follows: choose a checkpoint, where they have scores or can have them."""
    from fastgan_aug.engines.scoring import kept_scores

    if kept_scores(folder):
        return f"fastgan-aug select {shlex.quote(str(folder))}"
    if data is not None:
        return f"fastgan-aug select {shlex.quote(str(folder))} --data {shlex.quote(str(data))}"
    return f"fastgan-aug register {shlex.quote(str(result.checkpoint))}"


def fit_with_progress(job: FitJob, console: Console) -> tuple[FitResult, list[dict[str, float]]]:
    """Fits on the configured engine under a bar: images, images/s, time left, score or losses.

    Returns:
        The result, and the points of the curves.
    """
    from fastgan_aug.engines import local, ray_train

    engine = ray_train if job.config.engine.kind == "ray" else local
    curve: list[dict[str, float]] = []
    columns = (
        TextColumn("  images"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), _TimeLeft(), TextColumn("{task.fields[how]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        total = job.config.training.images
        task = bar.add_task("fit", total=total, rate="starting", how="", ends=None)

        def progress(images_seen: int, values: Mapping[str, float]) -> None:
            curve.append({"images_seen": images_seen, **values})
            _advance(bar, task, job, curve)

        return engine.fit(job, progress), curve


class _TimeLeft(ProgressColumn):
    """Counts down to the task's ``ends``; points of slow fits are minutes apart."""

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        if ends is None:
            return Text("-:--:-- left")
        minutes, seconds = divmod(max(round(ends - time.monotonic()), 0), 60)
        return Text(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left")


def _advance(bar: Progress, task: TaskID, job: FitJob, curve: list[dict[str, float]]) -> None:
    """The bar at the newest point of the curves; its total is what the run is expected to reach."""
    now = curve[-1]
    images, limit = now["images_seen"], job.config.training.images
    left, pace = expected_rest(limit - images, job.seconds, curve)
    how = f"D {now['loss_real'] + now['loss_fake']:.2f} G {now['loss_generator']:.2f}"
    bar.update(
        task,
        completed=int(images),
        total=min(limit, int(images + left / pace)),
        rate=f"{now['images_per_second']:.0f} images/s",
        how=f"score {now['score']:.2f}" if "score" in now else how,
        ends=time.monotonic() + left,
    )


def expected_rest(
    images_left: float, budget: float | None, curve: list[dict[str, float]]
) -> tuple[float, float]:
    """How long a fit will still take.

    Args:
        images_left: Until the limit of images.
        budget: Seconds of the whole run; None for no limit.
        curve: Points with ``images_seen``, ``seconds`` and ``images_per_second``, oldest first.

    Returns:
        Seconds left, and seconds for each image. Checkpoints and scores are in both, from the
        second point on.
    """
    first, now = curve[max(-_RECENT, -len(curve))], curve[-1]
    pace = 1 / max(now["images_per_second"], 1e-9)
    if now["images_seen"] > first["images_seen"]:
        pace = (now["seconds"] - first["seconds"]) / (now["images_seen"] - first["images_seen"])
    by_time = math.inf if budget is None else max(budget - now["seconds"], 0.0)
    return min(images_left * pace, by_time), max(pace, 1e-9)


def _dataset(config: Config, path: Path | None, dry_run: bool) -> Dataset | None:
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.phantom.population import make_phantom
    from fastgan_aug.engines.tasks import on_all_cores

    if path is not None:
        return Dataset.read(path)
    if dry_run or config.phantom is None:
        return None
    return make_phantom(config.phantom, on_all_cores())


def _print_cost(
    console: Console, config: Config, dataset: Dataset | None, seconds: float | None
) -> None:
    import torch

    from fastgan_aug.cli.fits import duration
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
        "budget": f"{config.training.images:,} images"
        + ("" if seconds is None else f", or {duration(seconds)}"),
        "expected time": f"{duration(min(cost.seconds, seconds or cost.seconds))} in one process "
        "on this machine's CPU, checkpoints and scores apart",
    }
    if seconds is not None:
        reached = min(config.training.images, seconds * cost.images_per_second)
        which = "images" if seconds > cost.seconds else "time"
        rows["expected images"] = f"about {reached:,.0f}, ended by the {which}"
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console.print(table)
