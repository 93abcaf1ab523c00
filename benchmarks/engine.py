"""Engines of the generator, side by side: `python -m benchmarks.engine CHECKPOINT [--threads N]`.

The base is the generator as it was trained, in torch, eager, fp32. Each engine makes the same
images from the same latents, in batches of the served size, turn by turn in one run; a ratio is the
median over the rounds of that round's ratio to the base. Parity is told beside it: an engine that
is fast and wrong is no engine. Times are the processor's, of all threads, so that
other work on the machine counts for less; peaks are of one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import figure, publish
from fastgan_aug.gan.randomness import latents_of_seeds
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer
from serving.server.openvino_engine import use_openvino

Engine = Callable[..., Tensor]
REFERENCE, SERVED = "torch fp32, as trained", "torch fp32, as served"
ROUNDS, IMAGES, SEED = 5, 512, 0
LARGEST_ERROR, LARGEST_MC, LEAST_RATIO = 2e-2, 1e-3, 4.0  # from the project's own requirements


def autocast(run: Engine, dtype: torch.dtype = torch.bfloat16) -> Engine:
    """The same in bfloat16, with float32 results."""

    def in_bfloat16(*given: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return run(*given).float()

    return in_bfloat16


class Part(nn.Module):
    """One method as a module: what exporters take."""

    def __init__(self, owner: nn.Module, method: str) -> None:
        super().__init__()
        self.owner, self.method = owner, method

    def forward(self, *given: Tensor) -> Tensor:
        return getattr(self.owner, self.method)(*given)


def openvino(part: nn.Module, given: tuple[Tensor, ...], precision: str, threads: int) -> Engine:
    import openvino

    model = openvino.convert_model(part, example_input=given, input=[list(g.shape) for g in given])
    settings = {
        "INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
    }  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda *given: torch.from_numpy(request.infer([g.numpy() for g in given])[0].copy())


def onnxruntime(part: nn.Module, given: tuple[Tensor, ...], threads: int) -> Engine:
    import io

    import onnxruntime as ort

    file = io.BytesIO()
    torch.onnx.export(part, given, file, dynamo=False, opset_version=17)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(file.getvalue(), options, ["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*given: Tensor) -> Tensor:
        inputs = dict(zip(names, (g.numpy() for g in given), strict=True))
        return torch.from_numpy(session.run(None, inputs)[0])

    return run


def engines(synthesizer: Synthesizer, threads: int) -> dict[str, Callable[[], Engine]]:
    """What is compared; each is built when its turn comes, and left out where it cannot be."""
    generator, served = synthesizer.generator, synthesizer.served
    condition = torch.from_numpy(synthesizer.space.vectors)[:1].repeat(CHUNK, 1)
    given = served.given(torch.zeros(CHUNK, generator.latent_size), condition)
    maps = 1 + len(generator.noise_shapes)  # what the convolutions are given

    def images_by(run: Engine) -> Engine:
        return lambda latents, condition: run(*served.given(latents, condition))

    def network_by(run: Engine) -> Engine:  # what decides a slice's scale stays in float32
        return images_by(lambda *given: served.finished(run(*given[:maps]), *given[maps:]))

    def frozen(part: nn.Module, given: tuple[Tensor, ...]) -> Engine:
        return torch.jit.freeze(torch.jit.trace(part.eval(), given))

    def bfloat16_sums() -> Engine:
        def run(*given: Tensor) -> Tensor:
            before = torch.backends.mkldnn.conv.fp32_precision
            torch.backends.mkldnn.conv.fp32_precision = "bf16"
            try:
                return served.network(*given)
            finally:
                torch.backends.mkldnn.conv.fp32_precision = before

        return network_by(run)

    def served_by_openvino() -> Engine:
        other = Synthesizer(generator, synthesizer.meta)
        use_openvino(other, threads)
        return other.run

    images, network = Part(served, "images").eval(), Part(served, "network").eval()
    return {
        REFERENCE: lambda: generator,
        SERVED: lambda: served,
        "torch fp32, traced and frozen": lambda: images_by(frozen(images, given)),
        "torch bf16": lambda: network_by(autocast(served.network)),
        "torch bf16 products, fp32 between": bfloat16_sums,
        "ONNX Runtime fp32": lambda: images_by(onnxruntime(images, given, threads)),
        "OpenVINO fp32": served_by_openvino,
        "OpenVINO bf16": lambda: network_by(openvino(network, given[:maps], "bf16", threads)),
        "OpenVINO bf16, finished in it": lambda: images_by(
            openvino(images, given, "bf16", threads)
        ),
        "OpenVINO fp16": lambda: network_by(openvino(network, given[:maps], "f16", threads)),
        "OpenVINO fp16, finished in it": lambda: images_by(openvino(images, given, "f16", threads)),
    }


def parts(synthesizer: Synthesizer) -> list[dict]:
    """Milliseconds of each part of a batch as torch computes it, the median of many."""
    served, size = synthesizer.served, synthesizer.generator.latent_size
    seeds, maps = np.arange(CHUNK, dtype=np.uint64), 1 + len(synthesizer.generator.noise_shapes)
    condition = torch.from_numpy(synthesizer.space.vectors)[:1].repeat(CHUNK, 1)
    latents = latents_of_seeds(seeds, size)
    given = served.given(latents, condition)
    folded = served.network(*given[:maps])
    steps: dict[str, Callable[[], object]] = {
        "noise of the seeds": lambda: latents_of_seeds(seeds, size),
        "embedding and appearance": lambda: served.given(latents, condition),
        "convolutions": lambda: served.network(*given[:maps]),
        "smoothing, tanh, maximum": lambda: served.finished(folded, *given[maps:]),
    }
    found = []
    for name, step in steps.items():
        times = []
        for _ in range(10 * ROUNDS):
            began = time.process_time()
            step()
            times.append(1e3 * (time.process_time() - began))
        found.append(figure(f"a batch of {CHUNK} in torch: {name}", float(np.median(times)), "ms"))
    return found


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
        began = time.process_time()
        a @ b
        best = max(best, 2 * 2048**3 / (time.process_time() - began) / 1e9)
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
    work = []
    for run in (generator, synthesizer.served):
        with FlopCounterMode(display=False) as counter:
            run(latents[:1], condition[:1])
        work.append(counter.get_total_flops() / 1e9)
    built: dict[str, Engine] = {}
    skipped: dict[str, str] = {}
    for name, build in engines(synthesizer, threads).items():
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
            began = time.process_time()
            images[name] = whole(engine, latents, condition)
            seconds[name].append(time.process_time() - began)
    report(images, seconds, (work[0], work[1]), parts(synthesizer), checkpoint, threads, skipped)


def report(
    images: dict[str, np.ndarray],
    seconds: dict[str, list[float]],
    work: tuple[float, float],
    parts: list[dict],
    checkpoint: Path,
    threads: int,
    skipped: dict[str, str],
) -> None:
    base, truth = np.asarray(seconds[REFERENCE]), images[REFERENCE]
    figures = []
    for name, times in seconds.items():
        ratio = float(np.median(base / np.asarray(times)))
        error = float(np.abs(images[name] - truth).max())
        shift = np.abs(images[name].mean((1, 2)) / truth.mean((1, 2)) - 1)
        figures += [
            figure(f"{name}: images/s", IMAGES / float(np.median(times)), "1/s"),
            figure(f"{name}: ratio to {REFERENCE}", ratio, "x"),
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
    rate = max(f["value"] for f in figures if "images/s" in f["what"])
    peaks = {name: matrix_peak(dtype)
             for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}  # fmt: skip
    figures += [
        figure(f"fastest engine, ratio to {REFERENCE}", fastest, "x", LEAST_RATIO, least=True),
        figure(
            f"fastest within parity ({best}), ratio to {REFERENCE}",
            float(np.median(base / np.asarray(seconds[best]))),
            "x",
            LEAST_RATIO,
            least=True,
        ),
        figure("fastest engine, share of the bf16 matrix peak", rate * work[1] / peaks["bf16"],
               "", 0.8, least=True),
        figure(f"{best}, share of the fp32 matrix peak",
               IMAGES / float(np.median(seconds[best])) * work[1] / peaks["fp32"], ""),
        *(figure(f"the {name} matrix peak", peak, "GFLOP/s") for name, peak in peaks.items()),
        figure("the generator's work, as trained", work[0], "GFLOP/image"),
        figure("the generator's work, as served", work[1], "GFLOP/image"),
        *parts,
    ]  # fmt: skip
    meta = Synthesizer.load(checkpoint).meta
    publish(
        "engine", figures, seeds=[SEED], threads=threads, batch=CHUNK, rounds=ROUNDS,
        images=IMAGES, checkpoint=meta.digest, dataset=meta.lineage.dataset_digest,
        config=meta.lineage.config_digest, torch=torch.__version__.split("+")[0], skipped=skipped,
        load_average=[round(n, 1) for n in os.getloadavg()],
    )  # fmt: skip


if __name__ == "__main__":
    main()
