"""What every engine runs: one fit, its data and what is written down of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config
from fastgan_aug.data.augment import AugmentConfig, affected_cells, flippable_cells
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.data.validation.validate import check_valid
from fastgan_aug.engines.mlflow_spool import Spool
from fastgan_aug.engines.mlflow_tracking import RunTracker, Status, TrackedDataset
from fastgan_aug.engines.scoring import Scorer, score_missing, scorer_of
from fastgan_aug.engines.start import check_prior, check_same_fit, origin_of, starting_state
from fastgan_aug.engines.stopwatch import Stopwatch
from fastgan_aug.errors import CheckpointError, ConfigError, DataError
from fastgan_aug.gan.batch import Share, TrainingData
from fastgan_aug.gan.checkpoint import (
    FILTER,
    GENERATOR,
    META,
    Lineage,
    checkpoint_name,
    checkpoints,
    newest_checkpoint,
    read_manifest,
    restore,
    write_checkpoint,
)
from fastgan_aug.gan.moved_defects import moved_slices
from fastgan_aug.gan.step import TrainState, share_appearance
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.gan.training import served_generator, train
from fastgan_aug.quality.filter_fitting import fit_sample_filter
from fastgan_aug.quality.pictures import picture_grid
from fastgan_aug.quality.sample_filter import SampleFilter
from fastgan_aug.quality.selection import SAMPLES, Judge, Score

log = logging.getLogger(__name__)

# Told of images seen and the latest mean losses.
Progress = Callable[[int, Mapping[str, float]], None]
# Given a function that writes a checkpoint into a folder, brings it to its place, which it returns.
Publish = Callable[[Callable[[Path], Path]], Path]


@dataclass(frozen=True)
class FitJob:
    """One fit of the generator.

    Attributes:
        config: Everything it is decided by.
        dataset: The training rows alone.
        folder: Of the run: checkpoints, and the tracking spool.
        tracking_uri: MLflow's; None keeps everything in the folder.
        resume: Whether to continue from the folder's newest good checkpoint.
        seconds: Of training, after which the run ends short of its images; None: never.
    """

    config: Config
    dataset: Dataset
    folder: Path
    tracking_uri: str | None = None
    resume: bool = False
    seconds: float | None = None

    def check(self) -> None:
        """Says at once what could not work; a run never overwrites another.

        Raises:
            CheckpointError: the folder holds checkpoints and ``resume`` is off.
            ConfigError: see ``check_config``.
            UnknownFactorValue: see ``check_config``.
            InvalidDataset: validation found errors in the data.
        """
        self.check_config()
        if checkpoints(self.folder) and not self.resume:
            raise CheckpointError(
                f"{self.folder} already holds checkpoints",
                allowed="an empty or new folder",
                do="continue that run with --resume, or choose another --out",
            )
        check_valid(self.dataset)

    def check_config(self) -> None:
        """Says what of the configuration does not fit the data, or the prior.

        Raises:
            CheckpointError: the prior to start from is missing or damaged.
            ConfigError: the networks' size is not the data's, the prior to start from is of other
                networks, or a label rule names no factor.
            UnknownFactorValue: a label rule names values that the factor does not have.
        """
        size, there = self.config.network.size, self.dataset.meta.size
        if size != there:
            raise ConfigError(
                f"network.size is {size}, but the slices are {there} x {there}",
                allowed="the same size",
                do=f"set network.size = {there}, or import the images with --size {size}",
            )
        flippable_cells(self.dataset.meta.space, self.config.augment)
        affected_cells(self.dataset.meta.space, self.config.augment)
        check_prior(self.config, newest_checkpoint(self.folder))


@dataclass(frozen=True)
class FitResult:
    """What a fit gave.

    Attributes:
        checkpoint: Folder of the newest checkpoint.
        run_id: MLflow's run, None where nothing is tracked.
    """

    checkpoint: Path
    run_id: str | None


def training_part(
    config: Config, dataset: Dataset, *, unsafe_no_groups: bool = False
) -> tuple[Dataset, Dataset | None]:
    """The rows to train on and, where a test share is configured, the other patients' rows.

    Raises:
        DataError: see ``split_by_patient``.
    """
    chosen = dataset.restrict(config.data.keep) if config.data.keep else dataset
    if not config.data.test_fraction:
        return chosen, None
    return split_by_patient(
        chosen,
        config.data.test_fraction,
        config.data.split_seed,
        unsafe_no_groups=unsafe_no_groups,
    )


def validation_part(config: Config, dataset: Dataset) -> tuple[Dataset, Dataset | None]:
    """Of a fit's rows those that the steps see, and those that only choose the checkpoint.

    Raises:
        DataError: see ``split_by_patient``.
    """
    fraction = config.selection.validation_fraction
    if not fraction:
        return dataset, None
    return split_by_patient(dataset, fraction, config.data.split_seed)


def training_data(dataset: Dataset, augmentation: AugmentConfig) -> TrainingData:
    """The arrays that the steps need, images in [-1, 1]; slices with moved defects stand last."""
    space, labelled = dataset.meta.space, dataset.labelled
    groups = affected_cells(space, augmentation)
    real = dataset.images[labelled], dataset.cell_index[labelled]
    # Every worker moves the same defects, and a resumed fit does.
    more, cells = moved_slices(*real, groups, np.random.default_rng(0))
    images = np.concatenate([dataset.images, more])
    return TrainingData(
        images=torch.from_numpy(images * 2 - 1)[:, None],
        rows=np.concatenate([np.flatnonzero(labelled), np.arange(len(dataset), len(images))]),
        cell=np.concatenate([dataset.cell_index, cells]),
        vectors=torch.from_numpy(space.vectors),
        neighbours=[*dataset.neighbours(), *[np.empty(0, np.int64)] * len(more)],
        flippable=flippable_cells(space, augmentation),
        made=len(more),
        groups=groups,
    )


def lineage_of(config: Config, dataset: Dataset, resume_from: Path | None) -> Lineage:
    """Where the checkpoints of this fit come from.

    The counts are of slices that the steps see; the patients are all that the fit was given, those
    who only choose the checkpoint too: a test on them would be no test.

    Args:
        config: Of the fit.
        dataset: All it was given.
        resume_from: Checkpoint to continue from: it says which prior the run once started from.
    """
    fitted, _ = validation_part(config, dataset)
    return Lineage(
        config=config.record(),
        config_digest=config.digest,
        space=dataset.meta.space.to_dict(),
        class_counts={str(c): n for c, n in fitted.class_counts.items()},
        dataset_digest=dataset.digest,
        patient_digests=dataset.patient_digests,
        code_version=code_version(),
        pseudonym_key=dataset.meta.pseudonym_key,
        grouping=dataset.meta.grouping,
        prior=origin_of(config, resume_from),
    )


@contextmanager
def tracked(job: FitJob) -> Iterator[RunTracker | None]:
    """The run's record in MLflow, closed with how the run ended; None where nothing is tracked."""
    if job.tracking_uri is None:
        yield None
        return
    config = job.config
    lineage = lineage_of(config, job.dataset, newest_checkpoint(job.folder))
    tracker = RunTracker(
        job.folder, uri=job.tracking_uri, experiment=config.tracking.experiment, name=config.name
    )
    source = TrackedDataset(
        config.name, lineage.dataset_digest, lineage.class_counts, job.dataset.meta.source
    )
    tags = {
        "code_version": lineage.code_version,
        "config_digest": lineage.config_digest,
        "dataset_digest": lineage.dataset_digest,
    } | ({} if lineage.prior is None else {"prior": lineage.prior})
    tags |= {} if job.seconds is None else {"budget_seconds": f"{job.seconds:g}"}
    status: Status = "FAILED"
    try:
        tracker.start(lineage.config, source, tags)
        yield tracker
        status = "FINISHED"
    finally:
        tracker.finish(status)
        tracker.close()


