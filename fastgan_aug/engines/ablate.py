"""An ablation in pieces: each variant and seed fitted, sampled and judged at one budget.

A finished run is one JSON file in ``runs/``, and is not done again; a killed one continues from its
last checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.validation.validate import check_valid
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.pieces import (
    DECISIVE,
    FitPiece,
    Told,
    fit_and_choose,
    fit_digest,
    samples,
    with_seed,
    write_json,
)
from fastgan_aug.errors import ConfigError, TrainingDiverged
from fastgan_aug.gan.checkpoint import newest_checkpoint, read_meta
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.ablation import metric_records, verdict_record
from fastgan_aug.quality.case import Case, wanted_counts
from fastgan_aug.quality.evaluate import evaluate
from fastgan_aug.storage import replace_when_complete
from fastgan_aug.variants import Ablation, Variant

HELD_OUT = 0.2  # of the slices, by patient, where no other hold-out is given
ENDLESS = 10**9  # images of a run that ends by its time
PER_PATTERN = 4  # sample slices that are kept of each value of the last factor


@dataclass(frozen=True)
class Plan:
    """What is run; decided before anything runs.

    Attributes:
        ablation: What the file asks for, with the budget and seeds that count.
        data: The real slices' file.
        against: Those of the hold-out; None splits ``data`` by patient.
        out: Folder of everything.
        seconds: Budget of training instead of the images; None for none.
        keep: Whether checkpoints stay once a run is judged.
    """

    ablation: Ablation
    data: Path
    against: Path | None
    out: Path
    seconds: float | None = None
    keep: bool = False

    @property
    def trials(self) -> list[Trial]:
        """Every run, the variants of a seed one after the other."""
        return [
            Trial(
                v.name, seed, self._config(v, seed), self.data, self.out, v.overrides,
                self.against, self.seconds, self.keep,
            )
            for seed in self.ablation.seeds
            for v in self.ablation.variants
        ]  # fmt: skip

    def _config(self, variant: Variant, seed: int) -> Config:
        values = variant.config.to_dict()
        values["training"]["images"] = self.ablation.images if self.seconds is None else ENDLESS
        values["data"]["test_fraction"] = HELD_OUT if self.against is None else 0.0
        return with_seed(Config.of(values, f"variant {variant.name!r}"), seed)


@dataclass(frozen=True)
class Trial(FitPiece):
    """One run: a variant and a seed.

    Attributes:
        overrides: Of the variant.
        against: The hold-out's file; None splits the data.
        seconds: See ``Plan``.
        keep: See ``Plan``.
    """

    overrides: Mapping[str, Any]
    against: Path | None
    seconds: float | None
    keep: bool

    @property
    def key(self) -> str:
        """Names its files."""
        return f"{self.name}-seed{self.seed}"

    @property
    def result_path(self) -> Path:
        """Its result, once it is judged."""
        return self.out / "runs" / f"{self.key}.json"

    @property
    def samples_path(self) -> Path:
        """A few of its slices."""
        return self.out / "runs" / f"{self.key}.npz"

    def part(self, told: Told) -> tuple[float, float]:
        """Of images, or of seconds."""
        if self.seconds is None:
            return super().part(told)
        return min(told.seconds, self.seconds), self.seconds

    def sides(self) -> tuple[Dataset, Dataset]:
        """The slices to train on, and those to be held against.

        Raises:
            DataError: one of them cannot be read, or there are no patients to split by.
        """
        train, rest = training_part(self.config, Dataset.read(self.data))
        if self.against is None:
            assert rest is not None, "a plan without a hold-out splits the data"
            return train, rest
        keep, fresh = self.config.data.keep, Dataset.read(self.against)
        return train, fresh.restrict(keep) if keep else fresh

    def decisions(self) -> dict[str, Any]:
        """The sections that decide the run's figures, as JSON values."""
        values = self.config.record()
        return {name: values[name] for name in (*DECISIVE, "quality")}

    def same_as(self, record: Mapping[str, Any], digests: Mapping[str, str]) -> list[str]:
        """What differs between a finished run and this one; nothing where it is this one.

        A field that the configuration did not have yet counts as its default.
        """
        try:
            known = Config.of({"name": self.name, **record["config"]})
            same = replace(self, config=known).decisions() == self.decisions()
        except ConfigError:
            same = False
        differing = [] if same else ["the configuration"]
        if record["budget_seconds"] != self.seconds:
            differing.append("the budget")
        return differing + [name for name, digest in digests.items() if record[name] != digest]


