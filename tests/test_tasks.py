from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

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


PARENT = """
import time
from fastgan_aug.engines.tasks import map_in_processes
from test_tasks import say_and_sleep

if __name__ == "__main__":
    list(map_in_processes(say_and_sleep, [{folder!r}] * 2, workers=2))
"""


def say_and_sleep(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


def gone(pid: int) -> bool:
    """Whether a process has ended, if only as a zombie that nobody has waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def until(holds: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path):
    (said := tmp_path / "said").mkdir()
    (tmp_path / "parent.py").write_text(PARENT.format(folder=str(said)))
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], env=os.environ | {"PYTHONPATH": path}
    )
    try:
        assert until(lambda: len(list(said.iterdir())) == 2)
        workers = [int(path.name) for path in said.iterdir()]
    finally:
        parent.kill()
        parent.wait(10)
    assert until(lambda: all(map(gone, workers)), 10)
