"""The same generator behind other servers: `python -m benchmarks.comparison CHECKPOINT`.

    mlflow models serve   a pyfunc model (from code, no pickle), JSON in and out
    LitServe              its defaults, JSON in and out
    uvicorn               this project's application alone
    Ray Serve             this project's service (with --haproxy behind HAProxy)

All make the same 16 images a request with one torch thread a process, of which the service has two,
the others one; the callers share the cores with them. Wire CPU is what encoding and decoding an
answer take, without any generator. LitServe is no dependency: `pip install litserve==0.2.19`;
where it is missing its rows are too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.measure import figure, publish
from benchmarks.replicas import wait_until
from benchmarks.service import SEED, SMALL, Asked, ray_serve, timed, uvicorn_alone
from fastgan_aug.gan.synthesizer import Synthesizer
from serving.client import Client
from serving.generating import chunks, decide
from serving.models import LoadedModel
from serving.protocol import decode, encode, sample_seed
from serving.request import BatchRequest

ROUNDS, CALLS, CONCURRENCY = 5, 32, (1, 32)
CHECKPOINT = "FASTGAN_AUG_BENCHMARK_CHECKPOINT"  # tells the other servers' processes
MODEL = """
import os
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from benchmarks.comparison import CHECKPOINT, images_of


class Generator(PythonModel):
    def load_context(self, context):
        self.generate = images_of(os.environ[CHECKPOINT])

    def predict(self, context, model_input: list[int]) -> list[list[list[float]]]:
        return self.generate(model_input)


set_model(Generator())
"""


def images_of(checkpoint: str | Path) -> Callable[[list[int]], list[Any]]:
    """Seeds to nested lists of images, for servers whose wire is JSON."""
    synthesizer = Synthesizer.load(Path(checkpoint), threads=1)
    cell = next(c for c, n in synthesizer.class_counts.items() if n)

    def generate(seeds: list[int]) -> list[Any]:
        images = synthesizer.generate([cell] * len(seeds), np.asarray(seeds, np.uint64))
        found: list[Any] = images.tolist()
        return found

    return generate


@contextmanager
def process(command: list[str], url: str, path: str, environment: dict[str, str]) -> Iterator[str]:
    """A server in a process group of its own, from when it answers ``path`` on."""
    child = subprocess.Popen(
        command, env=os.environ | environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _is_up(url + path), 120)
        yield url
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def mlflow_server(folder: Path, checkpoint: Path, port: int) -> Any:
    """`mlflow models serve` of a pyfunc model from code."""
    import mlflow.pyfunc

    code = folder / "generator_model.py"
    code.write_text(MODEL)
    os.environ[CHECKPOINT] = str(checkpoint)
    mlflow.pyfunc.save_model(folder / "pyfunc", python_model=str(code), pip_requirements=["mlflow"])
    command = [
        sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "pyfunc"), "-p",
        str(port), "--env-manager", "local", "-w", "1",
    ]  # fmt: skip
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    # It calls uvicorn by its name.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {CHECKPOINT: str(checkpoint), "PYTHONPATH": path, "PATH": programs}
    return process(command, f"http://127.0.0.1:{port}", "/ping", environment)


def by_json(url: str, path: str, body: Callable[[list[int]], Any], key: str) -> Callable[[], None]:
    """A call of a JSON server: from the request to an array in hand."""
    client = httpx.Client(timeout=300)
    seeds = [sample_seed(SEED, "a", i) % 2**31 for i in range(SMALL)]

    def call() -> None:
        answer = client.post(url + path, json=body(seeds)).raise_for_status().json()
        images = np.asarray(answer[key], np.float32)
        assert images.shape[0] == SMALL

    return call


def measured(calls: dict[str, Callable[[], object]]) -> list[dict[str, Any]]:
    """Images/s and latency of each, turn by turn."""
    figures = []
    for at_once in CONCURRENCY:
        rates: dict[str, list[float]] = {name: [] for name in calls}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                with ThreadPoolExecutor(at_once) as pool:
                    began = time.perf_counter()
                    times[name] += pool.map(lambda _, c=call: timed(c), range(CALLS))
                    rates[name].append(CALLS * SMALL / (time.perf_counter() - began))
        for name in calls:
            p50, p99 = np.percentile(times[name], [50, 99]) * 1e3
            at = f"{name}, {at_once} at a time"
            figures += [
                figure(f"{at}: images/s", float(np.median(rates[name])), "1/s"),
                figure(f"{at}: p50", float(p50), "ms"),
                figure(f"{at}: p99", float(p99), "ms"),
            ]
        figures += _against(rates, at_once)
    return figures


def _against(rates: dict[str, list[float]], at_once: int) -> list[dict[str, Any]]:
    """Ours over theirs: medians of the ratios of one round."""
    ours = next(name for name in rates if name.startswith("Ray Serve"))
    found = []
    for name in rates:
        if name == ours:
            continue
        ratio = float(np.median(np.asarray(rates[ours]) / np.asarray(rates[name])))
        goal = {"LitServe": 2.0, "uvicorn": 0.8 if "HAProxy" in ours else None}.get(name)
        what = f"{ours} over {name}, {at_once} at a time"
        found.append(figure(what, ratio, "x", goal, least=True))
    return found


def wire(synthesizer: Synthesizer, asked: Asked) -> list[dict[str, Any]]:
    """CPU seconds that an answer's two ends take, Arrow against JSON."""
    model = LoadedModel(synthesizer, "benchmarked", "1", "1", "")
    request = BatchRequest(asked.counts, seed=SEED)
    header = decide(request, model)
    made = list(chunks(model, header.plan, SEED))
    images = np.concatenate([chunk.images for chunk in made])

    def arrow() -> None:
        stream = b"".join(encode(header, made))
        import pyarrow as pa

        _, arrived = decode(pa.BufferReader(stream))
        assert sum(len(chunk.cells) for chunk in arrived) == len(images)

    def plain() -> None:
        text = json.dumps({"predictions": images.tolist()})
        assert len(np.asarray(json.loads(text)["predictions"], np.float32)) == len(images)

    took = {name: _cpu(call) / len(images) * 1e6 for name, call in (("a", arrow), ("j", plain))}
    return [
        figure("wire CPU of an image, Arrow", took["a"], "us"),
        figure("wire CPU of an image, JSON", took["j"], "us"),
        figure("JSON over Arrow", took["j"] / took["a"], "x", 50, least=True),
    ]


