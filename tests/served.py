"""A small real generator with random weights, behind the real application, in process."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT, FICTION, UNVERIFIED, DatasetMeta
from fastgan_aug.engines.mlflow_registry import RegisteredVersion, register
from fastgan_aug.engines.mlflow_tracking import RunTracker, TrackedDataset
from fastgan_aug.errors import ModelNotFound
from fastgan_aug.gan.checkpoint import Lineage, write_checkpoint
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.step import new_state
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.filter_fitting import fit_sample_filter
from serving.generating import filter_of
from serving.models import LoadedModel

NETWORK = NetworkConfig(size=32, latent=8, embedding=8, generator_width=4, discriminator_width=4)
ONE_FACTOR = {"shape": ["disc", "ring", "bar", "cross"]}
TWO_FACTORS = {"zone": ["LOW", "HIGH"], "pattern": ["none", "left", "both"]}
ONE_COUNTS = {"disc": 60, "ring": 40, "bar": 24, "cross": 0}
TWO_COUNTS = {
    "LOW/none": 30, "LOW/left": 10, "LOW/both": 0, "HIGH/none": 20, "HIGH/left": 8, "HIGH/both": 4,
}  # fmt: skip


def lineage(space: dict[str, list[str]], counts: dict[str, int]) -> Lineage:
    config = {"network": vars(NETWORK)}
    return Lineage(
        config, "c" * 64, space, counts, "d" * 64, ["a" * 64], "0.1.0+abcdef0", "unkeyed", "patient"
    )


def tiny_checkpoint(folder: Path, origin: Lineage, seed: int = 3) -> Path:
    dimension = ConditionSpace.of(origin.space).dimension
    state = new_state(NETWORK, TrainingConfig(seed=seed), dimension, torch.device("cpu"))
    write_checkpoint(folder, state, state.generator, origin)
    return folder


def slices_of(synthesizer: Synthesizer, per_cell: int, seed: int = 0) -> Dataset:
    """Slices of a generator as if they were real, two of each patient."""
    cells = [c for c, n in synthesizer.class_counts.items() if n for _ in range(per_cell)]
    seeds = np.random.default_rng(seed).integers(0, 2**63, len(cells), np.uint64)
    space, owners = synthesizer.space, [f"{seed}-{i // 2:05d}" for i in range(len(cells))]
    return Dataset.build(
        DatasetMeta(
            space=space, size=synthesizer.size, source="a toy", normalisation="maximum",
            laterality=UNVERIFIED, grouping=BY_PATIENT, pseudonym_key=FICTION,
        ),
        images=synthesizer.generate(cells, seeds),
        labels={n: [c.values[i] for c in cells] for i, n in enumerate(space.names)},
        patient_id=owners, scan_id=owners, z=[0.0] * len(cells), scale=[1.0] * len(cells),
        unit="counts", synthetic=False,
    )  # fmt: skip


def filtered_checkpoint(folder: Path, origin: Lineage, seed: int = 3) -> Path:
    """A tiny checkpoint with a filter that takes its own generator's slices for real ones."""
    synthesizer = Synthesizer.load(tiny_checkpoint(folder / "bare", origin, seed))
    sample_filter = fit_sample_filter(slices_of(synthesizer, 40))
    dimension = ConditionSpace.of(origin.space).dimension
    state = new_state(NETWORK, TrainingConfig(seed=seed), dimension, torch.device("cpu"))
    write_checkpoint(folder / "filtered", state, state.generator, origin, sample_filter.save)
    return folder / "filtered"


def registered(
    folder: Path,
    uri: str,
    name: str,
    number: int,
    *,
    broken: bool = False,
    filtered: bool = False,
) -> RegisteredVersion:
    """Trains nothing: registers a tiny checkpoint as the next version of a model, with a run.

    A ``broken`` one is whole by its hashes, but its weights are not finite; a ``filtered`` one
    has a filter.
    """
    origin = lineage(ONE_FACTOR, ONE_COUNTS)
    tracker = RunTracker(folder / f"run-{number}", uri=uri, experiment="toy", name=f"run-{number}")
    data = TrackedDataset("shapes", origin.dataset_digest, origin.class_counts)
    tracker.start({"number": number}, data)
    dimension = ConditionSpace.of(origin.space).dimension
    state = new_state(NETWORK, TrainingConfig(seed=number), dimension, torch.device("cpu"))
    if broken:
        next(iter(state.generator.output.parameters())).data.fill_(float("nan"))
    made = folder / f"checkpoint-{number}"
    if filtered:
        made = filtered_checkpoint(made, origin, number)
    else:
        write_checkpoint(made, state, state.generator, origin)
    tracker.finish()
    assert tracker.close()
    return register(made, uri=uri, model_name=name, run_id=tracker.run_id or "")


class FolderModels:
    """A `ModelSource` on checkpoint folders: ``champion`` and ``1`` are the first of them."""

    def __init__(self, *folders: Path) -> None:
        self._loaded = {str(i): Synthesizer.load(f) for i, f in enumerate(folders, start=1)}
        self._filters = {
            version: filter_of(folder, self._loaded[version])
            for version, folder in zip(self._loaded, folders, strict=True)
        }

    def get(self, model: str) -> LoadedModel:
        version = "1" if model == "champion" else model
        if version not in self._loaded:
            raise ModelNotFound(f"no {model!r}", allowed="1", do="register one")
        return LoadedModel(
            self._loaded[version], "toy", version, model, "run-7", self._filters[version]
        )

    def known(self, model: str) -> LoadedModel | None:
        try:
            return self.get(model)
        except ModelNotFound:
            return None

    def status(self) -> dict[str, object]:
        return {"loaded": list(self._loaded)}


class InProcess(httpx.BaseTransport):
    """Calls an ASGI application from a synchronous client."""

    def __init__(self, app: object) -> None:
        self._app = app

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._call(request))

    async def _call(self, request: httpx.Request) -> httpx.Response:
        # The application answers an unexpected failure itself, as it does behind a server.
        transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)  # type: ignore[arg-type]
        outgoing = httpx.Request(
            request.method, request.url, headers=request.headers, content=request.read()
        )
        async with transport:
            response = await transport.handle_async_request(outgoing)
            body = await response.aread()
        response.headers.pop("content-encoding", None)  # `aread` has decoded it
        return httpx.Response(response.status_code, headers=response.headers, content=body)


@contextmanager
def over_http(app: object) -> Iterator[str]:
    """The application on a real socket of this process; yields its address."""
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def serve(folder: Path, port: int) -> None:
    """The real application on real HTTP until the process is ended."""
    import uvicorn

    from serving.server.app import create_app

    uvicorn.run(create_app(FolderModels(folder)), port=port, log_level="critical")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
