"""Memory and time of bulk sampling: `python -m benchmarks.bulk [--images N] [--local]`.

600,000 images of configs/demo's size through `fastgan-aug sample`, by Ray Data or, with `--local`,
by processes. The generator has its appearance and fresh weights: time and memory do not depend on
what the weights learnt. Memory is that of all processes, Ray's own included, against the images
that were done by then; of each kind of process it is told alone too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import torch
from scipy import stats

from benchmarks.measure import figure, publish, resident, watched
from fastgan_aug.config import load_config
from fastgan_aug.data.phantom.population import PhantomConfig, make_phantom
from fastgan_aug.engines.job import lineage_of, training_data
from fastgan_aug.gan.checkpoint import write_checkpoint
from fastgan_aug.gan.step import new_state
from serving.asking import request_of
from serving.batch import BalancedBatch
from serving.bulk import SHARD
from serving.client import Client

IMAGES, FULL, SEED = 600_000, 10_000_000, 7
WINDOWS = 20
SETTLED = 0.2  # of the images: processes are up, and their caches filled
CHECKED = 3  # shards that are compared with the client's images
MOST_GROWTH = 1.0  # GiB for FULL images
KINDS = {
    "workers": "ray::MapWorker", "other workers of Ray": "ray::", "raylet": "raylet/raylet",
    "GCS": "gcs_server", "dashboard": "dashboard", "agents": "agent",
}  # fmt: skip
REST, ALL = "other processes", "all processes"


def made_checkpoint(folder: Path) -> tuple[Path, dict[str, str]]:
    config = load_config("demo")
    dataset = make_phantom(PhantomConfig(counts=few(), patients=40))
    data = training_data(dataset, config.augment)
    space = dataset.meta.space
    state = new_state(config.network, config.training, space.dimension, torch.device("cpu"), data)
    origin = lineage_of(config, dataset, None)
    write_checkpoint(folder, state, state.generator, origin)
    return folder, {"config": origin.config_digest, "dataset": origin.dataset_digest}


def few() -> dict[str, int]:
    """A tenth of Table 1."""
    return {cell: -(-n // 10) for cell, n in PhantomConfig().counts.items()}


def counts_for(checkpoint: Path, images: int) -> tuple[dict[str, int], int]:
    """No real image of any cell that was seen, and as many of each as makes ``images``."""
    facts = Client.offline(checkpoint).model()
    cells = [cell for cell, n in facts["training_counts"].items() if n]
    return dict.fromkeys(cells, 0), -(-images // len(cells))


def memory_by_kind(command: psutil.Process) -> dict[str, int]:
    """Bytes of each kind of process that are nobody else's, and of all together (PSS)."""
    found = dict.fromkeys((*KINDS, REST), 0) | {"the command": command.memory_full_info().uss}
    for process in command.children(recursive=True):
        try:
            words, own = " ".join(process.cmdline()), process.memory_full_info().uss
        except psutil.Error:
            continue  # it ended meanwhile
        kind = next((kind for kind, mark in KINDS.items() if mark in words), REST)
        found[kind] += own
    return found | {ALL: resident(command)}


def growth(then: np.ndarray, size: np.ndarray, ends: np.ndarray) -> tuple[float, float, float]:
    """MiB per 1,000 images, its upper 95 % bound, and the peak in GiB.

    Args:
        then: Seconds since the start.
        size: Bytes.
        ends: Seconds at which the shards were done, ascending.
    """
    done = np.interp(then, ends, SHARD * np.arange(1, len(ends) + 1), left=0)
    edges = np.linspace(SETTLED * done.max(), done.max(), WINDOWS + 1)
    # Memory goes up and down with every shard: what stays is the least of each window.
    least = [
        (float(np.mean(done[part])), float(size[part].min()))
        for a, b in pairwise(edges)
        if (part := (done > a) & (done <= b) & (then <= ends[-1])).any()
    ]
    middle, floor = np.asarray(least).T
    fit = stats.linregress(middle / 1000, floor / 2**20)
    return float(fit.slope), float(fit.slope + 1.96 * fit.stderr), float(size.max() / 2**30)


def identical(out: Path, checkpoint: Path, counts: dict[str, int], target: int) -> int:
    """How many of ``CHECKED`` shards hold the very images that the client gives."""
    from dataclasses import replace

    client, request = Client.offline(checkpoint), request_of(counts, target, seed=SEED)
    shards = sorted(out.glob("part-*.parquet"))
    chosen = np.random.default_rng(SEED).choice(len(shards), min(CHECKED, len(shards)), False)
    same = 0
    for shard in (shards[i] for i in chosen):
        found = BalancedBatch.read(shard)
        answer = client.answer(replace(request, page=found.header.page))
        made = BalancedBatch.collect(answer.header, answer.chunks)
        same += made.images.tobytes() == found.images.tobytes()
    return same


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--images", type=int, default=IMAGES)
    options.add_argument("--local", action="store_true")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint, facts = made_checkpoint(folder / "checkpoint")
        counts, target = counts_for(checkpoint, asked.images)
        (folder / "counts.json").write_text(json.dumps(counts))
        command = [
            sys.executable, "-m", "fastgan_aug.cli.main", "sample", "--checkpoint",
            str(checkpoint), "--counts", str(folder / "counts.json"), "--target", str(target),
            "--seed", str(SEED), "--out", str(folder / "out"), *(["--local"] * asked.local),
        ]  # fmt: skip
        begun = time.time()
        seconds, memory = watched(command, memory_by_kind, every=1)
        parts = list((folder / "out").glob("part-*.parquet"))
        ends = np.sort([part.stat().st_mtime - begun for part in parts])
        then = np.array([second for second, _ in memory])
        grown = {
            kind: growth(then, np.array([each[kind] for _, each in memory]), ends)
            for kind in memory[0][1]
        }
        slope, bound, peak = grown.pop(ALL)
        images = json.loads((folder / "out" / "_manifest.json").read_text())["images"]
        size = sum(part.stat().st_size for part in parts)
        same = identical(folder / "out", checkpoint, counts, target)
    per_full = FULL / 1000 / 1024
    publish(
        "bulk",
        [
            figure("images", images, "images", asked.images, least=True),
            figure("growth of memory per 1,000 images", slope, "MiB"),
            figure(f"growth for {FULL:,} images", slope * per_full, "GiB", MOST_GROWTH),
            figure(f"growth for {FULL:,} images, upper 95 % bound", bound * per_full, "GiB"),
            figure("peak memory of all processes (PSS)", peak, "GiB"),
            *[
                figure(f"{kind}: {what}", value, unit)
                for kind, (by, _, most) in grown.items()
                for what, value, unit in (
                    ("growth per 1,000 images", by, "MiB"), ("peak", most, "GiB"),
                )
            ],
            figure(f"shards of {CHECKED} identical to the client's images", same, "", CHECKED,
                   least=True),
            figure("images per second, from the first shard to the last",
                   (len(ends) - 1) * SHARD / (ends[-1] - ends[0]), "images/s"),
            figure("whole command", seconds, "s"),
            figure("an image on disk", size / images / 1024, "KiB"),
        ],
        seeds=[SEED],
        engine="processes" if asked.local else "Ray Data",
        options=sys.argv[1:],
        **facts,
    )  # fmt: skip


if __name__ == "__main__":
    main()
