"""Engines of the generator, side by side: `python -m benchmarks.engine CHECKPOINT [--threads N]`.

The reference is torch, eager, fp32. Each engine makes the same images from the same latents, in
batches of the served size, turn by turn in one run; a ratio is the median over the rounds of that
round's ratio to the reference. Parity is told beside it: an engine that is fast and wrong is no
engine.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import figure, publish
from fastgan_aug.gan.randomness import latents_of_seeds
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer

Engine = Callable[[Tensor, Tensor], Tensor]
ROUNDS, IMAGES, SEED = 5, 512, 0
LARGEST_ERROR, LARGEST_MC, LEAST_RATIO = 2e-2, 1e-3, 4.0  # from the project's own requirements


def engines(generator: torch.nn.Module, threads: int) -> dict[str, Callable[[], Engine]]:
    """What is compared; each is built when its turn comes, and left out where it cannot be."""
    from copy import deepcopy

    def bf16(module: Engine) -> Engine:
        def run(latents: Tensor, condition: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return module(latents, condition).float()

        return run

    def openvino(precision: str) -> Engine:
        import openvino

        example = (torch.zeros(CHUNK, generator.latent_size), torch.zeros(CHUNK, _elements))
        core = openvino.Core()
        model = openvino.convert_model(generator, example_input=example)
        settings = {
            "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        }  # fmt: skip
        request = core.compile_model(model, "CPU", settings).create_infer_request()

        def run(latents: Tensor, condition: Tensor) -> Tensor:
            found = request.infer([latents.numpy(), condition.numpy()])
            return torch.from_numpy(next(iter(found.values())).copy())

        return run

    def onnxruntime() -> Engine:
        import io

        import onnxruntime as ort

        file = io.BytesIO()
        example = (torch.zeros(CHUNK, generator.latent_size), torch.zeros(CHUNK, _elements))
        torch.onnx.export(
            generator, example, file, dynamo=False, opset_version=17,
            input_names=["latents", "condition"], output_names=["images"],
        )  # fmt: skip
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(file.getvalue(), options, ["CPUExecutionProvider"])

        def run(latents: Tensor, condition: Tensor) -> Tensor:
            inputs = {"latents": latents.numpy(), "condition": condition.numpy()}
            return torch.from_numpy(session.run(None, inputs)[0])

        return run

    _elements = generator.embed.in_features - generator.latent - generator.drawn

    def frozen() -> Engine:
        example = (torch.zeros(CHUNK, generator.latent_size), torch.zeros(CHUNK, _elements))
        return torch.jit.freeze(torch.jit.trace(deepcopy(generator), example))

    last = deepcopy(generator).to(memory_format=torch.channels_last)
    return {
        "torch fp32": lambda: generator,
        "torch fp32, channels last": lambda: last,
        "torch bf16": lambda: bf16(generator),
        "torch bf16, channels last": lambda: bf16(last),
        "torch fp32, traced and frozen": frozen,
        "torch fp32, compiled": lambda: torch.compile(deepcopy(generator)),
        "torch bf16, compiled": lambda: bf16(torch.compile(deepcopy(generator))),
        "ONNX Runtime fp32": onnxruntime,
        "OpenVINO fp32": lambda: openvino("f32"),
        "OpenVINO bf16": lambda: openvino("bf16"),
    }


def whole(engine: Engine, latents: Tensor, condition: Tensor) -> np.ndarray:
    """All images, in [0, 1], batch after batch."""
    made = [
        engine(latents[i : i + CHUNK], condition[i : i + CHUNK])
        for i in range(0, len(latents), CHUNK)
    ]
    return ((torch.cat(made)[:, 0] + 1) / 2).clamp(0, 1).numpy()


def matrix_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of a matrix product, the best of several: what this machine can do just now."""
    a, b = (torch.randn(2048, 2048, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - began) / 1e9)
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    with torch.no_grad():
        measure(told.checkpoint, told.threads)


