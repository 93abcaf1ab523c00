"""Whether the service grows: `python -m benchmarks.soak CHECKPOINT [--requests N]`.

So many requests of one image, eight at a time, then 1,000 that are given up before their answer.
The private memory of proxy, replicas and client is read all the while; the slope is Theil and Sen's
after the first fifth, which warms up.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from rich.progress import track
from scipy.stats import theilslopes

from benchmarks.measure import figure, publish
from benchmarks.service import SEED, Asked, ray_serve, timed
from fastgan_aug.gan.synthesizer import Synthesizer
from serving.client import Client
from serving.request import BatchRequest

CALLERS, SAMPLES, WARM, GIVEN_UP, ABOVE = 8, 200, 0.2, 1_000, 1.0
PARTS = {"replicas": "ServeReplica", "proxy": "ProxyActor", "controller": "ServeController"}


def private_mib() -> dict[str, float]:
    """Memory that is nobody else's, of the service's processes and of this one."""
    here = psutil.Process()
    found = dict.fromkeys(PARTS, 0.0) | {"client": here.memory_full_info().uss / 2**20}
    for process in here.children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            for name, mark in PARTS.items():
                if mark in command:
                    found[name] += process.memory_full_info().uss / 2**20
        except psutil.Error:
            continue
    return found


def asked_on_and_on(
    call: Callable[[Client, int], None], open_client: Callable[[], Client], requests: int
) -> Iterator[int]:
    """Requests done so far, now and then, until all are; a failure ends it."""
    done, failed, lock = [0], list[Exception](), threading.Lock()

    def ask(first: int) -> None:
        with open_client() as client:
            for number in range(first, requests, CALLERS):
                if failed:
                    return
                try:
                    call(client, number)
                except Exception as error:
                    failed.append(error)
                    return
                with lock:
                    done[0] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(CALLERS)]
    for thread in threads:
        thread.start()
    told = 0
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.05)
        if done[0] >= told + requests / SAMPLES:
            told = done[0]
            yield told
    if failed:
        raise failed[0]


def given_up(url: str, token: str, counts: dict[str, int]) -> int:
    """Requests that are dropped while they are worked on; gives how many were."""
    body, headers = BatchRequest(counts).to_json(), {"authorization": f"Bearer {token}"}
    dropped = 0
    with httpx.Client(timeout=httpx.Timeout(10, read=0.02)) as client:
        for _ in track(range(GIVEN_UP), "given up"):
            try:
                client.post(f"{url}/v1/balanced-batch", content=body, headers=headers)
            except httpx.TimeoutException:
                dropped += 1
    return dropped


@contextmanager
def service(checkpoint: Path) -> Iterator[tuple[str, str]]:
    """The service with one checkpoint: address and token."""
    from fastgan_aug.engines.mlflow_server import free_port

    with (
        tempfile.TemporaryDirectory() as name,
        ray_serve(checkpoint, free_port(), Path(name), haproxy=False) as (url, token, _),
    ):
        yield url, token


def main() -> None:
    """Asks, watches, gives up, writes and prints."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("checkpoint", type=Path)
    words.add_argument("--requests", type=int, default=100_000)
    told = words.parse_args()
    synthesizer = Synthesizer.load(told.checkpoint, threads=1)
    one, large = Asked(synthesizer, 1), Asked(synthesizer, 1024)
    points: list[tuple[int, dict[str, float]]] = []
    with service(told.checkpoint) as (url, token):
        began = time.perf_counter()
        steps = asked_on_and_on(
            one.ask, lambda: Client(url, token=token), told.requests,
        )  # fmt: skip
        for at in track(steps, "requests", total=SAMPLES):
            points.append((at, private_mib()))
        seconds = time.perf_counter() - began
        before = private_mib()
        dropped = given_up(url, token, large.counts)
        with Client(url, token=token) as client:
            after = timed(lambda: one.served(client))
            status = client_status(url, token)
        grown = private_mib()
    late = [(at, mib) for at, mib in points if at >= WARM * told.requests]
    figures = [figure("requests a second", told.requests / seconds, "1/s")]
    for name in points[0][1]:
        slope, _, low, high = theilslopes(
            [mib[name] for _, mib in late], [at / 10_000 for at, _ in late]
        )
        figures += [
            figure(f"{name}: growth per 10,000 requests", float(slope), "MiB", ABOVE),
            figure(f"{name}: growth, 95 % interval, low", float(low), "MiB"),
            figure(f"{name}: growth, 95 % interval, high", float(high), "MiB"),
        ]
    figures += [
        figure("given up while worked on", dropped, f"of {GIVEN_UP}"),
        figure("requests that still wait afterwards", status, "", 0),
        figure("the first call afterwards", after, "s", 5),
        figure("replicas: growth by those", grown["replicas"] - before["replicas"], "MiB"),
    ]
    meta = synthesizer.meta
    publish(
        "soak", figures, command=f"python -m benchmarks.soak CHECKPOINT --requests {told.requests}",
        seeds=[SEED], callers=CALLERS, checkpoint=meta.digest, cores=os.cpu_count(),
        memory=[{"requests": at} | {k: round(v, 2) for k, v in mib.items()} for at, mib in points],
    )  # fmt: skip


def client_status(url: str, token: str) -> int:
    """Most requests that wait in any replica that answers, after a moment to notice who has gone.

    A call tells of one of the two replicas: several are made.
    """
    time.sleep(2)
    headers = {"authorization": f"Bearer {token}"}
    told = [httpx.get(f"{url}/v1/status", headers=headers).raise_for_status() for _ in range(8)]
    return max(int(answer.json()["queue"]["requests"]) for answer in told)


if __name__ == "__main__":
    main()
