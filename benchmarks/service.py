"""The service against what it wraps: `python -m benchmarks.service CHECKPOINT [--haproxy]`.

    bare engine     the generator in this process
    uvicorn         the application alone, in a process of its own
    Ray Serve       the application in a replica behind Serve's proxy (or HAProxy)

All three make the same images with one torch thread, turn by turn in one run; ratios are medians
over the rounds. Then the service is ill-treated: ten times the load that it takes on, a replica
killed, a new champion, each under load. Two replicas share what cores there are.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

from benchmarks.measure import figure, publish
from benchmarks.replicas import answers, both_ready, private_bytes, replicas, wait_until
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer
from serving.client import Client
from serving.protocol import sample_seed
from serving.request import BatchRequest

NAME, ROUNDS, LARGE, SMALL, SEED = "benchmarked", 15, 1024, 16, 3
SMALL_CALLS, LOADED_SECONDS, LOAD, IDEAL_CALLS = 100, 10.0, 0.7, 200_000


# -- what is asked ---------------------------------------------------------------------------------


class Asked:
    """A request for ``n`` images of one cell, and the same images without any service."""

    def __init__(self, synthesizer: Synthesizer, n: int) -> None:
        self._synthesizer, self._n = synthesizer, n
        seen = [cell for cell, count in synthesizer.class_counts.items() if count]
        self._cell = seen[0]
        self.counts = {str(cell): 0 for cell in seen[:1]} | {str(seen[1]): n}

    def bare(self) -> np.ndarray:
        seeds = [sample_seed(SEED, str(self._cell), i) for i in range(self._n)]
        return self._synthesizer.generate([self._cell] * self._n, np.asarray(seeds, np.uint64))

    def ask(self, client: Client, seed: int) -> None:
        client.request_balanced_batch(self.counts, seed=seed)

    def served(self, client: Client, model: str = "champion") -> np.ndarray:
        return client.request_balanced_batch(self.counts, seed=SEED, model=model).images


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# -- what is compared ------------------------------------------------------------------------------


def bare_application(checkpoint: Path, port: int) -> None:
    """The application under uvicorn, without Ray: run in a process of its own."""
    import uvicorn

    from serving.models import LoadedModel
    from serving.server.app import create_app

    class One:
        def __init__(self) -> None:
            synthesizer = Synthesizer.load(checkpoint, threads=1)
            self._model = LoadedModel(synthesizer, NAME, "1", "1", "")

        def get(self, model: str) -> LoadedModel:
            return self._model

        known = get

        def status(self) -> dict[str, object]:
            return {}

    uvicorn.run(create_app(One()), port=port, log_level="warning")


@contextmanager
def uvicorn_alone(checkpoint: Path, port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.service", str(checkpoint), "--bare", str(port)]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/v1/health/live"), 60)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def ray_serve(
    checkpoint: Path, port: int, folder: Path, haproxy: bool, waiting: int = 8
) -> Iterator[tuple]:
    """The service with two versions of the same checkpoint, and the registry's address."""
    if haproxy:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    import ray

    from fastgan_aug.config import ServingConfig
    from serving.server.deployment import start_service, stop_service
    from serving.server.tokens import add_to_file, make_token

    token, entry = make_token("bench", "admin")
    add_to_file(entry, folder / "tokens.toml")
    uri = registered(checkpoint, folder)
    with tempfile.TemporaryDirectory(prefix="fa", dir="/tmp") as place:
        ray.init(
            address="local", include_dashboard=False, num_cpus=4, _temp_dir=place,
            object_store_memory=200 << 20, log_to_driver=False,
        )  # fmt: skip
        try:
            config = {
                "port": port, "replicas": 2, "cpus_per_replica": 0.5, "poll_seconds": 0.5,
                "most_waiting_requests": waiting, "tokens": str(folder / "tokens.toml"),
            }  # fmt: skip
            url = start_service(ServingConfig.model_validate(config), uri, NAME)
            yield url, token, uri
        finally:
            stop_service()
            ray.shutdown()


def registered(checkpoint: Path, folder: Path) -> str:
    from fastgan_aug.engines.mlflow_client import local_uri
    from fastgan_aug.engines.mlflow_promotion import promote
    from fastgan_aug.engines.mlflow_registry import register
    from fastgan_aug.engines.mlflow_tracking import RunTracker, TrackedDataset
    from fastgan_aug.gan.checkpoint import read_manifest

    uri, lineage = local_uri(folder), read_manifest(checkpoint).lineage
    for i in (1, 2):
        tracker = RunTracker(folder / str(i), uri=uri, experiment="bench", name=f"run-{i}")
        data = TrackedDataset("data", lineage.dataset_digest, lineage.class_counts)
        tracker.start({"i": i}, data)
        tracker.finish()
        assert tracker.close(60)
        register(checkpoint, uri=uri, model_name=NAME, run_id=tracker.run_id or "")
    promote(NAME, "1", uri, by="benchmark", reason="benchmark", override=True)
    return uri


