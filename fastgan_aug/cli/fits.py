"""What the commands share that do many fits: bars, times, the phantom to fit on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from fastgan_aug.data.phantom.population import PhantomConfig
    from fastgan_aug.engines.pieces import FitPiece

_MANY = 6  # fits, from which on only those under way have a bar


@contextmanager
def fit_bars(pieces: Sequence[FitPiece], console: Console) -> Iterator[None]:
    """A bar for each fit, from what it tells in its folder, and one for all of them."""
    columns = (
        TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    ended = threading.Event()
    with Progress(*columns, console=console, speed_estimate_period=600) as bars:
        whole = bars.add_task("all", total=len(pieces), rate="done")
        few = len(pieces) <= _MANY
        tasks = {piece.key: bars.add_task(piece.key, rate="waiting", visible=few)
                 for piece in pieces}  # fmt: skip

        def watch() -> None:
            over = False
            while not over:
                over = ended.wait(1.0)
                done = 0
                for piece in pieces:
                    told = piece.told
                    part, total = piece.part(told)
                    shown = f"{told.images_per_second:.0f} images/s" if part else "waiting"
                    finished = piece.result_path.is_file()
                    if finished:
                        done, part, shown = done + 1, total, "done"
                    elif part >= total:
                        shown = "judging"
                    bars.update(
                        tasks[piece.key], completed=int(part), total=int(total),
                        rate=shown,
                        visible=few or (part > 0 and not finished),
                    )  # fmt: skip
                bars.update(whole, completed=done)

        thread = threading.Thread(target=watch, name="fit-bars", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def duration(seconds: float) -> str:
    """In the largest unit of which there are two or more."""
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def draw_phantom(config: PhantomConfig | None, path: Path, console: Console) -> None:
    """Writes the phantom, the default one for None.

    Raises:
        StorageError: it cannot be written.
    """
    from fastgan_aug.data.phantom.population import PhantomConfig, write_phantom
    from fastgan_aug.engines.tasks import on_all_cores

    with console.status("  simulating patients"):
        write_phantom(config or PhantomConfig(), path, on_all_cores())


def usable_cores() -> int:
    """CPUs that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1
