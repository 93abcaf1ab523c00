"""`fastgan-aug ablate`: a table of variants of one configuration, at one budget."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fastgan_aug.cli.fits import draw_phantom, duration, fit_bars, usable_cores

if TYPE_CHECKING:
    from fastgan_aug.engines.ablate import Plan
    from fastgan_aug.engines.pieces import Run
    from fastgan_aug.gan.cost import FitCost
    from fastgan_aug.variants import Ablation

HELP = """Fit variants of one configuration at the same budget, several seeds each, judge them by
fresh patients, and write the table.

The TOML names a base configuration and, for each variant, what it changes of it. Every run leaves
one JSON file in OUT/runs and is not done again: after a kill, give the same command. Without
--data the base's phantom is drawn, and without --against another one like it; data of your own
without --against keep a fifth of the patients as hold-out.

Examples:

  fastgan-aug ablate configs/ablation.toml --dry-run

  fastgan-aug ablate configs/ablation.toml --out runs/ablation --only default --only no-average

  fastgan-aug ablate mine.toml --data mine.parquet --minutes 10 --seeds 0,1,2 --ray
"""
JUDGING = 40.0  # seconds a run: samples and gate of about 900 slices against as many
FRESH = 50_000  # added to the phantom's seed: other patients


def register_commands(app: typer.Typer) -> None:
    """Adds ``ablate``."""
    app.command("ablate", help=HELP)(ablate_command)


def ablate_command(
    table: Annotated[str, typer.Argument(help="TOML of the variants, or a shipped name.")],
    data: Annotated[
        Path | None, typer.Option(help="Real slices. \\[default: the base's phantom]")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Fresh patients to judge by (Parquet).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs and results.")] = Path("runs/ablation"),
    images: Annotated[
        int | None, typer.Option(min=1, help="Budget of a run. \\[default: the TOML's]")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Minutes of each run instead, its checkpoints and scores included.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds of each variant. \\[default: the TOML's]")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this variant; repeat it. \\[default: all]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once. \\[default: one for each CPU]")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="On Ray workers.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the checkpoints.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its time.")
    ] = False,
) -> None:
    """Compares variants."""
    from fastgan_aug.cli.signals import sigterm_as_ctrl_c
    from fastgan_aug.errors import ConfigError

    if images is not None and minutes is not None:
        raise ConfigError(
            "both --images and --minutes are given", allowed="one of them", do="leave one out"
        )
    console = Console()
    ablation = resolve(table, images, seeds, only or [])
    from fastgan_aug.engines.ablate import Plan

    out = out.resolve()  # a Ray worker may stand in another folder
    path = data.resolve() if data else out / "data.parquet"
    fresh = against.resolve() if against else (None if data else out / "fresh.parquet")
    plan = Plan(ablation, path, fresh, out, None if minutes is None else 60 * minutes, keep)
    count = min(workers or usable_cores(), len(plan.trials))
    _print_plan(plan, count, console)
    if dry_run:
        return
    sigterm_as_ctrl_c()
    _draw_missing(plan, drawn=(data is None, against is None and data is None), console=console)
    ablate(plan, table, count, console, ray=ray)


def resolve(table: str, images: int | None, seeds: str | None, only: list[str]) -> Ablation:
    """The file's ablation, with what the command line says instead.

    Raises:
        ConfigError: no such file, field, variant or seed.
    """
    from fastgan_aug.errors import ConfigError
    from fastgan_aug.variants import check_seeds, read_ablation

    ablation = read_ablation(table).only(only)
    if seeds is not None:
        parts = seeds.split(",")
        if not all(part.strip().isdecimal() for part in parts):
            raise ConfigError(f"the seeds are {seeds!r}", allowed="0,1,2", do="correct --seeds")
        ablation = replace(ablation, seeds=[int(part) for part in parts])
        check_seeds(ablation.seeds)
    return ablation if images is None else replace(ablation, images=images)


def ablate(plan: Plan, table: str, workers: int, console: Console, *, ray: bool = False) -> Path:
    """Does the runs that are not done yet, and writes ``table.json``, ``table.md`` and a page.

    Args:
        plan: What is run.
        table: The file's name, for the command that is written down.
        workers: Runs at once.
        console: Shows bars and the table.
        ray: On Ray workers.

    Returns:
        The page.

    Raises:
        FastGANAugError: see ``engines.ablate``.
    """
    from fastgan_aug.cli.ablate_page import write_results
    from fastgan_aug.engines.ablate import start

    begun = time.perf_counter()
    start(plan)
    _run(plan, workers, console, ray=ray)
    runs = [record for trial in plan.trials if (record := trial.done) is not None]
    page = write_results(plan, table, runs, workers)
    _print_table(runs, console)
    console.print(f"done in {time.perf_counter() - begun:.0f} s: {page}", markup=False)
    return page


def _run(plan: Plan, workers: int, console: Console, *, ray: bool) -> None:
    from fastgan_aug.engines.ablate import run_trial
    from fastgan_aug.engines.ray_cluster import ray_cluster
    from fastgan_aug.engines.tasks import map_in_processes, map_on_ray

    waiting = [trial for trial in plan.trials if trial.done is None]
    if not waiting:
        console.print("every run is done already")
        return
    if len(waiting) < len(plan.trials):
        console.print(f"{len(plan.trials) - len(waiting)} runs are done already")
    run: Run = partial(map_on_ray if ray else map_in_processes, workers=workers)
    timeout = waiting[0].config.engine.timeout
    with ray_cluster(timeout) if ray else nullcontext(), fit_bars(plan.trials, console):
        for record in run(run_trial, waiting):
            console.print(f"  {_said(record)}", markup=False, highlight=False, soft_wrap=True)


def _said(record: dict[str, Any]) -> str:
    """One run in one line."""
    name = f"{record['variant']}, seed {record['seed']}:"
    if record["diverged"]:
        return f"{name} diverged: {record['diverged']}"
    verdict = record["verdict"]
    return (
        f"{name} {len(verdict['failures'])} of {verdict['answers']} answers of the gate fail, "
        f"{record['images']:,} images in {record['seconds']:.0f} s of training"
    )


def _print_plan(plan: Plan, workers: int, console: Console) -> None:
    """What will be run, and how long that takes here."""
    import torch

    ablation, seconds = plan.ablation, 0.0
    torch.set_num_threads(ablation.variants[0].config.engine.threads)
    costs = _costs(plan)
    console.print(f"base {ablation.base}{_changes(ablation.shared)}", markup=False, soft_wrap=True)
    for variant, cost in zip(ablation.variants, costs, strict=True):
        took = plan.seconds or ablation.images / cost.images_per_second
        seconds += took * sum(t.name == variant.name and t.done is None for t in plan.trials)
        console.print(
            f"  {variant.name}{_changes(variant.overrides)}; {cost.images_per_second:.0f} images/s",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    waiting = sum(trial.done is None for trial in plan.trials)
    budget = f"{ablation.images:,} images" if plan.seconds is None else duration(plan.seconds)
    whole = (seconds + JUDGING * waiting) / workers
    console.print(
        f"{len(ablation.variants)} variants x seeds {', '.join(map(str, ablation.seeds))} = "
        f"{len(plan.trials)} runs of {budget} each, {waiting} of them still to do: about "
        f"{duration(whole)}, {workers} at once",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _changes(overrides: Any) -> str:
    return "".join(
        f"{', ' if i else ': '}{k} = {v!r}" for i, (k, v) in enumerate(overrides.items())
    )


def _costs(plan: Plan) -> list[FitCost]:
    """Of each variant; measured once for those whose networks and steps are the same."""
    from fastgan_aug.gan.cost import measure_cost

    dimension, known = _dimension(plan), {}
    for variant in plan.ablation.variants:
        key = variant.config.network, variant.config.training
        if key not in known:
            known[key] = measure_cost(*key, dimension, steps=3)
    return [known[v.config.network, v.config.training] for v in plan.ablation.variants]


def _dimension(plan: Plan) -> int:
    """Of the condition vector; the phantom's where there are no data yet."""
    if plan.data.is_file():
        from fastgan_aug.data.dataset import Dataset

        space = Dataset.read(plan.data).meta.space
    else:
        from fastgan_aug.data.phantom.population import SPACE as space
    return space.restrict(plan.ablation.variants[0].config.data.keep).dimension