# -- speed -----------------------------------------------------------------------------------------


def whole_path(large: Asked, clients: dict[str, Client]) -> list[dict]:
    """Client call to arrays in hand against the bare engine."""
    large.bare()
    times: dict[str, list[float]] = {name: [] for name in ["bare engine", *clients]}
    for _ in range(ROUNDS):
        times["bare engine"].append(timed(large.bare))
        for name, client in clients.items():
            times[name].append(timed(lambda c=client: large.served(c)))
    base = np.asarray(times["bare engine"])
    figures = [figure("bare engine, 1,024 images", LARGE / float(np.median(base)), "images/s")]
    for name in clients:
        ratio = float(np.median(base / np.asarray(times[name])))
        figures.append(
            figure(f"{name}, 1,024 images: share of the bare engine", ratio, "", 0.85, least=True)
        )
    return figures


def small_requests(small: Asked, clients: dict[str, Client]) -> list[dict]:
    """16 images, one request at a time; the goal is 1.3 times the computation plus 1 ms."""
    times: dict[str, list[float]] = {name: [] for name in ["bare engine", *clients]}
    for _ in range(SMALL_CALLS):
        times["bare engine"].append(timed(small.bare))
        for name, client in clients.items():
            times[name].append(timed(lambda c=client: small.served(c)))
    pure = float(np.median(times["bare engine"]))
    figures = [figure("bare engine, 16 images: p50", pure * 1e3, "ms")]
    for name in clients:
        p50, p99 = np.percentile(times[name], [50, 99])
        goal = 1.3 * pure + 1e-3
        figures += [
            figure(f"{name}, 16 images: p50", float(p50) * 1e3, "ms", round(goal * 1e3, 2)),
            figure(f"{name}, 16 images: p99", float(p99) * 1e3, "ms"),
        ]
    return figures


def loaded(name: str, url: str, token: str | None, small: Asked) -> list[dict]:
    """16 images at LOAD of what the service can do: arrivals at random, as callers are."""
    with Client(url, token=token) as client, ThreadPoolExecutor(8) as pool:
        seconds = timed(lambda: list(pool.map(lambda _: small.served(client), range(100))))
    capacity = 100 / seconds
    random_, times, calls = random.Random(SEED), list[float](), list[Future[object]]()

    def ask(client: Client, due: float) -> None:
        small.served(client)
        # From when it was due, not from when a thread was free for it.
        times.append(time.perf_counter() - due)

    with Client(url, token=token) as client, ThreadPoolExecutor(32) as pool:
        ended = time.perf_counter() + LOADED_SECONDS
        at = time.perf_counter()
        while at < ended:
            at += random_.expovariate(LOAD * capacity)
            time.sleep(max(0.0, at - time.perf_counter()))
            calls.append(pool.submit(ask, client, at))
    for call in calls:
        call.result()  # a call that failed has no time: no figure without it
    p50, p99 = np.percentile(times, [50, 99])
    return [
        figure(f"{name}, 16 images, 8 at a time", capacity, "requests/s"),
        figure(f"{name}, 70 % load: p50", float(p50) * 1e3, "ms"),
        figure(f"{name}, 70 % load: p99 / p50", float(p99 / p50), "x", 3.0),
    ]


def ideal_queue(servers: int) -> float:
    """p99 / p50 at that load where ``servers`` share a queue and each call takes the same time."""
    random_, free, at, times = random.Random(SEED), [0.0] * servers, 0.0, list[float]()
    for _ in range(IDEAL_CALLS):
        at += random_.expovariate(LOAD * servers)
        first = min(range(servers), key=free.__getitem__)
        free[first] = max(at, free[first]) + 1
        times.append(free[first] - at)
    p50, p99 = np.percentile(times, [50, 99])
    return float(p99 / p50)


# -- ill-treatment ---------------------------------------------------------------------------------


@contextmanager
def load(url: str, token: str, small: Asked, callers: int = 3) -> Iterator[dict]:
    """Callers who ask on and on; tells how many calls there were, failed, or gave other bytes."""
    told: dict = {"calls": 0, "failed": 0, "other": 0, "versions": Counter(), "slowest": 0.0}
    wanted, ended, lock = small.bare().tobytes(), threading.Event(), threading.Lock()

    def ask() -> None:
        with Client(url, token=token) as client:
            while not ended.is_set():
                began = time.perf_counter()
                try:
                    batch = client.request_balanced_batch(small.counts, seed=SEED)
                except Exception:  # whatever it is, the call has failed
                    with lock:
                        told["failed"] += 1
                    continue
                with lock:
                    told["calls"] += 1
                    told["other"] += batch.images.tobytes() != wanted
                    told["versions"][batch.provenance.version] += 1
                    told["slowest"] = max(told["slowest"], time.perf_counter() - began)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
            told["failed"] += thread.is_alive()  # its call was never answered


