"""Speed of a training step on CPUs: `python -m benchmarks.train_cpu [--quick]`.

With the speed switches on and off, on one thread, on two and as two processes, in one interleaved
run; the operations of a step against the matrix products that the same cores reach in the same
run; and lightweight-gan 1.2.1 beside it, where `--lightweight-gan FOLDER` holds it
(benchmarks/train_lightweight.py tells how it is installed).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.measure import figure, publish
from benchmarks.train_lightweight import BATCH, GRADIENT_PENALTY_EVERY, trainer
from benchmarks.train_plain import (
    batch_of,
    plain_step,
    plainly,
    random_data,
    with_plain_optimisers,
)
from fastgan_aug.config import load_config
from fastgan_aug.data.phantom.population import SPACE, TABLE_1
from fastgan_aug.gan.batch import Share
from fastgan_aug.gan.settings import NetworkConfig
from fastgan_aug.gan.step import new_state, train_step

# From the project's own requirements.
AGAINST_PLAIN, OF_THE_PEAK, AGAINST_LIGHTWEIGHT = 2.5, 0.5, 5.0
FAST, PLAIN, FAST_UNFOLDED, PLAIN_UNFOLDED = (
    "switches on", "switches off", "on, not folded", "off, not folded",
)  # fmt: skip
LIGHTWEIGHT, WIDENED = "lightweight-gan", "switches on, widened"
LIGHTWEIGHT_SIZES = (512, 8)  # its fmap_max: the default, and near the fewest operations it can do
WIDENED_BATCH = 8  # large steps; a smaller batch often holds no two slices of a cell
LAYOUTS = {"1 thread": (1, 1), "2 threads": (2, 1), "2 processes": (1, 2)}  # threads, processes
KINDS = {
    "convolution": ("convolution",),
    "batch norm": ("batch_norm",),
    "optimiser and average": ("adam", "foreach", "lerp"),
    "copies and casts": ("copy_", "cat", "fill_", "zero_", "empty", "pad", "index", "gather"),
    "resampling": ("pool", "upsample", "shuffle"),
}
REST = "elementwise and the rest"


@dataclass(frozen=True)
class Effort:
    """How much is measured: rounds, steps in each, sizes of matrices, rounds of lightweight-gan."""

    rounds: int
    steps: int
    matrices: tuple[int, ...]
    lightweight_rounds: int


FULL, QUICK = Effort(9, 4, (1024, 2048, 4096), 5), Effort(5, 2, (1024, 2048), 1)


@dataclass(frozen=True)
class Case:
    """One thing that is timed.

    Attributes:
        name: FAST, PLAIN, FAST_UNFOLDED, PLAIN_UNFOLDED or LIGHTWEIGHT; or a dtype: a product.
        config: Name or path of the configuration.
        size: Rows of a matrix, feature maps of lightweight-gan, how often our widths are taken.
        folder: Of lightweight-gan.
    """

    name: str
    config: str
    size: int = 0
    folder: str = ""


@dataclass(frozen=True)
class Timing:
    """Of several calls: seconds by the clock, seconds of CPU of the process, images or products."""

    wall: float
    cpu: float
    done: int


# -- in the process that is measured ---------------------------------------------------------


@cache
def call_of(case: Case) -> tuple[Callable[[], object], int]:
    """What is called, and how many images (or products) a call does; warm."""
    call: Callable[[], object]
    if case.name in ("float32", "bfloat16"):
        a, b = (torch.randn(case.size, case.size).to(getattr(torch, case.name)) for _ in "ab")
        call, done = partial(torch.mm, a, b), 1
    elif case.name == LIGHTWEIGHT:
        call, done = lightweight_call(case)
    else:
        call, done = own_call(case)
    for _ in range(GRADIENT_PENALTY_EVERY if case.name == LIGHTWEIGHT else 2):
        call()
    return call, done


def own_call(case: Case) -> tuple[Callable[[], object], int]:
    config = load_config(case.config)
    network, training = config.network, config.training
    if case.name in (FAST_UNFOLDED, PLAIN_UNFOLDED):
        network = replace(network, folded=False)
    counts = [TABLE_1.get(str(cell), 0) for cell in SPACE.cells]
    data = random_data(counts, torch.from_numpy(SPACE.vectors), network.size)
    if case.name in (PLAIN, PLAIN_UNFOLDED):
        training = plainly(training)
    if case.name == WIDENED:
        network = widened(network, case.size)
        training = replace(training, batch=WIDENED_BATCH)
    state = new_state(network, training, SPACE.dimension, torch.device("cpu"), data)
    if case.name in (FAST, FAST_UNFOLDED, WIDENED):
        return (
            lambda: train_step(state, batch_of(state, data, training), training, Share())
        ), training.batch
    with_plain_optimisers(state)
    return (lambda: plain_step(state, batch_of(state, data, training), training)), training.batch


def widened(network: NetworkConfig, times: int) -> NetworkConfig:
    """The network with so many times the feature maps."""
    return replace(
        network,
        generator_width=times * network.generator_width,
        discriminator_width=times * network.discriminator_width,
    )


def lightweight_call(case: Case) -> tuple[Callable[[], object], int]:
    scratch = Path(tempfile.mkdtemp(prefix="lightweight-gan-"))
    try:
        made = trainer(Path(case.folder), load_config(case.config).network.size, case.size, scratch)
    finally:
        shutil.rmtree(scratch)
    return made.train, BATCH


def timed(case: Case, threads: int, calls: int) -> Timing:
    """Times some calls."""
    torch.set_num_threads(threads)
    call, done = call_of(case)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, calls * done)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts as torch's FlopCounterMode does, which cannot follow a gradient of a gradient."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        count = flop_registry.get(func._overloadpacket)
        if count is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        self.total += count(*args, **kwargs, out_val=result) if count else 0
        return result


def operations(case: Case) -> float:
    """Floating-point operations per image, mean over a gradient penalty's period."""
    call, done = call_of(case)
    calls = GRADIENT_PENALTY_EVERY if case.name == LIGHTWEIGHT else 1
    with Operations() as counter:
        for _ in range(calls):
            call()
    return float(counter.total / calls / done)


