"""The local engine: this process, torch alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from fastgan_aug.engines.job import (
    FitJob,
    FitResult,
    Progress,
    run_fit,
    tracked,
    tracked_run_id,
)
from fastgan_aug.engines.stopwatch import Stopwatch
from fastgan_aug.errors import CheckpointError, EngineFailed
from fastgan_aug.gan.checkpoint import newest_checkpoint


def fit(job: FitJob, progress: Progress) -> FitResult:
    """Fits the generator in this process.

    Args:
        job: The fit.
        progress: Told of images seen and losses.

    Raises:
        TrainingDiverged: losses or weights are not finite or exploding; the last good checkpoint
            is kept.
        CheckpointError: the folder holds another run.
        EngineFailed: a GPU is asked for and there is none.
    """
    watch = Stopwatch(job.folder, job.seconds, time.time())
    job.check()
    if job.config.engine.use_gpu and not torch.cuda.is_available():
        raise EngineFailed(
            "engine.use_gpu is set, but torch finds no CUDA device",
            do="set engine.use_gpu = false, or install a CUDA build of torch",
        )
    job.folder.mkdir(parents=True, exist_ok=True)

    def publish(write: Callable[[Path], Path]) -> Path:
        return write(job.folder)

    device = "cuda" if job.config.engine.use_gpu else "cpu"
    with tracked(job) as tracker:
        run_fit(
            job,
            publish,
            progress,
            tracker,
            device=device,
            resume_from=newest_checkpoint(job.folder),
            watch=watch,
        )
    checkpoint = newest_checkpoint(job.folder)
    if checkpoint is None:
        raise CheckpointError("the run left no checkpoint", do="run it again")
    return FitResult(checkpoint, tracked_run_id(job.folder))