def tracked_run_id(folder: Path) -> str | None:
    """MLflow's id of the run that a run folder's spool tells of, None if it never got one."""
    spool = Spool(folder)
    return spool.sent["run_id"] if spool.folder.is_dir() else None


@dataclass
class Recorder:
    """Observer of rank 0: tells the progress, writes checkpoints, feeds the tracker.

    Attributes:
        job: The fit.
        data: Its arrays.
        publish: Brings a checkpoint to its place.
        progress: Told of every point of the loss curves.
        tracker: MLflow's, or None.
        lineage: Written into every checkpoint.
        scorer: Rank 0's, or None where nothing is scored.
        watch: Its clock.
        sample_filter: Kept in every checkpoint, or None.
    """

    job: FitJob
    data: TrainingData
    publish: Publish
    progress: Progress
    tracker: RunTracker | None
    lineage: Lineage
    scorer: Scorer | None
    watch: Stopwatch
    sample_filter: SampleFilter | None = None

    def losses(self, images_seen: int, values: dict[str, float]) -> None:
        """Passes a point of the curves on, with the seconds trained and the latest score."""
        told = values | {"seconds": self.watch.seconds}
        if self.scorer and self.scorer.scores:
            told["score"] = self.scorer.scores[-1].value
        self.progress(images_seen, told)
        if self.tracker:
            self.tracker.metrics(images_seen, values)

    def checkpoint(self, state: TrainState) -> None:
        """Writes a checkpoint, and a grid of its samples."""

        def write(parent: Path) -> Path:
            served = served_generator(state, self.data, self.job.config.training)
            folder = parent / checkpoint_name(state.images_seen)
            kept = self.sample_filter.save if self.sample_filter else None
            write_checkpoint(folder, state, served, self.lineage, kept)
            if self.tracker:
                self.tracker.picture("samples", state.images_seen, sample_grid(folder))
            return folder

        with self.watch.timing("checkpoint"):
            folder = self.publish(write)
            if self.tracker:
                for file in (META, GENERATOR, FILTER):
                    if (folder / file).is_file():
                        self.tracker.artefact(folder / file, f"checkpoints/{folder.name}")
        with self.watch.timing("score"):
            self.score()
        times = self.watch.keep(state.images_seen)
        if self.tracker:
            self.tracker.metrics(state.images_seen, times)

    def score(self) -> None:
        """Scores what is new, off the random streams of the steps, and removes what is old."""
        for score in self.scorer.catch_up() if self.scorer else []:
            if self.tracker:
                self.tracker.metrics(score.images_seen, score.curves())

    def enough(self) -> bool:
        """Whether the run ends before its budget; only rank 0 can tell."""
        return self.scorer is not None and self.scorer.enough


