"""The shipped prior: `python -m benchmarks.prior --build` makes it, `python -m benchmarks.prior`
holds it against scratch.

``--build`` fits the demo's configuration to phantoms that nothing else is drawn from and writes
fastgan_aug/prior. Without it: fits from the prior and from scratch at equal budgets, to a quarter
of the patients of a phantom on the second scanner and, with ``--real``, to half of the patients of
a folder of real slices; each is scored as checkpoints are, against the
other patients. A phantom from a phantom prior alone would prove nothing.

Fits continue where they were; what is drawn once is kept under ``--work``.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.measure import figure, publish
from benchmarks.quality import drawn
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.phantom.population import PhantomConfig
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, training_data, validation_part
from fastgan_aug.engines.scoring import read_scores
from fastgan_aug.gan.checkpoint import read_meta, restore
from fastgan_aug.gan.prior import FOLDER, prior_tensors, read_card, write_prior
from fastgan_aug.gan.step import new_state
from fastgan_aug.quality.selection import Score

POPULATION = range(4242, 4246)  # phantom seeds; used here alone
BUDGETS, SEEDS = (2_000, 5_000, 10_000), (0, 1)
SPLIT = 1
HELD_OUT = 0.1  # of the population's patients: they score the prior, and are not fitted to
SECOND, REAL = "second scanner", "real slices"
FEW = {SECOND: 0.75, REAL: 0.5}  # of the patients, held out from a transfer
NOT_FOR = [
    "as evidence: a phantom fitted from a prior of phantoms shows nothing about few slices",
    "as a generator: it has no cells until it is fitted to somebody's slices",
    "diagnosis, or any judgement about a patient: it has seen no real slice",
]


def settings(images: int, seed: int, init: str, held_out: float) -> Config:
    """The demo's in this process; the patients held out score it, at the end alone."""
    values = load_config("demo").to_dict()
    values["data"] |= {"test_fraction": 0, "split_seed": SPLIT}
    values["engine"] |= {"kind": "local", "workers": 1}
    values["selection"] |= {"validation_fraction": held_out, "best": 0}
    values["training"] |= {"images": images, "seed": seed, "init": init, "checkpoint_every": 5_000}
    return Config.of(values)


def fit(config: Config, dataset: Dataset, folder: Path) -> Path:
    """Goes on to the configured budget; gives the checkpoint."""
    job = FitJob(config, dataset, folder, resume=True)
    return local.fit(
        job, lambda seen, told: print(f"{folder.name} {seen:,}", end="\r", flush=True)
    ).checkpoint


def build(work: Path, tables: int, images: int) -> None:
    """Draws the population, fits, and writes the package's prior."""
    seeds = list(POPULATION)[:tables]
    phantoms = [
        drawn(work / f"population-{seed}.parquet", replace(PhantomConfig(), seed=seed))
        for seed in seeds
    ]
    everybody = pa.concat_tables([phantom.table for phantom in phantoms]).combine_chunks()
    population = Dataset(everybody, phantoms[0].meta)
    config = settings(images, 0, "scratch", HELD_OUT)
    checkpoint = fit(config, population, work / f"build-{tables}")
    fitted, _ = validation_part(config, population)
    space, data = population.meta.space, training_data(fitted, config.augment)
    state = new_state(config.network, config.training, space.dimension, torch.device("cpu"), data)
    meta = restore(checkpoint, state)
    score = read_scores(checkpoint.parent)[-1]
    facts = {
        "network": asdict(config.network),
        "images": meta.images_seen,
        "seeds": {"phantoms": seeds, "fit": config.training.seed},
        "dataset_digest": meta.lineage.dataset_digest,
        "slices": int(fitted.labelled.sum()),
        "patients": len(fitted.patients),
        "config_digest": meta.lineage.config_digest,
        "code_version": meta.lineage.code_version,
        "command": f"python -m benchmarks.prior --build --tables {tables} --images {images}",
        "scores": plain(score),
        "not_for": NOT_FOR,
    }
    tensors = prior_tensors(state, torch.from_numpy(space.vectors).mean(0))
    card = write_prior(FOLDER, tensors, facts)
    print(f"wrote {FOLDER}: {card.sha256}, {(FOLDER / 'weights.safetensors').stat().st_size} bytes")


