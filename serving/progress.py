"""A bar that grows with the images, where rich is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

log = logging.getLogger(__name__)


@contextmanager
def shown(wanted: bool, images: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the block runs.

    Args:
        wanted: Whether to; otherwise nothing is shown, and rich is not loaded.
        images: How many there will be.

    Yields:
        What to call with the number of images that have just come.
    """
    if wanted and find_spec("rich") is None:
        log.warning("no progress is shown: rich is not installed")
    if not wanted or find_spec("rich") is None:
        yield lambda more: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns) as bar:
        task = bar.add_task("images", total=images)
        yield lambda more: bar.advance(task, more)