def measure(checkpoint: Path, threads: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    synthesizer = Synthesizer.load(checkpoint, threads=threads)
    generator, cells = synthesizer.generator, synthesizer.space.cells
    latents = latents_of_seeds(np.arange(IMAGES, dtype=np.uint64) + SEED, generator.latent_size)
    index = torch.arange(IMAGES) % len(cells)
    condition = torch.from_numpy(synthesizer.space.vectors)[index]
    with FlopCounterMode(display=False) as counter:
        generator(latents[:1], condition[:1])
    built: dict[str, Engine] = {}
    skipped: dict[str, str] = {}
    for name, build in engines(generator, threads).items():
        try:
            built[name] = build()
            whole(built[name], latents[: 2 * CHUNK], condition[: 2 * CHUNK])
        except Exception as error:  # an engine that is not here is told, and the others measured
            built.pop(name, None)
            skipped[name] = f"{type(error).__name__}: {error}"[:200]
    seconds: dict[str, list[float]] = {name: [] for name in built}
    images: dict[str, np.ndarray] = {}
    for _ in range(ROUNDS):
        for name, engine in built.items():
            began = time.perf_counter()
            images[name] = whole(engine, latents, condition)
            seconds[name].append(time.perf_counter() - began)
    report(images, seconds, counter.get_total_flops() / 1e9, checkpoint, threads, skipped)


def report(
    images: dict[str, np.ndarray],
    seconds: dict[str, list[float]],
    gflop: float,
    checkpoint: Path,
    threads: int,
    skipped: dict[str, str],
) -> None:
    reference = "torch fp32"
    base, truth = np.asarray(seconds[reference]), images[reference]
    figures = []
    for name, times in seconds.items():
        ratio = float(np.median(base / np.asarray(times)))
        error = float(np.abs(images[name] - truth).max())
        shift = np.abs(images[name].mean((1, 2)) / truth.mean((1, 2)) - 1)
        figures += [
            figure(f"{name}: images/s", IMAGES / float(np.median(times)), "1/s"),
            figure(f"{name}: ratio to {reference}", ratio, "x"),
            figure(f"{name}: largest pixel error", error, "of [0, 1]", LARGEST_ERROR),
            figure(f"{name}: largest shift of a mean count", float(shift.max()), "relative",
                   LARGEST_MC),
        ]  # fmt: skip
    fastest = max(f["value"] for f in figures if "ratio" in f["what"])
    faithful = [
        name
        for name, made in images.items()
        if np.abs(made - truth).max() <= LARGEST_ERROR
        and np.abs(made.mean((1, 2)) / truth.mean((1, 2)) - 1).max() <= LARGEST_MC
    ]
    best = max(faithful, key=lambda name: np.median(base / np.asarray(seconds[name])))
    peak = matrix_peak(torch.bfloat16) * threads
    rate = max(f["value"] for f in figures if "images/s" in f["what"]) * gflop
    figures += [
        figure("fastest engine, ratio to torch fp32", fastest, "x", LEAST_RATIO, least=True),
        figure(
            f"fastest within parity ({best}), ratio to torch fp32",
            float(np.median(base / np.asarray(seconds[best]))),
            "x",
            LEAST_RATIO,
            least=True,
        ),
        figure("fastest engine, share of the bf16 matrix peak", rate / peak, "", 0.8, least=True),
        figure("the generator's work", gflop, "GFLOP/image"),
    ]
    meta = Synthesizer.load(checkpoint).meta
    publish(
        "engine", figures, seeds=[SEED], threads=threads, batch=CHUNK, rounds=ROUNDS,
        images=IMAGES, checkpoint=meta.digest, dataset=meta.lineage.dataset_digest,
        config=meta.lineage.config_digest, torch=torch.__version__.split("+")[0], skipped=skipped,
        load_average=[round(n, 1) for n in os.getloadavg()],
    )  # fmt: skip


if __name__ == "__main__":
    main()
