"""How long until the gate says PASS, from scratch and from the prior: `benchmarks.until_gate`.

Fits the demo's configuration to the phantom of Table 1 on one core and judges its checkpoints by
the gate against another Table 1, oldest first, until one passes. The seconds are those of the
training and of its checkpoints; judging takes none of them.

That a phantom is fitted sooner from a prior of phantoms shows that the prior works, and nothing
about few slices: docs/prior.md. Fits go on where they were.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import figure, publish
from benchmarks.quality import HOLDOUT, TRAIN, drawn, settings
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import PhantomConfig
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob
from fastgan_aug.engines.pieces import samples
from fastgan_aug.engines.stopwatch import RunTimes
from fastgan_aug.gan.checkpoint import checkpoints, read_manifest
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.case import wanted_counts
from fastgan_aug.quality.evaluate import evaluate

GOALS = {"scratch": 30 * 60, "prior": 5 * 60}  # seconds


def configured(init: str, images: int, every: int) -> Config:
    """The demo's, with every checkpoint kept and none scored."""
    values = settings(images, 0).to_dict()
    values["training"] |= {"init": init, "checkpoint_every": every, "keep": images // every + 1}
    values["selection"] |= {"samples": 0, "filter": False}
    return Config.of(values)


def judged(folder: Path, config: Config, train: Dataset, holdout: Dataset) -> list[dict[str, Any]]:
    """What the gate says of each checkpoint until one passes; what was judged is kept."""
    told: list[dict[str, Any]] = []
    for checkpoint in checkpoints(folder):
        kept = folder / f"gate-{checkpoint.name}.json"
        if not kept.is_file():
            synthesizer = Synthesizer.load(checkpoint)
            made = samples(synthesizer, wanted_counts(train, holdout, None), 0)
            verdict = evaluate(train, holdout, *made, config.quality).verdict
            row = {
                "images": read_manifest(checkpoint).images_seen,
                "passed": verdict.passed,
                "failures": [str(reason) for reason in verdict.failures],
            }
            kept.write_text(json.dumps(row))
        told.append(json.loads(kept.read_text()))
        print(f"{folder.name} {told[-1]['images']:,}: {len(told[-1]['failures'])} fail", flush=True)
        if told[-1]["passed"]:
            break
    return told


def figures_of(init: str, rows: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, object]]:
    """Images and seconds until the first PASS; without one, how many answers still fail."""
    last = rows[-1]
    seconds = RunTimes.read(folder).until(last["images"])[-1].seconds
    if not last["passed"]:
        return [figure(f"{init}: answers that fail after {last['images']:,} images",
                       len(last["failures"]), "", 0)]  # fmt: skip
    return [
        figure(f"{init}: images until PASS", last["images"], "images"),
        figure(f"{init}: seconds until PASS", seconds, "s", GOALS[init]),
    ]


def main() -> None:
    """Fits, judges, writes and prints."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--images", type=int, default=100_000, help="budget from scratch")
    words.add_argument("--from-prior", type=int, default=30_000, help="budget from the prior")
    words.add_argument("--work", type=Path, default=Path("runs/until-gate"))
    asked = words.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    sides = [
        drawn(asked.work / f"table1-{seed}.parquet", PhantomConfig(seed))
        for seed in (TRAIN, HOLDOUT)
    ]
    figures: list[dict[str, object]] = []
    verdicts: dict[str, list[dict[str, Any]]] = {}
    budgets = ("prior", asked.from_prior, 5_000), ("scratch", asked.images, 10_000)
    for init, images, every in budgets:
        config, folder = configured(init, images, every), asked.work / init
        job = FitJob(config, sides[0], folder, resume=True)
        local.fit(job, lambda seen, told: print(f"{seen:,} images", end="\r", flush=True))
        verdicts[init] = judged(folder, config, *sides)
        figures += figures_of(init, verdicts[init], folder)
    publish(
        "until_gate", figures, seeds={"fit": 0, "train": TRAIN, "holdout": HOLDOUT},
        dataset_digest=sides[0].digest, code=code_version(), verdicts=verdicts,
    )  # fmt: skip


if __name__ == "__main__":
    main()
