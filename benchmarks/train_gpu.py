"""Speed of a training step on a GPU: `python -m benchmarks.train_gpu`; torch and numpy alone.

The data set lies on the device. The eager step (fp32, every speed switch off) runs beside the fast
one (bf16, channels_last, the whole step in one CUDA graph, no waiting for the device), in one
interleaved run at batch 4 and 64. Without a CUDA device it says so and writes nothing.

A graph replays fixed memory: batches are drawn as always and copied into it, and Adam keeps its
step count on the device. The host decides the corner of Eq. 4's crop, so both loops run with one
corner; translation and appearance are off in both, as no graph of them has been captured yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.train_plain import batch_of, plain_step, plainly, random_data, with_plain_optimisers
from fastgan_aug.gan.batch import Batch, Share, TrainingData
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.step import TrainState, new_state, train_step

# From the project's own requirement.
AGAINST_EAGER = 5.0
BATCHES, ROUNDS, WARM_UP = (4, 64), 5, 3
IMAGES = 4096  # per round and batch size
COUNTS, CONDITION = (300, 200, 150, 100, 80, 60, 44, 4), 6  # a set as unequal as real ones
NETWORKS = {
    "paper": NetworkConfig(),
    "small": NetworkConfig(latent=64, generator_width=8, discriminator_width=16, folded=True),
}
RESULT = Path(__file__).parent / "results" / "train_gpu.json"
CORNER = (0, 0)  # of every batch that is timed, in both loops: a graph holds one


def data_on(device: torch.device, size: int) -> TrainingData:
    """Uniform slices of eight cells on the device."""
    vectors = torch.eye(len(COUNTS))[:, :CONDITION]
    return random_data(COUNTS, vectors, size).to(device)


def eager_loop(
    network: NetworkConfig, training: TrainingConfig, data: TrainingData
) -> Callable[[], Tensor]:
    """The step with every speed switch off, reading its losses after each as loops often do."""
    state = with_plain_optimisers(new_state(network, training, CONDITION, data.images.device))

    def step() -> Tensor:
        batch = replace(batch_of(state, data, training), corner=CORNER)
        losses = plain_step(state, batch, training)
        losses.tolist()
        return losses

    return step


def fast_loop(
    network: NetworkConfig, training: TrainingConfig, data: TrainingData
) -> Callable[[], Tensor]:
    """The step as one CUDA graph over fixed memory."""
    state = new_state(network, training, CONDITION, data.images.device)
    for module in (state.generator, state.discriminator, state.average):
        if module is not None:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        for group in optimiser.param_groups:
            group["capturable"] = True
    still = cloned(replace(batch_of(state, data, training), corner=CORNER))
    graph, losses = captured(state, still, training)

    def step() -> Tensor:
        copy_into(still, batch_of(state, data, training))
        graph.replay()
        state.images_seen += training.batch
        return losses

    return step


def captured(
    state: TrainState, still: Batch, training: TrainingConfig
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A graph of ``train_step`` on this memory, warmed up on a stream of its own as CUDA wants."""
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            train_step(state, still, training, Share())
    torch.cuda.current_stream().wait_stream(aside)
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        optimiser.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = train_step(state, still, training, Share())
    return graph, losses


def cloned(batch: Batch) -> Batch:
    """The same batch in memory of its own."""
    tensors: dict[str, Any] = {k: v.clone() for k, v in tensors_of(batch).items()}
    return replace(batch, **tensors)


def copy_into(still: Batch, batch: Batch) -> None:
    """Brings a batch into a graph's memory, without waiting for it."""
    fresh = tensors_of(batch)
    for name, tensor in tensors_of(still).items():
        tensor.copy_(fresh[name], non_blocking=True)


def tensors_of(batch: Batch) -> dict[str, Tensor]:
    values = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {name: v for name, v in values.items() if isinstance(v, Tensor)}


def seconds(step: Callable[[], Tensor], steps: int) -> float:
    """Of so many steps, until the device has done them."""
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(steps):
        losses = step()
    torch.cuda.synchronize()
    if not bool(torch.isfinite(losses).all()):
        raise SystemExit(f"the losses are {losses.tolist()}: nothing was measured")
    return time.perf_counter() - begun


def measured(name: str, size: int, rounds: int, images: int) -> list[dict[str, Any]]:
    """Images/s of both loops and their ratio, for one network and batch size."""
    network = NETWORKS[name]
    training = TrainingConfig(batch=size, precision="bf16", ema_half_life=1_000)
    data = data_on(torch.device("cuda"), network.size)
    loops = {
        "eager": eager_loop(network, plainly(training), data),
        "fast": fast_loop(network, training, data),
    }
    steps = max(1, images // size)
    for step in loops.values():
        seconds(step, WARM_UP)
    rates: dict[str, list[float]] = {loop: [] for loop in loops}
    for _ in range(rounds):
        for loop, step in loops.items():
            rates[loop].append(steps * size / seconds(step, steps))
    ratio = statistics.median(f / e for e, f in zip(rates["eager"], rates["fast"], strict=True))
    where = f"{name} network, batch {size}"
    found = [
        {"what": f"{where}, {loop}", "value": statistics.median(r), "unit": "images/s",
         "goal": None, "holds": None}
        for loop, r in rates.items()
    ]  # fmt: skip
    return [*found, {"what": f"{where}, fast over eager", "value": ratio, "unit": "x",
                     "goal": AGAINST_EAGER, "holds": ratio >= AGAINST_EAGER}]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the images, no result")
    quick = parser.parse_args().quick
    if not torch.cuda.is_available():
        print("torch finds no CUDA device: nothing was measured and nothing written")
        return
    images = IMAGES // 4 if quick else IMAGES
    figures = [f for n in NETWORKS for size in BATCHES for f in measured(n, size, ROUNDS, images)]
    for row in figures:
        print(f"{row['what']:50} {row['value']:12.3f} {row['unit']}")
    if quick:
        return
    report = {
        "name": "train_gpu",
        "command": "python -m benchmarks.train_gpu",
        "machine": torch.cuda.get_device_name(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "seeds": [0],
        "rounds": ROUNDS,
        "figures": figures,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
