"""`fastgan-aug reproduce`: the paper's table, with generators fitted here."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fastgan_aug.cli.fits import draw_phantom, duration, fit_bars, usable_cores

if TYPE_CHECKING:
    from fastgan_aug.config import Config
    from fastgan_aug.engines.pieces import Run
    from fastgan_aug.engines.reproduce import Plan

HELP = """Fit generators A (all cells) and B (one level alone) alike, judge both as the paper did,
and write its table of P values beside ours, with equivalence tests beside both.

A finished piece is not done again: after a kill, give the same command.

Examples:

  fastgan-aug reproduce --budget quick --dry-run

  fastgan-aug reproduce --budget quick --out runs/reproduce

  fastgan-aug reproduce --budget full --data phantom.parquet --ray
"""
QUICK, FULL = "quick", "full"
PRESETS = {QUICK: ("reproduce-a", "reproduce-b"), FULL: ("werner2022-a", "werner2022-b")}
JUDGING = 60.0  # seconds a seed: samples, endpoints and tests of about 2,000 slices


def register_commands(app: typer.Typer) -> None:
    """Adds ``reproduce``."""
    app.command("reproduce", help=HELP)(reproduce_command)


def reproduce_command(
    budget: Annotated[
        str,
        typer.Option(
            help="quick: small networks, minutes; full: the paper's networks and 1000 epochs; a "
            "number: so many images for each fit, the quick networks."
        ),
    ] = QUICK,
    data: Annotated[
        Path | None, typer.Option(help="Real slices. [default: the phantom with Table 1's counts]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of pieces and results.")] = Path(
        "runs/reproduce"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each generator.")] = 1,
    config_a: Annotated[
        str | None, typer.Option(help="Configuration of A, instead of the budget's.")
    ] = None,
    config_b: Annotated[
        str | None, typer.Option(help="Configuration of B, instead of the budget's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Fits at once. [default: one for each CPU]")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Fit on Ray workers.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its time.")
    ] = False,
) -> None:
    """Compares the paper's two generators."""
    from fastgan_aug.cli.signals import sigterm_as_ctrl_c
    from fastgan_aug.engines.reproduce import Plan

    console = Console()
    configs = resolve(budget, config_a, config_b)
    path = data or out / "data.parquet"
    plan = Plan(dict(zip("AB", configs, strict=True)), path, out, seeds, budget)
    count = min(workers or usable_cores(), len(plan.fits))
    _print_plan(plan, count, console)
    if dry_run:
        return
    sigterm_as_ctrl_c()
    if data is None and not path.is_file():
        draw_phantom(None, path, console)
    reproduce(plan, count, console, ray=ray)


def resolve(budget: str, config_a: str | None, config_b: str | None) -> list[Config]:
    """The configurations of A and B.

    Raises:
        ConfigError: no such budget or configuration.
    """
    from fastgan_aug.config import Config, load_config
    from fastgan_aug.errors import ConfigError

    images = int(budget) if budget.isdecimal() and int(budget) else None
    if images is None and budget not in PRESETS:
        raise ConfigError(
            f"the budget is {budget!r}",
            allowed=f"{QUICK}, {FULL}, or a number of images",
            do="correct --budget",
        )
    found = []
    presets = PRESETS.get(budget, PRESETS[QUICK])
    for name in (config_a or presets[0], config_b or presets[1]):
        values = load_config(name).to_dict()
        if images is not None:
            values["training"]["images"] = images
        found.append(Config.of(values, name))
    return found


def reproduce(plan: Plan, workers: int, console: Console, *, ray: bool = False) -> Path:
    """Does what is not done yet, and writes ``table.json``, ``table.md`` and ``report.html``.

    Returns:
        The report.

    Raises:
        FastGANAugError: see ``engines.reproduce``.
    """
    from fastgan_aug.config import shipped_configs
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.reproduce import judge_piece, start
    from fastgan_aug.quality.reproduction import Published

    begun = time.perf_counter()
    dataset = Dataset.read(plan.data)
    start(plan, dataset)
    _fit(plan, workers, console, ray=ray)
    published = Published.read(shipped_configs() / "werner2022-published.json")
    lines: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    for seed in range(plan.seeds):
        with console.status(f"  judging seed {seed}"):
            told, further = judge_piece(plan, seed, dataset, published)
            lines, seen = lines + told, seen + further
    from fastgan_aug.cli.reproduce_page import write_results

    page = write_results(plan, dataset, lines, seen, published)
    console.print((plan.out / "table.md").read_text(encoding="utf-8"), markup=False, soft_wrap=True)
    console.print(f"done in {time.perf_counter() - begun:.0f} s: {page}", markup=False)
    return page


def _fit(plan: Plan, workers: int, console: Console, *, ray: bool) -> None:
    from fastgan_aug.engines.ray_cluster import ray_cluster
    from fastgan_aug.engines.reproduce import fit_piece
    from fastgan_aug.engines.tasks import map_in_processes, map_on_ray

    waiting = [piece for piece in plan.fits if piece.done is None]
    if not waiting:
        console.print("every fit is done already")
        return
    timeout = waiting[0].config.engine.timeout
    run: Run = partial(map_on_ray if ray else map_in_processes, workers=workers)
    with ray_cluster(timeout) if ray else nullcontext(), fit_bars(plan.fits, console):
        for result in run(fit_piece, waiting):
            console.print(
                f"  {result['name']}-{result['seed']}: {result['checkpoint']} was chosen",
                markup=False,
            )


def _print_plan(plan: Plan, workers: int, console: Console) -> None:
    """What will be fitted, and how long that takes here."""
    import torch

    from fastgan_aug.gan.cost import measure_cost

    torch.set_num_threads(1)
    seconds = 0.0
    for name, config in plan.configs.items():
        cost = measure_cost(config.network, config.training, _dimension(plan, config), steps=3)
        keep = ", ".join(f"{k} {'/'.join(v)}" for k, v in config.data.keep.items()) or "all cells"
        console.print(
            f"{name}  {config.name}: {keep}; {config.training.images:,} images at "
            f"{cost.images_per_second:.1f}/s = {duration(cost.seconds)} a fit, {plan.seeds} of "
            "them",
            markup=False,
            soft_wrap=True,
        )
        seconds += cost.seconds * plan.seeds
    whole = seconds / workers + JUDGING * plan.seeds
    console.print(f"about {duration(whole)} in all, {workers} fits at once, a thread each")


def _dimension(plan: Plan, config: Config) -> int:
    """Of the condition vector; the phantom's where there are no data yet."""
    if plan.data.is_file():
        from fastgan_aug.data.dataset import Dataset

        space = Dataset.read(plan.data).meta.space
    else:
        from fastgan_aug.data.phantom.population import SPACE as space
    return space.restrict(config.data.keep).dimension
