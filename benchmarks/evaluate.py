"""Time and memory of judging 938 slices against 938: `python -m benchmarks.evaluate`.

Both sides are phantoms of Table 1, drawn with different seeds: what is judged is as good as real,
and the training slices, the hold-out and the "synthetic" slices are 938 each.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measure import figure, publish, resident, watched
from fastgan_aug.config import QualityConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import PhantomConfig, write_phantom
from fastgan_aug.engines.tasks import on_all_cores
from fastgan_aug.quality.report import QualityReport

# From the project's own requirements.
SECONDS, SECONDS_WITH_FITS, GIBIBYTES, RUNS = 60, 300, 2, 5
SEEDS = {"train": 0, "holdout": 1, "synthetic": 2}


def judge(folder: Path, classifier: bool) -> None:
    """What is measured, in a process of its own."""
    import torch

    from fastgan_aug.quality.evaluate import evaluate

    torch.set_num_threads(2)
    train, holdout, made = (Dataset.read(folder / f"{name}.parquet") for name in SEEDS)
    rows = np.flatnonzero(made.labelled)
    cells = [str(made.cells[i]) for i in rows]
    steps: list[tuple[str, float]] = []
    report = evaluate(
        train, holdout, made.images[rows], cells, QualityConfig(classifier=classifier),
        progress=lambda what, done, total: steps.append((what, time.perf_counter())),
    )  # fmt: skip
    report.write(folder / f"report-{classifier}.json")
    for (what, begun), (_, ended) in itertools.pairwise(steps):
        print(f"{what}: {ended - begun:.1f} s")


def measured(folder: Path, classifier: bool, runs: int) -> tuple[float, float]:
    """Median seconds by the clock, start of Python included, and the peak in GiB."""
    command = [sys.executable, "-m", "benchmarks.evaluate", "--judge", str(folder)]
    command += ["--classifier"] * classifier
    found = [watched(command, resident, every=0.2) for _ in range(runs)]
    peak = max(size for _, memory in found for _, size in memory)
    return float(np.median([seconds for seconds, _ in found])), peak / 2**30


def main() -> None:
    if "--judge" in sys.argv:
        judge(Path(sys.argv[sys.argv.index("--judge") + 1]), "--classifier" in sys.argv)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, seed in SEEDS.items():
            config = replace(PhantomConfig(), seed=seed)
            write_phantom(config, folder / f"{side}.parquet", on_all_cores())
        plain, memory = measured(folder, False, RUNS)
        fitted, memory_fitted = measured(folder, True, 1 if "--quick" in sys.argv else RUNS)
        report = QualityReport.read(folder / "report-True.json")
    figures = [
        figure("938 against 938, without the classifier fits", plain, "s", SECONDS),
        figure("938 against 938, with them", fitted, "s", SECONDS_WITH_FITS),
        figure("peak memory (PSS), without", memory, "GiB", GIBIBYTES),
        figure("peak memory (PSS), with", memory_fitted, "GiB", GIBIBYTES),
    ]
    publish(
        "evaluate",
        figures,
        seeds=list(SEEDS.values()),
        slices=dict(report.provenance["slices"]),
        verdict=str(report.verdict),
        failures=[str(reason) for reason in report.verdict.failures],
    )


if __name__ == "__main__":
    main()
