"""Fits that are pieces of a larger work: each done once, told of while it runs, resumed if killed.

A finished piece is one small JSON file; what a kill left unfinished continues from its last
checkpoint. Pieces are independent, so that they share the cores or the Ray workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob
from fastgan_aug.engines.scoring import best_checkpoint
from fastgan_aug.errors import StorageError
from fastgan_aug.gan.checkpoint import newest_checkpoint, read_manifest
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.storage import replace_when_complete

PROGRESS = "progress.json"
DECISIVE = ("data", "network", "training", "augment", "selection")  # sections of a configuration
SAMPLES = 20221  # of the seeds of the samples: other ones than the checkpoint was chosen on

# Does all pieces, results in order: the built-in map, processes or Ray workers.
Run = Callable[[Callable[[Any], dict[str, Any]], Iterable[Any]], Iterator[Any]]


@dataclass(frozen=True)
class FitPiece:
    """One fit, small enough to be sent to another process.

    Attributes:
        name: Of what is fitted.
        seed: Of the fit.
        config: Of the fit.
        data: The real slices' file.
        out: Folder of everything.
    """

    name: str
    seed: int
    config: Config
    data: Path
    out: Path

    @property
    def key(self) -> str:
        """Names its files."""
        return f"{self.name}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.out / "fits" / self.key

    @property
    def result_path(self) -> Path:
        """Its result, once it is finished."""
        return self.out / "pieces" / f"fit-{self.key}.json"

    @property
    def done(self) -> dict[str, Any] | None:
        """Its result, or None where it is not finished."""
        return read_json(self.result_path)

    @property
    def told(self) -> Told:
        """How far it is, as last told."""
        return Told.read(self.folder)

    def part(self, told: Told) -> tuple[float, float]:
        """How much of the fit that is, and how much there is in all."""
        return told.images_seen, self.config.training.images


@dataclass(frozen=True)
class Told:
    """How far a fit is.

    Attributes:
        points: (images seen, seconds of training until then), oldest first. Checkpoints and their
            scores take none of these seconds.
    """

    points: tuple[tuple[int, float], ...] = ()

    @property
    def images_seen(self) -> int:
        """Of the last point."""
        return self.points[-1][0] if self.points else 0

    @property
    def seconds(self) -> float:
        """Of the last point."""
        return self.points[-1][1] if self.points else 0.0

    @property
    def images_per_second(self) -> float:
        """Median over the points; 0 where there is none."""
        points = np.asarray([(0, 0.0), *self.points])
        images, seconds = np.diff(points, axis=0).T
        return float(np.median(images / np.maximum(seconds, 1e-9))) if len(images) else 0.0

    def until(self, images_seen: int) -> Told:
        """What of it a checkpoint of so many images knows."""
        return Told(tuple(point for point in self.points if point[0] <= images_seen))

    def further(self, images_seen: int, images_per_second: float) -> Told:
        """With one more point."""
        took = (images_seen - self.images_seen) / max(images_per_second, 1e-9)
        return Told((*self.points, (images_seen, self.seconds + took)))

    @classmethod
    def read(cls, folder: Path) -> Told:
        """Of a run's folder; nothing where nothing was told yet."""
        points = (read_json(folder / PROGRESS) or {}).get("points", [])
        return cls(tuple((int(images), float(seconds)) for images, seconds in points))

    def write(self, folder: Path) -> None:
        """Into a run's folder."""
        write_json(folder / PROGRESS, {"points": self.points}, indent=None)


def fit_and_choose(
    piece: FitPiece,
    train: Dataset,
    seconds: float | None = None,
    tracking_uri: str | None = None,
) -> Path:
    """Fits, or continues a fit, telling its folder how far it is.

    Args:
        piece: The fit.
        train: Its training rows.
        seconds: After which it ends, see ``FitJob``; None: at its images.
        tracking_uri: MLflow's; None tracks nothing.

    Returns:
        The checkpoint that the score chose, or the newest where nothing was scored.

    Raises:
        FastGANAugError: see ``engines.local.fit``.
    """
    piece.folder.mkdir(parents=True, exist_ok=True)
    newest = newest_checkpoint(piece.folder)
    # What was told after the newest checkpoint is done again.
    told = piece.told.until(read_manifest(newest).images_seen if newest else 0)

    def progress(images_seen: int, values: Mapping[str, float]) -> None:
        nonlocal told
        told = told.further(images_seen, values["images_per_second"])
        told.write(piece.folder)

    job = FitJob(piece.config, train, piece.folder, tracking_uri, resume=True, seconds=seconds)
    result = local.fit(job, progress)
    return best_checkpoint(piece.folder) or result.checkpoint


def samples(
    synthesizer: Synthesizer, counts: Mapping[str, int], seed: int
) -> tuple[NDArray[np.float32], list[str]]:
    """So many images of each cell, the same for the same seed.

    Args:
        synthesizer: Of the chosen checkpoint.
        counts: ``{cell: images}``.
        seed: Of the fit.

    Returns:
        (M, S, S) float32 in [0, 1], and the cell of each.
    """
    names = [name for name, n in counts.items() for _ in range(n)]
    seeds = np.random.default_rng([SAMPLES, seed]).integers(2**63, size=len(names))
    cells = [synthesizer.space.parse(name) for name in names]
    return synthesizer.generate(cells, seeds.astype(np.uint64)), names


def fit_digest(config: Config) -> str:
    """Sha256 of what decides a fit's weights, choice and filter; 64 hex digits."""
    values = config.record()
    decisive = {name: values[name] for name in DECISIVE}
    if config.selection.filter and config.downstream.factor is not None:
        decisive["filter_factor"] = config.downstream.factor
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def with_seed(config: Config, seed: int) -> Config:
    """The configuration of a fit of that seed, on the data set that it is given."""
    training = replace(config.training, seed=config.training.seed + seed)
    return config.model_copy(update={"training": training, "phantom": None})


def read_json(path: Path) -> dict[str, Any] | None:
    """A file of ``write_json``; None where there is none.

    Raises:
        StorageError: it is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}", do="remove it") from error


def write_json(path: Path, values: Mapping[str, Any], indent: int | None = 1) -> None:
    """Writes beside and renames.

    Args:
        path: The file.
        values: Plain JSON values without NaN.
        indent: None for one line.

    Raises:
        StorageError: it cannot be written.
    """
    with replace_when_complete(path) as temporary:
        temporary.write_text(json.dumps(values, indent=indent, allow_nan=False), encoding="utf-8")
