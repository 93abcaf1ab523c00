"""The demo's generator from scratch against fresh patients: `python -m benchmarks.quality`.

Fits the demo's configuration to the phantom of Table 1 on one core, and judges what came of it: by
another Table 1 (fidelity, copies, recognition), and by as many fresh patients in each cell as
``--fresh`` says, where equivalence must hold (``fresh_patients``, 24 rows).

The fit continues where it was; what is drawn once is kept under ``--work``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import figure, publish
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import TABLE_1, PhantomConfig, write_phantom
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob
from fastgan_aug.engines.pieces import samples
from fastgan_aug.engines.stopwatch import RunTimes
from fastgan_aug.engines.tasks import on_all_cores
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.case import wanted_counts
from fastgan_aug.quality.evaluate import evaluate
from fastgan_aug.quality.report import QualityReport

TRAIN, HOLDOUT, FRESH = 0, 1, 60  # phantom seeds; the last is used here alone
# From the project's own requirements.
SD_LEAST, SD_MOST, NN_MOST, COVERAGE_LEAST, FAITHFUL_WITHIN, MINUTES = 0.9, 1.1, 0.55, 0.8, 0.03, 30


def drawn(path: Path, config: PhantomConfig) -> Dataset:
    """A phantom, drawn where it is not there yet."""
    if not path.is_file():
        write_phantom(config, path, on_all_cores())
    return Dataset.read(path)


def fresh_config(per_cell: int) -> PhantomConfig:
    """So many slices of every cell that can have any, no more than four of each patient."""
    counts = {cell: per_cell for cell, n in TABLE_1.items() if n}
    return PhantomConfig(FRESH, counts=counts, patients=max(per_cell, sum(counts.values()) // 3))


def settings(images: int | None, seed: int) -> Config:
    """The demo's, on all patients of Table 1 and in this process."""
    values = load_config("demo").to_dict()
    values["data"]["test_fraction"] = 0
    values["engine"] |= {"kind": "local", "workers": 1}
    values["training"] |= {"seed": seed} | ({} if images is None else {"images": images})
    return Config.of(values)


def by_name(report: QualityReport, name: str) -> list[tuple[str, float]]:
    """(cell, value) of one metric, in all of its views."""
    return [(m.cell, m.value) for m in report.metrics if m.name == name]


def figures_of(report: QualityReport, minutes: float) -> list[dict[str, object]]:
    """The requirements beside what was found."""
    sd, rows = by_name(report, "sd_map_ratio"), report.tables["fresh_patients"]
    patterns = {cell.rpartition("/")[2] for cell, _ in sd if "/" in cell}
    means = [np.mean([v for c, v in sd if c.endswith("/" + p)]) for p in patterns]
    kids = [m for m in report.metrics if m.name == "kid" and m.bound]
    worst = max(m.value / m.bound for m in kids if m.bound)
    coverage = [v for c, v in by_name(report, "coverage_ratio") if c != "overall"]
    seen = next(m for m in report.metrics if m.name == "real_on_synthetic" and m.cell == "overall")
    return [
        figure("time of the fit", minutes, "min", MINUTES),
        figure("equivalence on fresh patients, rows that hold",
               sum(bool(r["passes"]) for r in rows), f"of {len(rows)}", len(rows), least=True),
        figure("SD map ratio, smallest of a pattern", min(means), "", SD_LEAST, least=True),
        figure("SD map ratio, largest of a pattern", max(means), "", SD_MOST),
        figure("KID over its bound, worst of both views and all cells", worst, "", 1),
        figure("coverage over real against real, worst cell", min(coverage), "",
               COVERAGE_LEAST, least=True),
        figure("nearest neighbour in the training set, largest share",
               max(v for _, v in by_name(report, "nn_share")), "", NN_MOST),
        figure("recognised by a real-trained classifier, below real test slices",
               (seen.floor or 0) - seen.value, "", FAITHFUL_WITHIN),
        figure("the gate's answers that fail", len(report.verdict.failures),
               f"of {len(report.verdict.reasons)}", 0),
    ]  # fmt: skip


def main() -> None:
    """Draws, fits, judges and publishes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help="of the fit; default: the configuration's")
    parser.add_argument("--fresh", type=int, default=2000, help="fresh slices of each cell")
    parser.add_argument("--seed", type=int, default=0, help="of the fit")
    parser.add_argument("--work", type=Path, default=Path("runs/quality"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    config, work = settings(asked.images, asked.seed), asked.work
    work.mkdir(parents=True, exist_ok=True)
    train, holdout = (
        drawn(work / f"table1-{seed}.parquet", replace(PhantomConfig(), seed=seed))
        for seed in (TRAIN, HOLDOUT)
    )
    fresh = drawn(work / f"fresh-{asked.fresh}.parquet", fresh_config(asked.fresh))
    folder = work / f"fit-{asked.seed}-{config.training.images}"
    job = FitJob(config, train, folder, resume=True)
    fit = local.fit(job, lambda seen, told: print(f"{seen:,} images", end="\r", flush=True))
    synthesizer = Synthesizer.load(fit.checkpoint)
    images, cells = samples(synthesizer, wanted_counts(train, holdout, fresh), asked.seed)
    report = evaluate(train, holdout, images, cells, config.quality, reference=fresh)
    report.write(folder / "report.json")
    minutes = RunTimes.read(folder).last.seconds / 60
    publish(
        "quality",
        figures_of(report, minutes),
        seeds={"train": TRAIN, "holdout": HOLDOUT, "fresh": FRESH, "fit": asked.seed},
        images=config.training.images,
        fresh_slices_of_each_cell=asked.fresh,
        config_digest=config.digest,
        dataset_digest=train.digest,
        code=code_version(),
        command=f"python -m benchmarks.quality --images {config.training.images}"
        f" --fresh {asked.fresh} --seed {asked.seed}",
        rows=[
            {k: r[k] for k in ("cell", "endpoint", "n", "synthetic", "real", "passes")}
            for r in report.tables["fresh_patients"]
        ],
        failures=[str(reason) for reason in report.verdict.failures],
    )


if __name__ == "__main__":
    main()
