"""One Ray Train worker against two at an equal global batch: `python -m benchmarks.train_workers`.

The demo's configuration on a small phantom, through the engine that users run; every fit trains
for the same seconds, one worker and two in turn. Checkpoints are not scored. About four minutes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import figure, publish
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import TABLE_1, PhantomConfig, write_phantom
from fastgan_aug.engines import ray_train
from fastgan_aug.engines.job import FitJob
from fastgan_aug.engines.ray_cluster import ray_cluster
from fastgan_aug.engines.stopwatch import RunTimes
from fastgan_aug.engines.tasks import on_all_cores

# From the project's own requirements: seconds, share of the run.
START, OVERHEAD = 60, 0.05
WORKERS, ROUNDS, SECONDS = (1, 2), 5, 12.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 8.0
SHARE_OF_TABLE_1, PATIENTS = 8, 30


@dataclass(frozen=True)
class Fit:
    """One fit.

    Attributes:
        rate: Images/s of the steps alone.
        start: Seconds from the fit's call to its first step.
        writing: Seconds of making, writing and reporting one checkpoint.
    """

    rate: float
    start: float
    writing: float


def config_of(name: str, workers: int) -> Config:
    """The configuration, on so many workers; the batch stays that of all together."""
    config = load_config(name)
    engine = config.engine.model_copy(update={"kind": "ray", "workers": workers})
    selection = config.selection.model_copy(update={"samples": 0})
    return config.model_copy(update={"engine": engine, "selection": selection})


def phantom(folder: Path) -> Dataset:
    """A phantom with an eighth of Table 1."""
    counts = {cell: max(4, count // SHARE_OF_TABLE_1) for cell, count in TABLE_1.items() if count}
    path = folder / "phantom.parquet"
    write_phantom(PhantomConfig(counts=counts, patients=PATIENTS), path, on_all_cores())
    return Dataset.read(path)


def fitted(config: Config, dataset: Dataset, folder: Path, seconds: float) -> Fit:
    """Trains for so many seconds."""

    def progress(images_seen: int, values: Mapping[str, float]) -> None:
        pass

    ray_train.fit(FitJob(config, dataset, folder, seconds=seconds), progress)
    run = RunTimes.read(folder)
    last = run.last
    writing = last.checkpoint + last.report
    rate = last.images_seen / (last.seconds - writing - last.score)
    return Fit(rate, run.start, writing / len(run.points))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--config", default="demo", help="the configuration that is measured")
    asked = parser.parse_args()
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if asked.quick else (ROUNDS, SECONDS)
    load = os.getloadavg()[0]
    configs = {n: config_of(asked.config, n) for n in WORKERS}
    fits: dict[int, list[Fit]] = {n: [] for n in WORKERS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = phantom(folder)
        begun = time.perf_counter()
        with ray_cluster(configs[1].engine.timeout):
            ray_start = time.perf_counter() - begun
            for turn in range(rounds):
                for n, config in configs.items():
                    fits[n].append(fitted(config, dataset, folder / f"{n}-{turn}", seconds))
    training = configs[1].training
    figures = figures_of(fits, ray_start, training.checkpoint_every)
    publish(
        "train_workers", figures, seeds=[training.seed], rounds=rounds, seconds_per_fit=seconds,
        config=asked.config, batch=training.batch, threads=configs[1].engine.threads,
        load_before=load, load_after=os.getloadavg()[0],
    )  # fmt: skip


def figures_of(fits: dict[int, list[Fit]], ray_start: float, every: int) -> list[dict[str, object]]:
    """Medians over the rounds; ratios are of fits of one round."""

    def median(values: list[float]) -> float:
        return float(np.median(values))

    figures = [figure("start of Ray itself", ray_start, "s")]
    for n, done in fits.items():
        name = f"{n} worker{'s' * (n > 1)}"
        start = ray_start + median([f.start for f in done])
        shares = [f.writing / (f.writing + every / f.rate) for f in done]
        figures += [
            figure(f"{name}: training", median([f.rate for f in done]), "images/s"),
            figure(f"{name}: start, Ray's included", start, "s", START),
            figure(f"{name}: one checkpoint and its report",
                   median([f.writing for f in done]), "s"),
            figure(f"{name}: of the run, at one every {every:,} images",
                   median(shares), "share", OVERHEAD),
        ]  # fmt: skip
    ratios = [two.rate / one.rate for one, two in zip(fits[1], fits[2], strict=True)]
    return [
        *figures,
        figure("2 workers over 1", median(ratios), "x"),
        figure("scaling efficiency", median(ratios) / 2, "share"),
    ]


if __name__ == "__main__":
    main()