def start(plan: Plan) -> dict[str, str]:
    """Says at once what could not work, and which finished runs are not of this plan.

    Returns:
        ``dataset_digest`` and ``holdout_digest``.

    Raises:
        ConfigError: a finished run in the folder is another one, or a variant does not fit the
            data.
        DataError: the data do not allow the comparison, or are invalid.
        LeakageError: a patient stands on both sides.
    """
    trials = plan.trials
    train, holdout = trials[0].sides()
    cells = np.asarray(list(wanted_counts(train, holdout, None)), np.str_)
    blank = np.zeros((len(cells), train.meta.size, train.meta.size), np.float32)
    Case(train, holdout, blank, cells, trials[0].config.quality).check(None)
    check_valid(train)
    digests = {"dataset_digest": train.digest, "holdout_digest": holdout.digest}
    for trial in trials:
        FitJob(trial.config, train, trial.folder).check_config()
        record = trial.done
        differing = trial.same_as(record, digests) if record else []
        if differing:
            raise ConfigError(
                f"{trial.result_path} is of another run: {', '.join(differing)} differ",
                allowed="the same data, configuration and budget",
                do="choose another --out, or remove that file to do the run again",
            )
    return digests


def run_trial(trial: Trial) -> dict[str, Any]:
    """Fits, or continues a fit, judges what came of it, and writes that down.

    A run that diverges is a result too: it says so, and has no figures.

    Raises:
        FastGANAugError: see ``engines.local.fit`` and ``quality.evaluate.evaluate``.
    """
    record = trial.done
    if record is None:
        train, holdout = trial.sides()
        try:
            found = _judged(trial, fit_and_choose(trial, train, trial.seconds), train, holdout)
        except TrainingDiverged as error:
            found = {"diverged": error.what, "images": None, "verdict": None, "metrics": {}}
        record = _record(trial, train, holdout) | found
        write_json(trial.result_path, record, indent=None)
    if not trial.keep:
        shutil.rmtree(trial.folder, ignore_errors=True)
    return record


def _record(trial: Trial, train: Dataset, holdout: Dataset) -> dict[str, Any]:
    """What a run rests on, and what it cost."""
    told = trial.told
    return {
        "variant": trial.name,
        "overrides": dict(trial.overrides),
        "seed": trial.seed,
        "budget_images": trial.config.training.images if trial.seconds is None else None,
        "budget_seconds": trial.seconds,
        "images_reached": told.images_seen,
        "seconds": told.seconds,
        "images_per_second": told.images_per_second or None,
        "dataset_digest": train.digest,
        "holdout_digest": holdout.digest,
        "config_digest": fit_digest(trial.config),
        "config": trial.decisions(),
        "code_version": code_version(),
    }


def _judged(trial: Trial, checkpoint: Path, train: Dataset, holdout: Dataset) -> dict[str, Any]:
    """The figures of a checkpoint, and a few slices of it."""
    synthesizer, meta = Synthesizer.load(checkpoint), read_meta(checkpoint)
    images, cells = samples(synthesizer, wanted_counts(train, holdout, None), trial.seed)
    report = evaluate(train, holdout, images, cells, trial.config.quality)
    shown = by_pattern(cells, train.meta.space.factors[-1].values)
    few = (images[shown] * 255).round().astype(np.uint8)
    with replace_when_complete(trial.samples_path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, images=few)
    newest = newest_checkpoint(trial.folder)
    return {
        "diverged": None,
        "images": meta.images_seen,
        "checkpoint_digest": meta.digest,
        "newest": newest is not None and newest.name == checkpoint.name,
        "engine": synthesizer.engine,
        "verdict": verdict_record(report.verdict),
        "metrics": metric_records(report.metrics),
    }


def by_pattern(cells: Sequence[str], values: Sequence[str]) -> NDArray[np.int64]:
    """Rows of a few slices of each value of the last factor, evenly spread over all that have it.

    Args:
        cells: (N,) the cell of each slice.
        values: Of the last factor.
    """
    order = np.argsort(np.asarray(cells, np.str_), kind="stable")
    patterns = np.asarray([cell.rpartition("/")[2] for cell in cells], np.str_)[order]
    of_values = [order[patterns == value] for value in values]
    evenly = [np.linspace(0, len(rows) - 1, PER_PATTERN).astype(np.int64) for rows in of_values]
    return np.concatenate([r[i] for r, i in zip(of_values, evenly, strict=True) if len(r)])


def read_few(path: Path) -> NDArray[np.float32] | None:
    """The slices that a run kept, in [0, 1]; None where there are none."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as values:
        images: NDArray[np.float32] = values["images"].astype(np.float32) / np.float32(255)
    return images