def version_change(url: str, token: str, uri: str, small: Asked) -> list[dict]:
    from fastgan_aug.engines.mlflow_promotion import promote

    with load(url, token, small) as told:
        time.sleep(2)
        promote(NAME, "2", uri, by="benchmark", reason="benchmark", override=True)
        time.sleep(4)
    return [
        figure("new champion under load: calls", told["calls"], ""),
        figure("new champion under load: failed calls", told["failed"], "", 0),
        figure("new champion under load: calls that the new one answered",
               told["versions"]["2"], "", 1, least=True),
    ]  # fmt: skip


def killed_replica(url: str, token: str, small: Asked) -> list[dict]:
    with load(url, token, small) as told:
        time.sleep(1)
        replicas()[0].kill()
        time.sleep(8)
    return [
        figure("replica killed under load: calls", told["calls"], ""),
        figure("replica killed under load: failed calls", told["failed"], "", 0),
        figure("replica killed under load: calls with other bytes", told["other"], "", 0),
        figure("replica killed under load: slowest call", told["slowest"], "s"),
    ]


def overload(url: str, token: str, asked: Asked, small: Asked) -> list[dict]:
    """Ten times as many large requests at a time as two replicas take on."""
    wait_until(lambda: both_ready(url), 60)
    body, headers = BatchRequest(asked.counts).to_json(), {"authorization": f"Bearer {token}"}
    statuses: Counter[int] = Counter()
    silent, before = 0, private_bytes()

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{url}/v1/balanced-batch", content=body, headers=headers, timeout=300)

    with ThreadPoolExecutor(160) as pool:
        for answer in pool.map(ask, range(160)):
            statuses[answer.status_code] += 1
            silent += answer.status_code in (429, 503) and "retry-after" not in answer.headers
    with Client(url, token=token) as client:
        recovery = timed(lambda: small.served(client))
    grown = private_bytes() - before
    return [
        figure("160 at a time where 16 are taken on: answered", statuses[200], ""),
        figure("160 at a time: refused with 503", statuses[503], ""),
        figure("160 at a time: other answers", 160 - statuses[200] - statuses[503], "", 0),
        figure("160 at a time: refused without Retry-After", silent, "", 0),
        figure("the first call afterwards", recovery, "s", 5),
        figure("replicas' memory beside Ray's object store, growth", grown / 2**20, "MiB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--haproxy", action="store_true")
    parser.add_argument("--bare", type=int)
    told = parser.parse_args()
    if told.bare:
        bare_application(told.checkpoint, told.bare)
        return
    from fastgan_aug.engines.mlflow_server import free_port

    synthesizer = Synthesizer.load(told.checkpoint, threads=1)
    large, small = Asked(synthesizer, LARGE), Asked(synthesizer, SMALL)
    proxy = "Ray Serve, HAProxy" if told.haproxy else "Ray Serve"
    with tempfile.TemporaryDirectory() as name, uvicorn_alone(
        told.checkpoint, free_port()
    ) as alone, ray_serve(
        told.checkpoint, free_port(), Path(name), told.haproxy
    ) as (url, token, uri):  # fmt: skip
        with Client(alone) as first, Client(url, token=token) as second:
            clients = {"uvicorn": first, proxy: second}
            figures = whole_path(large, clients) + small_requests(small, clients)
        figures += loaded("uvicorn", alone, None, small) + loaded(proxy, url, token, small)
        figures += [
            figure(f"70 % load, {n} ideal server(s) with one queue: p99 / p50", ideal_queue(n), "x")
            for n in (1, 2)
        ]
        figures += version_change(url, token, uri, small)
        figures += killed_replica(url, token, small)
        figures += overload(url, token, large, small)
        # Before the service ends, which may take long where the machine is busy.
        meta = synthesizer.meta
        publish(
            "service-haproxy" if told.haproxy else "service", figures,
            command="python -m benchmarks.service CHECKPOINT" + " --haproxy" * told.haproxy,
            seeds=[SEED], threads=1,
            batch=CHUNK, rounds=ROUNDS, small_calls=SMALL_CALLS, checkpoint=meta.digest,
            dataset=meta.lineage.dataset_digest, config=meta.lineage.config_digest,
            load_average=[round(n, 1) for n in os.getloadavg()],
        )  # fmt: skip


if __name__ == "__main__":
    main()
