"""`fastgan-aug select`: ranks a run's checkpoints, in place of a person's eye."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fastgan_aug.quality.selection import Score

HELP = """Rank the checkpoints that a run kept by their scores, with the reasons.

The smaller a score, the better: the mean over cells of the kernel distance of a fixed feature
vector, plus the squared distances of mean counts and asymmetry in standard deviations. A checkpoint
that copies training slices comes last.

Examples:

  fastgan-aug select runs/first

  fastgan-aug select runs/old --data phantom.parquet --top 5
"""


def register_commands(app: typer.Typer) -> None:
    """Adds ``select``."""
    app.command("select", help=HELP)(select_command)


def select_command(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 3,
    data: Annotated[
        Path | None,
        typer.Option(help="The run's data set: scores the checkpoints that have no score yet."),
    ] = None,
) -> None:
    """Ranks a run's checkpoints."""
    from fastgan_aug.engines.scoring import kept_scores
    from fastgan_aug.errors import CheckpointError
    from fastgan_aug.gan.checkpoint import checkpoint_name, checkpoints
    from fastgan_aug.quality.selection import TRAINING, UNVALIDATED, ranked

    there = checkpoints(run)
    if not there:
        raise CheckpointError(
            f"{run} holds no checkpoint",
            allowed="the folder that `fastgan-aug train --out` wrote",
            do="check the path",
        )
    if data is not None:
        _score(run, data)
    scores = ranked(kept_scores(run))
    if not scores:
        raise CheckpointError(
            f"no checkpoint of {run} has a score",
            do="give the run's data set with --data, or train with selection.samples above 0",
        )
    console = Console()
    if scores[0].reference == TRAINING:
        console.print(f"[bold yellow]warning[/]     {UNVALIDATED}.", soft_wrap=True)
    console.print(_table(scores[:top]))
    best = run / checkpoint_name(scores[0].images_seen)
    for line in [*_reasons(scores, len(there) - len(scores)), *_left_out(scores[0], best)]:
        console.print(line, markup=False, soft_wrap=True)
    following = f"fastgan-aug register {shlex.quote(str(best))}"
    console.print(f"next        {following}", markup=False, soft_wrap=True)


def _left_out(score: Score, checkpoint: Path) -> list[str]:
    """Which cells were trained on and have no part in the score."""
    from fastgan_aug.gan.checkpoint import read_manifest

    known = {cell.cell for cell in score.cells}
    trained = read_manifest(checkpoint).lineage.class_counts
    missing = [cell for cell, n in trained.items() if n and cell not in known]
    if not missing:
        return []
    return [f"Not in the score, for want of two patients to compare with: {', '.join(missing)}."]


def _score(run: Path, data: Path) -> None:
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.job import score_run

    with Console().status("  scoring"):
        score_run(run, Dataset.read(data))


def _table(scores: list[Score]) -> Table:
    table = Table(
        "images", "score", "worst cell", "KID", "MC", "|log LR|", "near. neighb.", box=None
    )
    for score in scores:
        worst = score.worst
        table.add_row(
            f"{score.images_seen:,}",
            f"{score.value:.3f}",
            escape(worst.cell),
            f"{worst.kid:.3f}",
            f"{worst.mc:.3f}",
            f"{worst.asymmetry:+.3f}",
            "–" if score.nn_share is None else f"{score.nn_share:.2f}",
        )
    return table


def _reasons(scores: list[Score], unscored: int) -> list[str]:
    """What a reader must know, a sentence each."""
    from fastgan_aug.quality.selection import MEMORISED, VALIDATION

    best = scores[0]
    said = [
        "KID, MC (synthetic over real) and |log LR| (synthetic minus real) are the worst cell's; "
        "of equal distributions they are 0, 1 and 0."
    ]
    if best.reference == VALIDATION:
        said.append(
            "Held against validation patients, who were not trained on. Nearest neighbours: share "
            "of synthetic slices nearer to training than to validation slices; 0.5 is ideal, above "
            f"{MEMORISED} (and above chance, {best.chance:.2f}) a checkpoint copies."
        )
    copying = sum(score.memorises for score in scores)
    if copying:
        said.append(f"{copying} of {len(scores)} copy training slices and come last.")
    if unscored:
        said.append(f"{unscored} more have no score; --data scores them.")
    return said