def _cpu(call: Callable[[], None], rounds: int = 15) -> float:
    found = []
    for _ in range(rounds):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return float(np.median(found))


def main() -> None:
    """Starts all servers, measures them in turn, writes and prints."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("checkpoint", type=Path)
    words.add_argument("--haproxy", action="store_true")
    told = words.parse_args()
    from fastgan_aug.engines.mlflow_server import free_port

    checkpoint = told.checkpoint.resolve()
    synthesizer = Synthesizer.load(checkpoint, threads=1)
    small = Asked(synthesizer, SMALL)
    figures = wire(synthesizer, small)
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        calls: dict[str, Callable[[], object]] = {}
        port = free_port()
        url = running.enter_context(mlflow_server(Path(name), checkpoint, port))
        calls["mlflow models serve"] = by_json(
            url, "/invocations", lambda seeds: {"inputs": seeds}, "predictions"
        )
        if find_spec("litserve") is not None:
            port = free_port()
            command = [sys.executable, "-m", "benchmarks.servers.litserve_server", str(checkpoint)]
            at = f"http://127.0.0.1:{port}"
            url = running.enter_context(process([*command, str(port)], at, "/health", {}))
            calls["LitServe"] = by_json(url, "/predict", lambda seeds: {"seeds": seeds}, "images")
        alone = running.enter_context(uvicorn_alone(checkpoint, free_port()))
        place = running.enter_context(
            ray_serve(checkpoint, free_port(), Path(name), told.haproxy, waiting=64)
        )
        proxy = "Ray Serve, HAProxy" if told.haproxy else "Ray Serve"
        first = running.enter_context(Client(alone))
        second = running.enter_context(Client(place[0], token=place[1]))
        calls |= {"uvicorn": lambda: small.served(first), proxy: lambda: small.served(second)}
        figures += measured(calls)
        meta = synthesizer.meta
        publish(
            "comparison-haproxy" if told.haproxy else "comparison", figures,
            command="python -m benchmarks.comparison CHECKPOINT" + " --haproxy" * told.haproxy,
            seeds=[SEED], threads=1, rounds=ROUNDS, calls=CALLS, images_a_request=SMALL,
            checkpoint=meta.digest, dataset=meta.lineage.dataset_digest,
            config=meta.lineage.config_digest,
        )  # fmt: skip


if __name__ == "__main__":
    main()
