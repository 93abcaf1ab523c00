"""What the nested experiment costs, and what a second worker saves: `benchmarks.downstream`.

Two folds of the phantom of Table 1, generators and classifiers of a short budget. The generators
are fitted once. Then the same set of pieces is done again and again, by one worker (this process)
and by two (processes, whose start counts), turn and turn about, each time in a folder of its own.
How good the generators are is not the question here (`benchmarks.proof`).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from rich.console import Console

from benchmarks.measure import figure, publish
from benchmarks.quality import drawn
from downstream.classifier_pieces import Experiment, do_piece, opened, run_pieces
from fastgan_aug.cli.nested import generator_pieces
from fastgan_aug.cli.nested_command import Nested, run_nested
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.phantom.population import PhantomConfig
from fastgan_aug.engines.tasks import map_in_processes

MINUTES = 15  # that all of it may take
SPEED_UP = 1.6  # of two workers on two cores, at least


def settings(images: int, steps: int) -> Config:
    """The demo's, two folds of it and shorter."""
    values = load_config("demo").to_dict()
    values["training"] |= {"images": images, "checkpoint_every": images}
    values["quality"] |= {"steps": steps, "resplits": 50}
    values["downstream"] |= {"folds": 2, "seeds": [0, 1, 2], "steps": steps, "bootstrap": 500}
    return Config.of(values)


def seconds_of(experiment: Experiment, workers: int, work: Path) -> tuple[float, float]:
    """All pieces, done anew; and how long the workers take to find that a piece each is done."""
    opened.cache_clear()  # a new process has no fold open either
    run = map if workers == 1 else partial(map_in_processes, workers=workers)
    with TemporaryDirectory(dir=work) as folder:
        begun = time.perf_counter()
        anew = replace(experiment, out=Path(folder).resolve())
        left = run_pieces(anew, run)
        done = time.perf_counter()
        list(run(do_piece, anew.pieces[:workers]))
        started = time.perf_counter() - done
    assert not left
    return done - begun, started


def arguments() -> argparse.ArgumentParser:
    """What can be asked; the defaults are the quick setting."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--images", type=int, default=4_000, help="budget of a generator")
    words.add_argument("--steps", type=int, default=40, help="of a fit of the classifier")
    words.add_argument("--rounds", type=int, default=5, help="timings of each number of workers")
    words.add_argument("--work", type=Path, default=Path("runs/benchmark-downstream"))
    return words


def main() -> None:
    """Runs the command once, times its pieces with one worker and with two, and publishes."""
    asked, begun = arguments().parse_args(), time.perf_counter()
    asked.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # as each of the processes
    path = asked.work.resolve() / "table1.parquet"
    dataset, config = drawn(path, PhantomConfig(seed=0)), settings(asked.images, asked.steps)
    with TemporaryDirectory(dir=asked.work) as folder:
        nested = Nested(path, config, Path(folder).resolve(), workers=2)
        started = time.perf_counter()
        assert run_nested(nested, Console()) is not None
        whole = time.perf_counter() - started
        parts = nested.parts()
        fitted = generator_pieces(parts, nested.out, None)
        experiment = nested.experiment(parts, [piece.checkpoint for piece in fitted])
        seconds: dict[int, list[float]] = {1: [], 2: []}
        starts: list[float] = []
        for _ in range(asked.rounds):
            for workers, taken in seconds.items():
                all_pieces, start = seconds_of(experiment, workers, asked.work)
                taken.append(all_pieces)
                if workers == 2:
                    starts.append(start)
                print(f"{workers} at once: {taken[-1]:.1f} s", flush=True)
    one, two, start = (median(taken) for taken in (*seconds.values(), starts))
    pieces = len(experiment.pieces)
    publish(
        "downstream",
        [
            figure("all of it", (time.perf_counter() - begun) / 60, "min", MINUTES),
            figure(f"the command: 2 generators, {pieces} fits, page, two workers", whole, "s"),
            figure(f"{pieces} fits, one worker, median of {asked.rounds}", one, "s"),
            figure("the same, two workers", two, "s"),
            figure("speed-up of two workers", one / two, "", SPEED_UP, least=True),
            figure("of which two workers take to start", start, "s"),
            figure("speed-up without the start", one / (two - start), ""),
        ],
        seconds=seconds,
        seeds={"phantom": 0, "fits": config.downstream.seeds},
        images=asked.images,
        steps=asked.steps,
        config_digest=config.digest,
        dataset_digest=dataset.digest,
        code=code_version(),
    )


if __name__ == "__main__":
    main()
