"""Rows through a worker on Ray Data: as many actors as are wanted, each opened once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from fastgan_aug.errors import EngineFailed, FastGANAugError

Row = dict[str, Any]


class Opens(Protocol):
    """What is sent to an actor: small, and opened there."""

    def open(self) -> Callable[[Row], Row]:
        """What is done with each row."""
        ...


def map_on_ray_data(worker: Opens, rows: Sequence[Row], workers: int) -> Iterator[Row]:
    """Like ``map``, on actors of one CPU each; Ray must be up (``ray_cluster``).

    Rows and answers are small: images go to files, never through Ray's object store, so memory
    does not depend on how many there are. A row is repeated where its actor was lost.

    Args:
        worker: Opened once in each actor.
        rows: At least one.
        workers: Actors; Ray decides where they run.

    Yields:
        The answers, in any order, as they come.

    Raises:
        FastGANAugError: what a worker raised on purpose.
        EngineFailed: anything else that ended it, or actors that were lost too often.
    """
    import ray

    class Opened:
        def __init__(self, sent: Opens) -> None:
            self._call = sent.open()

        def __call__(self, row: Row) -> Row:
            return self._call(row)

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # A block a row: the first answer comes after the first row, and actors share rows evenly.
    source = ray.data.from_items(list(rows), override_num_blocks=len(rows))
    done = source.map(
        Opened,
        fn_constructor_args=(worker,),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
        num_cpus=1,
    )
    try:
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        raise _told(error) from error


def _told(error: BaseException) -> FastGANAugError:
    """The error that a worker raised, however often Ray wrapped it."""
    inner: BaseException | None = error
    while inner is not None:
        cause = getattr(inner, "cause", None)
        inner = cause if isinstance(cause, BaseException) else inner.__cause__
        if isinstance(inner, FastGANAugError):
            return inner
    return EngineFailed(
        f"a worker of Ray Data failed: {str(error).strip().splitlines()[-1]}",
        do="run the command again: what is finished is kept; or use --local",
    )
