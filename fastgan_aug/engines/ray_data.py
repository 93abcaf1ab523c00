"""Rows through a worker on Ray Data: as many actors as are wanted, each opened once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from fastgan_aug import errors
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
        rows: At least one; JSON values.
        workers: Actors; Ray decides where they run.

    Yields:
        The answers, JSON values too, in any order, as they come.

    Raises:
        FastGANAugError: what a worker raised on purpose.
        EngineFailed: anything else that ended it, or actors that were lost too often.
    """
    import ray
    import ray.data  # sets its logging up

    class Opened:
        def __init__(self, sent: Opens) -> None:
            self._sent = sent
            self._call: Callable[[Row], Row] | None = None

        def __call__(self, row: Row) -> Row:
            # Ray Data keeps an error's text alone: what was raised comes back as an answer.
            try:
                self._call = self._call or self._sent.open()
                return {"answer": json.dumps(self._call(json.loads(row["row"]))), "error": ""}
            except Exception as error:
                return {"answer": "", "error": _as_text(error)}

    # What it would tell in many lines is told once, by the error.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # A block a row: the first answer comes after the first row, and actors share rows evenly.
    sent = [{"row": json.dumps(row)} for row in rows]
    done = ray.data.from_items(sent, override_num_blocks=len(sent)).map(
        Opened,
        fn_constructor_args=(worker,),
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(sent))),
        num_cpus=1,
    )
    try:
        for row in done.iter_rows():
            if row["error"]:
                raise _from_text(row["error"])
            yield json.loads(row["answer"])
    except ray.exceptions.RayError as error:
        raise _failed(f"{type(error).__name__}") from error


def _as_text(error: Exception) -> str:
    if isinstance(error, FastGANAugError):
        return json.dumps([type(error).__name__, error.what, error.allowed, error.do])
    return json.dumps(["", f"{type(error).__name__}: {error}", "", ""])


def _from_text(text: str) -> FastGANAugError:
    name, what, allowed, do = json.loads(text)
    if not name:
        return _failed(what)
    kind: type[FastGANAugError] = getattr(errors, name, FastGANAugError)
    return kind(what, allowed=allowed, do=do)


def _failed(why: str) -> EngineFailed:
    return EngineFailed(
        f"a worker of Ray Data failed: {why}",
        do="run the command again: what is finished is kept; or use --local",
    )
