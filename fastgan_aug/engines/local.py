"""The local engine: this process, torch alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from fastgan_aug.engines.job import (
    FitJob,
    FitResult,
    Progress,
    resume_point,
    run_fit,
    tracked,
    tracked_run_id,
)
from fastgan_aug.errors import CheckpointError
from fastgan_aug.gan.checkpoint import newest_checkpoint, prune


def fit(job: FitJob, progress: Progress) -> FitResult:
    """Fits the generator in this process.

    Args:
        job: The fit.
        progress: Told of images seen and losses.

    Raises:
        TrainingDiverged: losses or weights are not finite or exploding; the last good checkpoint
            is kept.
        CheckpointError: the folder holds another run.
    """
    job.check_folder()
    job.folder.mkdir(parents=True, exist_ok=True)

    def publish(write: Callable[[Path], Path]) -> Path:
        folder = write(job.folder)
        prune(job.folder, job.config.training.keep)
        return folder

    device = "cuda" if job.config.engine.use_gpu and torch.cuda.is_available() else "cpu"
    with tracked(job) as tracker:
        run_fit(job, publish, progress, tracker, device=device, resume_from=resume_point(job))
    checkpoint = newest_checkpoint(job.folder)
    if checkpoint is None:
        raise CheckpointError("the run left no checkpoint", do="run it again")
    return FitResult(checkpoint, tracked_run_id(job.folder))