def sample_grid(checkpoint: Path, per_cell: int = 6) -> bytes:
    """PNG of samples of every seen cell, from seeds that stay the same over a run."""
    synthesizer = Synthesizer.load(checkpoint)
    seeds = np.arange(1, per_cell + 1, dtype=np.uint64)
    seen = [c for c, n in synthesizer.class_counts.items() if n]
    return picture_grid({str(c): synthesizer.generate([c] * per_cell, seeds) for c in seen})


def run_fit(
    job: FitJob,
    publish: Publish,
    progress: Progress,
    tracker: RunTracker | None,
    *,
    share: Share | None = None,
    device: str = "cpu",
    resume_from: Path | None = None,
    watch: Stopwatch,
) -> TrainState:
    """Fits on one worker; every engine calls this.

    Args:
        job: The fit.
        publish: See ``Recorder``.
        progress: See ``Recorder``.
        tracker: Rank 0's; None elsewhere.
        share: This worker's part.
        device: torch device of this worker.
        resume_from: Checkpoint to continue from.
        watch: This worker's, not yet running.

    Raises:
        TrainingDiverged: losses or weights are not finite or exploding.
        CheckpointError: ``resume_from`` does not fit.
    """
    config = job.config
    torch.set_num_threads(config.engine.threads)
    fitted, validation = validation_part(config, job.dataset)
    data = training_data(fitted, config.augment).to(torch.device(device))
    state = starting_state(config, data, torch.device(device), resume_from)
    if share:
        share_appearance(state, share)
    lineage = lineage_of(config, job.dataset, resume_from)
    if resume_from is not None:
        meta = restore(resume_from, state)
        check_same_fit(meta.lineage, lineage)
        watch.resume(state.images_seen)
        log.info("resumed from %s at %d images", resume_from.name, state.images_seen)
    scorer = sample_filter = None
    if not share or share.rank == 0:
        scorer = scorer_of(job.folder, config, fitted, validation)
        if config.selection.filter:
            sample_filter = fit_sample_filter(fitted, factor=config.downstream.factor)
    recorder = Recorder(
        job, data, publish, progress, tracker, lineage, scorer, watch, sample_filter
    )
    recorder.score()  # what a run killed in between has not scored
    return train(state, data, config.augment, config.training, recorder, share, watch.left)


def score_run(folder: Path, dataset: Dataset) -> list[Score]:
    """Scores the checkpoints of a run that have no score yet, as the run itself would have done.

    Args:
        folder: Of the run.
        dataset: The whole data set that it was given.

    Raises:
        CheckpointError: the folder holds no good checkpoint.
        DataError: it is another data set, or too small to choose by.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        raise CheckpointError(f"{folder} holds no good checkpoint", do="check the path")
    lineage = read_manifest(newest).lineage
    values = dict(lineage.config)
    if "appearance" not in values["network"]:  # older: the weight stood for another loss
        values["training"] = values["training"] | {"energy_weight": 0.0}
    config = Config.of(values, str(newest))
    train, _ = training_part(config, dataset, unsafe_no_groups=True)
    if train.digest != lineage.dataset_digest:
        raise DataError(
            f"the run in {folder} was not trained on this data set",
            allowed=f"training rows with the digest {lineage.dataset_digest}",
            do="give the file that `fastgan-aug train --data` was given",
        )
    judge = Judge(*validation_part(config, train), config.selection.samples or SAMPLES)
    if not judge.cells:
        raise DataError("no cell has slices of two patients to be held against", do="add patients")
    return score_missing(folder, judge)