def _draw_missing(plan: Plan, *, drawn: tuple[bool, bool], console: Console) -> None:
    """Draws the phantoms that stand for data or hold-out, where they are not there yet."""
    from fastgan_aug.data.phantom.population import PhantomConfig

    first = plan.ablation.variants[0].config.phantom or PhantomConfig()
    second = replace(first, seed=first.seed + FRESH)
    for wanted, path, config in zip(drawn, (plan.data, plan.against), (first, second), strict=True):
        if wanted and path is not None and not path.is_file():
            draw_phantom(config, path, console)


def _print_table(runs: list[dict[str, Any]], console: Console) -> None:
    """The means that decide, narrow enough for a terminal; the file has all of them."""
    from fastgan_aug.cli.ablate_page import mean
    from fastgan_aug.quality.ablation import COLUMNS, RANKING, ablation_table

    shown = [c for c in COLUMNS if c.narrow]
    table = Table(box=None, pad_edge=False, title="Means over the seeds")
    table.add_column("variant", no_wrap=True)
    for column in shown:
        table.add_column(column.title)
    for row in ablation_table(runs):
        table.add_row(row.variant, *(mean(row.figures[c.key]) for c in shown))
    console.print(table)
    console.print(RANKING, markup=False, highlight=False, soft_wrap=True)
