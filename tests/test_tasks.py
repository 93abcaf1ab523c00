from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest

from fastgan_aug.engines.tasks import map_in_processes, on_all_cores
from fastgan_aug.errors import DataError, EngineFailed


def late_if_early(item: int) -> int:
    time.sleep(0.05 * (item == 0))
    return item * item


def refuse(item: int) -> int:
    raise DataError(f"{item} is refused", do="try another")


def die(item: int) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_results_come_in_the_order_of_the_items():
    assert list(map_in_processes(late_if_early, range(9), workers=2)) == [i * i for i in range(9)]


def test_an_error_of_a_worker_is_its_own():
    with pytest.raises(DataError, match="What to do"):
        list(map_in_processes(refuse, range(3), workers=2))


def test_a_killed_worker_is_told():
    with pytest.raises(EngineFailed, match="died"):
        list(map_in_processes(die, range(4), workers=2))


def test_no_more_is_under_way_than_memory_allows():
    taken: list[int] = []

    def items() -> object:
        for i in range(50):
            taken.append(i)
            yield i

    results = map_in_processes(late_if_early, items(), workers=2)  # type: ignore[arg-type]
    next(results)
    assert len(taken) <= 5
    results.close()  # type: ignore[attr-defined]


def test_one_worker_needs_no_process():
    assert on_all_cores(1) is map
    assert isinstance(on_all_cores(2), partial)
