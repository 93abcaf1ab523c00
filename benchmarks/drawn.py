"""Which step makes a slice look like another class, the draw or the network: `benchmarks.drawn`.

A generator draws the numbers that describe a slice, then makes the slice. Here it also makes slices
of numbers that were measured on fresh real slices. A classifier fitted on thousands of other fresh
slices says how many of each kind it takes for their own class. It goes on from the generators that
`benchmarks.proof` has fitted under ``--out``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import figure, publish
from benchmarks.proof import IMAGES, generator_config, generator_of, known
from benchmarks.proof_phantom import FACTOR, SETTINGS, Replicate
from downstream.arms.augmentation import classical_augmentation
from fastgan_aug.code_version import code_version
from fastgan_aug.data.augment import flippable_cells
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.tasks import on_all_cores
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.likeness.classifier import (
    Classifier,
    FitSettings,
    fit_network,
    small_cnn,
)
from fastgan_aug.quality.likeness.faithfulness import class_labels

STEPS = 900  # of the classifier
SLICES = 200  # of each cell, at most
KINDS = ("real", "made of real numbers", "drawn")


def expert(fresh: Dataset) -> Classifier:
    """A classifier of ``FACTOR`` that has seen many slices, none of them the generator's."""
    labels, rules = class_labels(fresh, FACTOR), generator_config(IMAGES, 0).augment
    images = fresh.images[fresh.labelled]
    flippable = flippable_cells(fresh.meta.space, rules)[fresh.cell_index[fresh.labelled]]
    network = fit_network(
        small_cnn, images, labels, labels.max() + 1, FitSettings(steps=STEPS), seed=0,
        augment=classical_augmentation(flippable, rules.shift),
        sampling=1.0 / np.bincount(labels)[labels],
    )  # fmt: skip
    return Classifier(network, images.shape[1])


@torch.no_grad()
def three_kinds(
    synthesizer: Synthesizer, cell: int, real: NDArray[np.float32], random: torch.Generator
) -> dict[str, NDArray[np.float32]]:
    """Real slices, slices made of their numbers, and slices of numbers that are drawn.

    Args:
        synthesizer: The generator, with an appearance.
        cell: Position of the cell.
        real: (N, S, S) in [0, 1], of that cell.
        random: Of the latents.

    Returns:
        (N, S, S) in [0, 1] by ``KINDS``.
    """
    generator, condition = synthesizer.generator, synthesizer.space.vectors[cell]
    assert generator.appearance is not None, "the generator draws no numbers"
    latents = torch.randn(len(real), generator.latent_size, generator=random)
    conditions = torch.from_numpy(condition).expand(len(real), -1)
    measured = generator.appearance.describe(torch.from_numpy(real)[:, None] * 2 - 1)
    drawn = generator(latents, conditions)
    made = generator(latents, conditions, wanted=measured)
    return dict(
        zip(KINDS, (real, *(((x[:, 0] + 1) / 2).numpy() for x in (made, drawn))), strict=True)
    )


def measured(classifier: Classifier, replicate: Replicate, images: int) -> list[dict[str, Any]]:
    """Share of each kind that is taken for its own class, by cell."""
    fresh = Dataset.read(replicate.test_path)
    synthesizer = Synthesizer.load(generator_of(replicate, images).checkpoint)
    labels, cells = class_labels(fresh, FACTOR), fresh.cell_index[fresh.labelled]
    pictures, random = fresh.images[fresh.labelled], torch.Generator().manual_seed(0)
    found = []
    for k, cell in enumerate(fresh.meta.space.cells):
        rows = np.flatnonzero(cells == k)[:SLICES]
        if not len(rows) or not synthesizer.class_counts[cell]:
            continue
        for kind, slices in three_kinds(synthesizer, k, pictures[rows], random).items():
            right = float((classifier.predict(slices) == labels[rows[0]]).mean())
            found.append(
                figure(f"{replicate.setting}, {cell}, {kind}: taken for its own class", right, "")
            )
    return found


def main() -> None:
    """Draws the sets that are missing, and publishes the shares."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--out", type=Path, default=Path("runs/proof"))
    words.add_argument("--setting", choices=list(SETTINGS), action="append")
    words.add_argument("--replicate", type=int, default=0)
    words.add_argument("--images", type=int, default=IMAGES, help="budget of a generator")
    asked = words.parse_args()
    torch.set_num_threads(1)
    settings, out = asked.setting or list(SETTINGS), asked.out.resolve()
    tested = [Replicate(name, asked.replicate, out) for name in settings]
    other = Replicate(settings[0], asked.replicate + 1, out)
    for each in (*tested, other):
        each.draw(on_all_cores(2), fresh=True)
    records = [known(each, asked.images) for each in tested]
    classifier = expert(Dataset.read(other.test_path))
    publish(
        "drawn",
        [row for each in tested for row in measured(classifier, each, asked.images)],
        code=code_version(), replicate=asked.replicate, images=asked.images,
        generators=[
            {name: record[name] for name in ("name", "checkpoint_digest", "config_digest",
                                             "dataset_digest", "code_version")}
            for record in records
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
