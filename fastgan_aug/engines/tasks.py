"""Independent pieces of work on all cores or on Ray workers, results in the order of the pieces."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastgan_aug.errors import EngineFailed

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2  # pieces for each worker that may be under way: memory stays flat, nobody waits


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Like ``map``, in processes of this machine.

    Args:
        function: Of a module, so that another process finds it.
        items: Small; each process gets its own.
        workers: Processes.

    Raises:
        EngineFailed: a process died (out of memory, killed).
    """
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("spawn")  # a fork would share locks of running threads
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield from _in_order(
                lambda item: pool.submit(function, item), lambda f: f.result(), items, workers
            )
        except BrokenProcessPool as error:
            raise EngineFailed(
                "a worker process died", do="free memory, or use fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Has this worker end when the process that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()  # of a pipe that the system closes
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def map_on_ray(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Like ``map``, on Ray workers of one CPU each; Ray must be up (``ray_cluster``).

    Args:
        function: As for ``map_in_processes``.
        items: As for ``map_in_processes``.
        workers: Workers to keep busy, two pieces each; Ray decides where they run.

    Raises:
        EngineFailed: a worker was lost more often than Ray retries.
    """
    import ray

    @ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
    def call(item: Item) -> Result:  # Ray takes functions alone, no other callables
        return function(item)

    try:
        yield from _in_order(call.remote, ray.get, items, workers)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise EngineFailed(f"a Ray worker was lost: {type(error).__name__}") from error


def _in_order(
    start: Callable[[Any], Any], wait: Callable[[Any], Any], items: Iterable[Any], workers: int
) -> Iterator[Any]:
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(start(item))
        if len(waiting) >= _AHEAD * workers:
            yield wait(waiting.popleft())
    while waiting:
        yield wait(waiting.popleft())


def on_all_cores(workers: int | None = None) -> Callable[..., Iterator[Any]]:
    """``map``, or where there are several cores its like in processes.

    Args:
        workers: Processes; by default one for each CPU that this process may use.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = workers or usable or 1
    return map if count == 1 else partial(map_in_processes, workers=count)
