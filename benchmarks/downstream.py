"""What the nested experiment costs, and what a second worker saves: `benchmarks.downstream`.

The nested command on the phantom of Table 1 with generators and classifiers of a short budget: two
folds, one after the other and two at once. Every run has a folder of its own, so that nothing is
read that another has done. How good the generators are is not the question here
(`benchmarks.proof`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.measure import figure, publish
from benchmarks.quality import drawn
from fastgan_aug.cli.nested_command import Nested, run_nested
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.phantom.population import PhantomConfig

MINUTES = 15  # that both runs together may take
SPEED_UP = 1.6  # of two workers on two cores, at least


def settings(images: int, steps: int) -> Config:
    """The demo's, two folds of it and shorter."""
    values = load_config("demo").to_dict()
    values["training"]["images"] = images
    values["quality"] |= {"steps": steps, "resplits": 50}
    values["downstream"] |= {"folds": 2, "seeds": [0, 1, 2], "steps": steps, "bootstrap": 500}
    return Config.of(values)


def main() -> None:
    """Runs it with one worker and with two, and publishes how long each took."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--images", type=int, default=8_000, help="budget of a generator")
    words.add_argument("--steps", type=int, default=120, help="of a fit of the classifier")
    words.add_argument("--work", type=Path, default=Path("runs/benchmark-downstream"))
    asked = words.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    path = asked.work.resolve() / "table1.parquet"
    dataset, config = drawn(path, PhantomConfig(seed=0)), settings(asked.images, asked.steps)
    seconds, fits = {}, 0
    for workers in (1, 2):
        with TemporaryDirectory(dir=asked.work) as folder:
            begun = time.perf_counter()
            found = run_nested(Nested(path, config, Path(folder).resolve(), workers), Console())
            seconds[workers] = time.perf_counter() - begun
            assert found is not None
            (judgement,) = found.report.judgements
            fits = found.report.folds * len(judgement.arms) * len(found.report.seeds)
    publish(
        "downstream",
        [
            figure("both runs", sum(seconds.values()) / 60, "min", MINUTES),
            figure(f"2 generators and {fits} fits, one worker", seconds[1], "s"),
            figure("the same, two workers", seconds[2], "s"),
            figure("speed-up of two workers", seconds[1] / seconds[2], "", SPEED_UP, least=True),
        ],
        seeds={"phantom": 0, "fits": config.downstream.seeds},
        images=asked.images,
        steps=asked.steps,
        config_digest=config.digest,
        dataset_digest=dataset.digest,
        code=code_version(),
    )


if __name__ == "__main__":
    main()
