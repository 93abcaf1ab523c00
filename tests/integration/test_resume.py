"""A server that is killed in the middle of an answer: the client goes on with its successor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import pytest

from serving.client import AsyncClient, Client
from serving.protocol import sample_seed
from tests.served import ONE_COUNTS, ONE_FACTOR, lineage, tiny_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
COUNTS, TARGET, SEED = {"disc": 60, "ring": 40, "bar": 24}, 500, 3
TOTAL = 3 * TARGET - sum(COUNTS.values())


class Server:
    """The real application on real HTTP, in a process of its own."""

    def __init__(self, checkpoint: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._checkpoint, self.url = checkpoint, f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.served", str(self._checkpoint), str(self._port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def wait(self) -> None:
        end = time.monotonic() + 60
        with Client(self.url) as client:
            while not client.ready() and time.monotonic() < end:
                time.sleep(0.1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS))


@pytest.fixture
def server(checkpoint: Path) -> Iterator[Server]:
    started = Server(checkpoint)
    started.start()
    started.wait()
    yield started
    started.kill()


def check(cells: list[str], index: list[int], seeds: list[int]) -> None:
    """Every image that was planned, once, in its order, with its own seed."""
    expected = [(c, i) for c in ("disc", "ring", "bar") for i in range(TARGET - COUNTS[c])]
    assert list(zip(cells, index, strict=True)) == expected
    assert seeds == [sample_seed(SEED, *image) for image in expected]


def test_killed_in_the_middle_no_image_comes_twice_and_none_is_missing(
    server: Server, checkpoint: Path
) -> None:
    cells, index, seeds, images = [], [], [], []
    kills = 0
    with Client(server.url) as client:
        for batch in client.iter_batches(COUNTS, TARGET, seed=SEED, batch_size=100):
            cells += batch.cells
            index += batch.index.tolist()
            seeds += batch.seeds.tolist()
            images.append(batch.images)
            if len(cells) in (300, 900):
                server.kill()
                server.start()
                kills += 1
    assert kills == 2
    check(cells, index, seeds)
    here = Client.offline(checkpoint).request_balanced_batch(COUNTS, TARGET, seed=SEED)
    assert np.concatenate(images).tobytes() == here.images.tobytes()


def test_the_asynchronous_client_goes_on_too(server: Server) -> None:
    async def ask() -> list[tuple[list[str], list[int], list[int]]]:
        found = []
        async with AsyncClient(server.url) as client:
            async for batch in client.iter_batches(COUNTS, TARGET, seed=SEED, batch_size=200):
                found.append((batch.cells, batch.index.tolist(), batch.seeds.tolist()))
                if len(found) == 2:
                    server.kill()
                    server.start()
        return found

    parts = asyncio.run(ask())
    cells, index, seeds = (list(chain.from_iterable(p[i] for p in parts)) for i in range(3))
    check(cells, index, seeds)


def test_a_reader_that_waits_is_waited_for_and_memory_stays_flat(server: Server) -> None:
    me, generator, sizes = psutil.Process(), psutil.Process(server.pid), []
    with Client(server.url) as client:
        arriving = client.iter_batches({"disc": 0}, 14_000, batch_size=500)
        for _ in range(12):
            sizes.append((next(arriving), me.memory_info().rss)[1])
        # What lies between the two is full soon: then nothing more is made for nobody.
        end = time.monotonic() + 30
        while time.monotonic() < end:
            before = generator.cpu_times().user
            time.sleep(0.4)
            if generator.cpu_times().user - before < 0.1:
                break
        assert time.monotonic() < end
        assert len(next(arriving)) == 500
    assert max(sizes[4:]) - sizes[4] < 8 << 20  # four of the batches that came since