def plain(score: Score) -> dict[str, float | None]:
    """The parts of a score, means over its cells."""
    cells = score.cells
    return {
        "score": score.value,
        "kid": float(np.mean([c.kid for c in cells])),
        "mean_counts_off": float(np.mean([abs(c.mc - 1) for c in cells])),
        "asymmetry_off": float(np.mean([abs(c.asymmetry) for c in cells])),
    } | ({} if score.nn_share is None else {"nn_share": score.nn_share, "chance": score.chance})


def real_slices(folder: Path) -> Dataset:
    """A folder with labels.csv, in memory: nothing of it is written anywhere."""
    factors = ["level", "pattern"]
    found = import_folder(
        folder, folder / "labels.csv", factors=factors, size=load_config("demo").network.size,
        z_column="slice_index", source="real slices", key=PseudonymKey(bytes(32)),
    )  # fmt: skip
    assert found.dataset is not None
    return found.dataset


def compare(name: str, dataset: Dataset, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each start, seed and budget."""
    rows = []
    for seed in SEEDS[: asked.seeds]:
        for init in ("prior", "scratch"):
            folder = asked.work / f"{name.split()[0]}-{init}-{seed}"
            for images in [b for b in BUDGETS if b <= asked.most]:
                config = settings(images, seed, init, FEW[name])
                checkpoint = fit(config, dataset, folder)
                trained, _ = validation_part(config, dataset)
                origin = read_meta(checkpoint).lineage
                score = next(s for s in read_scores(folder) if s.images_seen >= images)
                rows.append(
                    {"data": name, "start": init, "seed": seed, "images": images}
                    | plain(score)
                    | {
                        "cells": len(score.cells),
                        "trained_slices": int(trained.labelled.sum()),
                        "trained_patients": len(trained.patients),
                        "dataset_digest": dataset.digest,
                        "config_digest": config.digest,
                        "prior": origin.prior,
                        "code": origin.code_version,
                    }
                )
                print(rows[-1])
    return rows


def figures_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores from the prior over scratch's, at each budget: below 1 the prior helps."""
    found = []
    for data in dict.fromkeys(r["data"] for r in rows):
        for images in sorted({r["images"] for r in rows if r["data"] == data}):
            means = {
                init: np.mean([r["score"] for r in rows if (r["data"], r["images"], r["start"])
                               == (data, images, init)])
                for init in ("prior", "scratch")
            }  # fmt: skip
            for init, mean in means.items():
                found.append(figure(f"{data}, {images:,} images, from {init}: score", mean, ""))
            ratio = means["prior"] / means["scratch"]
            found.append(figure(f"{data}, {images:,} images: prior over scratch", ratio, "", 1))
    return found


def main() -> None:
    """Builds, or compares and publishes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", action="store_true", help="make the package's prior")
    parser.add_argument("--tables", type=int, default=len(POPULATION), help="Table 1s to draw")
    parser.add_argument("--images", type=int, default=60_000, help="of the prior's fit")
    parser.add_argument("--real", type=Path, help="folder of real slices with labels.csv")
    parser.add_argument("--most", type=int, default=BUDGETS[-1], help="largest budget compared")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="fits of each kind")
    parser.add_argument("--work", type=Path, default=Path("runs/prior"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    if asked.build:
        build(asked.work, asked.tables, asked.images)
        return
    scanner = load_config("phantom-second-scanner").phantom
    assert scanner is not None
    datasets = {SECOND: drawn(asked.work / "second.parquet", scanner)}
    if asked.real is not None and (asked.real / "labels.csv").is_file():
        datasets[REAL] = real_slices(asked.real)
    rows = [row for name, dataset in datasets.items() for row in compare(name, dataset, asked)]
    publish(
        "prior",
        figures_of(rows),
        seeds=list(SEEDS[: asked.seeds]),
        prior=asdict(read_card()),
        code=code_version(),
        command=f"python -m benchmarks.prior --most {asked.most} --seeds {asked.seeds}"
        + (" --real FOLDER" if REAL in datasets else ""),
        rows=rows,
    )


if __name__ == "__main__":
    main()
