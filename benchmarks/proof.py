"""The principal figure: how much of the oracle's gain the generator recovers: `benchmarks.proof`.

Phantoms with 8 and 16 slices of the rarest pattern, and with as many as Table 1 has; replicates
with training patients, generators and fresh test patients of their own. Everything is done in
pieces that are kept under ``--out``: what was finished is not done again, so the command can be
ended at any time and given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.proof_phantom import SETTINGS, Replicate
from fastgan_aug.config import Config, load_config
from fastgan_aug.engines.fold_generator import GeneratorPiece, fit_generator
from fastgan_aug.engines.pieces import with_seed
from fastgan_aug.engines.tasks import map_in_processes, on_all_cores

REPLICATES = 3
IMAGES = 100_000


def generator_config(images: int, replicate: int) -> Config:
    """The demo's recipe on one core, with its seed."""
    values = load_config("demo").to_dict()
    values["data"]["test_fraction"] = 0
    values["engine"] |= {"kind": "local", "workers": 1, "threads": 1}
    values["training"]["images"] = images
    return with_seed(Config.of(values), replicate)


def generator_of(replicate: Replicate, images: int) -> GeneratorPiece:
    """The piece that fits a replicate's generator."""
    config = generator_config(images, replicate.number)
    return GeneratorPiece(
        replicate.setting, replicate.number, config, replicate.train_path, replicate.out, replicate
    )


def fit_generators(replicates: Sequence[Replicate], images: int, workers: int) -> None:
    """Fits those that are not fitted yet, telling of each; the next sets are drawn meanwhile."""

    def waiting() -> Iterator[GeneratorPiece]:
        for replicate in replicates:
            piece = generator_of(replicate, images)
            if piece.done is None:
                replicate.draw(map, fresh=False)
                print(f"drawn: {replicate.name}", flush=True)
                yield piece

    run = map if workers == 1 else partial(map_in_processes, workers=workers)
    for record in run(fit_generator, waiting()):
        verdict = record["verdict"]
        print(
            f"fitted: {record['name']}-{record['seed']}, {record['images']:,} images in "
            f"{record['seconds']:.0f} s, {len(verdict['failures'])} of {verdict['answers']} "
            "answers of the gate fail",
            flush=True,
        )


def arguments() -> argparse.ArgumentParser:
    """What can be asked."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--out", type=Path, default=Path("runs/proof"))
    words.add_argument("--setting", choices=list(SETTINGS), action="append")
    words.add_argument("--replicates", type=int, default=REPLICATES)
    words.add_argument("--images", type=int, default=IMAGES, help="budget of a generator")
    words.add_argument("--workers", type=int, default=1, help="pieces at once")
    words.add_argument("--only-generators", action="store_true")
    words.add_argument("--only-pools", action="store_true", help="draw test and oracle sets")
    return words


def main() -> None:
    """Does the pieces that are not done yet, and publishes what they say."""
    asked = arguments().parse_args()
    torch.set_num_threads(1)
    replicates = [
        Replicate(setting, number, asked.out.resolve())
        for number in range(asked.replicates)
        for setting in asked.setting or SETTINGS
    ]
    if asked.only_pools:
        for replicate in replicates:
            replicate.draw(on_all_cores(asked.workers), fresh=True)
            print(f"drawn: {replicate.name}", flush=True)
        return
    fit_generators(replicates, asked.images, asked.workers)


if __name__ == "__main__":
    main()
