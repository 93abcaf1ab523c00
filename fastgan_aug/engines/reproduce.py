"""The paper's comparison in pieces: fits, samples, judgement. Each piece is done once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.job import training_part
from fastgan_aug.engines.pieces import (
    FitPiece,
    fit_and_choose,
    fit_digest,
    read_json,
    samples,
    with_seed,
    write_json,
)
from fastgan_aug.engines.scoring import read_scores
from fastgan_aug.errors import ConfigError
from fastgan_aug.gan.checkpoint import checkpoint_name, read_meta
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.clinical.endpoints import measure_dataset, measure_synthetic
from fastgan_aug.quality.reproduction import Published, beyond, line_of
from fastgan_aug.quality.statistics.paper_table import paper_table
from fastgan_aug.storage import replace_when_complete

PLAN, PIECES = "plan.json", "pieces"


@dataclass(frozen=True)
class Plan:
    """What is compared; decided before anything runs.

    Attributes:
        configs: Of each generator by its name, the one of all cells first.
        data: The real slices' file.
        out: Folder of everything.
        seeds: Fits of each generator.
        budget: As it was asked for.
    """

    configs: Mapping[str, Config]
    data: Path
    out: Path
    seeds: int
    budget: str

    @property
    def fits(self) -> list[FitPiece]:
        """Every fit, the generators of a seed one after the other."""
        return [
            FitPiece(name, seed, with_seed(config, seed), self.data, self.out)
            for seed in range(self.seeds)
            for name, config in self.configs.items()
        ]

    def record(self, dataset: Dataset) -> dict[str, Any]:
        """What a folder's results rest on, JSON values."""
        return {
            "budget": self.budget,
            "seeds": self.seeds,
            "configs": {name: config.record() for name, config in self.configs.items()},
            "config_digests": {name: fit_digest(config) for name, config in self.configs.items()},
            "dataset_digest": dataset.digest,
            "dataset_source": dataset.meta.source,
            "code_version": code_version(),
        }


def start(plan: Plan, dataset: Dataset) -> None:
    """Writes the plan down, or makes sure that the folder's own is the same.

    Raises:
        ConfigError: the folder holds another comparison, or a configuration holds out test
            patients.
        StorageError: it cannot be written.
    """
    for piece in plan.fits:
        if piece.config.data.test_fraction:
            raise ConfigError(
                f"{piece.config.name} holds out test patients",
                allowed="data.test_fraction = 0: the paper trained on all slices that it judged by",
                do="change the configuration",
            )
    new, known = plan.record(dataset), read_json(plan.out / PLAN)
    fixed = ("budget", "config_digests", "dataset_digest")
    differing = [key for key in fixed if known is not None and known.get(key) != new[key]]
    if differing:
        raise ConfigError(
            f"{plan.out} holds another comparison: {', '.join(differing)} differ",
            allowed="the same data and budget",
            do="choose another --out",
        )
    write_json(plan.out / PLAN, new)


def fit_piece(piece: FitPiece) -> dict[str, Any]:
    """Fits, or continues a fit, and writes down which checkpoint the score chose.

    Raises:
        FastGANAugError: see ``engines.local.fit``.
    """
    done = piece.done
    if done is not None:
        return done
    train, _ = training_part(piece.config, Dataset.read(piece.data))
    chosen = fit_and_choose(piece, train)
    meta = read_meta(chosen)
    names = {checkpoint_name(s.images_seen): s for s in read_scores(piece.folder)}
    score = names.get(chosen.name)
    result = {
        "name": piece.name,
        "seed": piece.seed,
        "checkpoint": str(chosen.relative_to(piece.out)),
        "checkpoint_digest": meta.digest,
        "images_seen": meta.images_seen,
        "images": piece.config.training.images,
        "config_digest": fit_digest(piece.config),
        "class_counts": dict(meta.lineage.class_counts),
        "score": None if score is None else score.value,
        "images_per_second": piece.told.images_per_second or None,
    }
    write_json(piece.result_path, result)
    return result


def sample_piece(piece: FitPiece) -> Path:
    """As many images per cell as the generator was trained on, from the chosen checkpoint.

    Returns:
        A file with ``images`` (M, S, S) float32 and ``cells`` (M,).
    """
    path = piece.out / PIECES / f"samples-{piece.key}.npz"
    if path.is_file():
        return path
    done = piece.done
    assert done is not None, "samples are drawn after the fit"
    synthesizer = Synthesizer.load(piece.out / done["checkpoint"])
    counts = {str(cell): n for cell, n in synthesizer.class_counts.items()}
    images, cells = samples(synthesizer, counts, piece.seed)
    with replace_when_complete(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, images=images, cells=np.asarray(cells, np.str_))
    return path


def judge_piece(
    plan: Plan, seed: int, dataset: Dataset, published: Published
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One seed's generators, judged.

    Returns:
        ``lines`` and ``beyond`` of ``quality.reproduction``.
    """
    path = plan.out / PIECES / f"judged-{seed}.json"
    known = read_json(path)
    if known is None or "beyond" not in known:
        pieces = [piece for piece in plan.fits if piece.seed == seed]
        made = {piece.name: read_samples(sample_piece(piece)) for piece in pieces}
        measured = {name: measure_synthetic(*samples) for name, samples in made.items()}
        rows = paper_table(measure_dataset(dataset), measured, dataset.meta.space)
        known = {
            "lines": [line_of(row, one, published, seed) for row in rows for one in row.generators],
            "beyond": [{"seed": seed} | row for row in beyond(dataset, made)],
        }
        write_json(path, known)
    return known["lines"], known["beyond"]


def read_samples(path: Path) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Images and cells of ``sample_piece``."""
    with np.load(path, allow_pickle=False) as values:
        return values["images"], [str(c) for c in values["cells"]]