def shares(case: Case, calls: int) -> dict[str, float]:
    """Where the time goes on one thread: shares of the CPU time that torch's operators take."""
    torch.set_num_threads(1)
    call, _ = call_of(case)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(calls):
            call()
    seconds = dict.fromkeys([*KINDS, REST], 0.0)
    for event in profiler.key_averages():
        kind = next((k for k, words in KINDS.items() if any(w in event.key for w in words)), REST)
        seconds[kind] += event.self_cpu_time_total
    total = sum(seconds.values())
    return {kind: value / total for kind, value in seconds.items()}


# -- in the process that measures ------------------------------------------------------------


class Machine:
    """Two processes, each waiting for its next call."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.processes = [ProcessPoolExecutor(1, mp_context=spawn) for _ in range(2)]

    def ask(self, what: Callable[..., Any], *arguments: object) -> Any:
        """Calls a function in the first process."""
        return self.processes[0].submit(what, *arguments).result()

    def time(self, case: Case, layout: str, calls: int) -> list[Timing]:
        """One timing a process, all at once."""
        threads, processes = LAYOUTS[layout]
        asked = [p.submit(timed, case, threads, calls) for p in self.processes[:processes]]
        return [answer.result() for answer in asked]

    def close(self) -> None:
        """Ends both."""
        for process in self.processes:
            process.shutdown()


Key = tuple[Case, str]


def interleaved(machine: Machine, keys: list[Key], effort: Effort) -> dict[Key, list[list[Timing]]]:
    """Every case in every round, so that what disturbs one round disturbs all of them alike."""
    found: dict[Key, list[list[Timing]]] = {key: [] for key in keys}
    for case, layout in keys:
        machine.time(case, layout, 1)
    for turn in range(effort.rounds):
        for case, layout in keys:
            steps = effort.steps
            if case.name in (LIGHTWEIGHT, WIDENED):
                if turn >= effort.lightweight_rounds:
                    continue
                steps = GRADIENT_PENALTY_EVERY if case.name == LIGHTWEIGHT else 1
            found[case, layout].append(machine.time(case, layout, steps))
    return found


def by_clock(timings: list[Timing]) -> float:
    """Images/s of all processes together."""
    return sum(t.done / t.wall for t in timings)


def by_cpu(timings: list[Timing]) -> float:
    """Images per second of CPU."""
    return sum(t.done for t in timings) / sum(t.cpu for t in timings)


def median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def ratio(
    above: list[list[Timing]], below: list[list[Timing]], rate: Callable[[list[Timing]], float]
) -> float:
    """Median, over the rounds that both took part in, of one rate over the other."""
    return median(rate(a) / rate(b) for a, b in zip(above, below, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--config", default="demo", help="the configuration that is measured")
    parser.add_argument("--lightweight-gan", metavar="FOLDER", default="")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a waiting thread leaves the core
    machine = Machine()
    try:
        effort = QUICK if asked.quick else FULL
        measure(machine, asked.config, asked.lightweight_gan, effort)
    finally:
        machine.close()


def measure(machine: Machine, config: str, folder: str, effort: Effort) -> None:
    """Measures everything and writes it down."""
    load = os.getloadavg()[0]
    ours = {n: Case(n, config) for n in (FAST, PLAIN, FAST_UNFOLDED, PLAIN_UNFOLDED)}
    fast = ours[FAST]
    per_image = {name: machine.ask(operations, case) for name, case in ours.items()}
    products = {n: [Case(n, config, s) for s in effort.matrices] for n in ("float32", "bfloat16")}
    keys: list[Key] = [(ours[n], layout) for n in (FAST, PLAIN) for layout in LAYOUTS]
    keys += [(ours[n], "1 thread") for n in (FAST_UNFOLDED, PLAIN_UNFOLDED)]
    keys += [(c, "1 thread") for cases in products.values() for c in cases]
    sizes = LIGHTWEIGHT_SIZES if folder else ()
    pairs = [equal_pair(machine, config, folder, n, per_image[FAST]) for n in sizes]
    for pair in pairs:
        keys += [(c, "1 thread") for c in pair]
    found = interleaved(machine, keys, effort)
    figures = own_figures(found, ours, per_image)
    figures += peak_figures(found, fast, per_image[FAST], products)
    for pair in pairs:
        figures += rival_figures(found, pair)
    parts = machine.ask(shares, fast, effort.steps)
    figures += [figure(f"switches on: time in {k}", v, "share") for k, v in parts.items()]
    training, network = load_config(config).training, load_config(config).network
    publish(
        "train_cpu", figures, seeds=[training.seed], effort=vars(effort),
        config=config, network=dict(vars(network)), training=dict(vars(training)),
        torch=str(torch.__version__), processor=processor(),
        load_before=load, load_after=os.getloadavg()[0],
        lightweight_gan="1.2.1" if folder else "absent: give --lightweight-gan FOLDER",
    )  # fmt: skip
    if not folder:
        print("lightweight-gan was not measured: give --lightweight-gan FOLDER")


def own_figures(
    found: dict[Key, list[list[Timing]]], ours: dict[str, Case], per_image: dict[str, float]
) -> list[dict[str, Any]]:
    """Images/s with the switches on and off, and the ratios."""
    figures = []
    for (case, layout), timings in found.items():
        if case.name in ours:
            what = f"{case.name}, {layout}"
            figures.append(figure(what, median(map(by_clock, timings)), "images/s"))
            figures.append(figure(what, median(map(by_cpu, timings)), "images/CPU s"))
    for layout in LAYOUTS:
        pair = found[ours[FAST], layout], found[ours[PLAIN], layout]
        what = f"on over off, {layout}"
        figures.append(figure(what, ratio(*pair, by_clock), "x", AGAINST_PLAIN, least=True))
        if layout == "1 thread":
            what += ", by CPU seconds"
            figures.append(figure(what, ratio(*pair, by_cpu), "x", AGAINST_PLAIN, least=True))
    one = {name: found[ours[name], "1 thread"] for name in ours}
    for above, below, what in (
        (FAST_UNFOLDED, PLAIN_UNFOLDED, "on over off, not folded"),
        (FAST, FAST_UNFOLDED, "folded over not folded, on"),
        (FAST, PLAIN_UNFOLDED, "on and folded over off and not folded"),
    ):
        found_ratio = ratio(one[above], one[below], by_cpu)
        figures.append(figure(f"{what}, 1 thread, by CPU seconds", found_ratio, "x"))
    figures += [
        figure(f"operations of {name}", value / 1e9, "GFLOP/image")
        for name, value in per_image.items()
    ]
    return figures


def peak_figures(
    found: dict[Key, list[list[Timing]]],
    fast: Case,
    per_image: float,
    products: dict[str, list[Case]],
) -> list[dict[str, Any]]:
    """Operations/s of a matrix product and of the step, one thread, by CPU seconds."""
    figures, peak = [], {}
    for name, cases in products.items():
        reached = {c: 2.0 * c.size**3 * median(map(by_cpu, found[c, "1 thread"])) for c in cases}
        best = max(cases, key=lambda c: reached[c])
        peak[name] = reached[best]
        what = f"{name} matrix product of {best.size}, 1 thread"
        figures.append(figure(what, peak[name] / 1e9, "GFLOP/s"))
    done = per_image * median(map(by_cpu, found[fast, "1 thread"]))
    figures.append(figure("switches on, 1 thread", done / 1e9, "GFLOP/s"))
    figures.append(
        figure("of the bfloat16 peak", done / peak["bfloat16"], "share", OF_THE_PEAK, least=True)
    )
    figures.append(figure("of the float32 peak", done / peak["float32"], "share"))
    return figures


Pair = dict[Case, float]  # lightweight-gan, then ours: operations per image


def equal_pair(machine: Machine, config: str, folder: str, size: int, per_image: float) -> Pair:
    """lightweight-gan, and our network widened to as nearly its operations per image."""
    rival = Case(LIGHTWEIGHT, config, size, str(Path(folder).resolve()))
    wanted = machine.ask(operations, rival)
    times = max(1, round((wanted / per_image) ** 0.5))
    ours = Case(WIDENED, config, times)
    return {rival: wanted, ours: machine.ask(operations, ours)}


def rival_figures(found: dict[Key, list[list[Timing]]], pair: Pair) -> list[dict[str, Any]]:
    """Both at equal operations: images per CPU second times operations per image, and the ratio."""
    (rival, theirs), (wide, ours) = pair.items()
    names = {
        rival: f"{LIGHTWEIGHT} (fmap_max {rival.size}, batch {BATCH})",
        wide: f"ours, {wide.size} times as wide (batch {WIDENED_BATCH})",
    }
    figures = []
    for case, per_image in pair.items():
        rate = median(map(by_cpu, found[case, "1 thread"]))
        figures += [
            figure(names[case], per_image / 1e9, "GFLOP/image"),
            figure(names[case], rate, "images/CPU s"),
            figure(names[case], rate * per_image / 1e9, "GFLOP/s"),
        ]
    times = ratio(found[wide, "1 thread"], found[rival, "1 thread"], by_cpu) * ours / theirs
    what = f"ours over {LIGHTWEIGHT} ({rival.size}) at equal operations"
    return [*figures, figure(what, times, "x", AGAINST_LIGHTWEIGHT, least=True)]


def processor() -> str:
    """Its name and the instructions that decide the peaks."""
    path, decisive = Path("/proc/cpuinfo"), ("avx512f", "avx512_bf16", "amx_bf16")
    lines = path.read_text().splitlines() if path.exists() else []
    said = {key.strip(): value for key, _, value in (line.partition(":") for line in lines)}
    flags = [flag for flag in said.get("flags", "").split() if flag in decisive]
    return " ".join([said.get("model name", "unknown").strip(), *flags])


if __name__ == "__main__":
    main()
