"""The Ray engine: the same fit on N Ray Train workers, data-parallel.

Each worker takes its part of every batch and all average their gradients in one all-reduce, so
the numbers that decide a step are those of the local engine; batch-norm statistics are each
worker's own, and those of rank 0 are kept.
"""

from __future__ import annotations

import logging
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan_aug.engines.job import (
    FitJob,
    FitResult,
    Progress,
    Publish,
    run_fit,
    tracked,
    tracked_run_id,
)
from fastgan_aug.engines.ray_cluster import is_cluster, ray_cluster
from fastgan_aug.engines.stopwatch import Stopwatch
from fastgan_aug.errors import (
    CheckpointError,
    DataError,
    EngineFailed,
    FastGANAugError,
    TrainingDiverged,
)
from fastgan_aug.gan.batch import Share
from fastgan_aug.gan.checkpoint import newest_checkpoint, read_meta

log = logging.getLogger(__name__)
# A collective that waits for a dead worker gives up after this, instead of torch's 30 minutes.
COLLECTIVE_TIMEOUT = 120
# All ranks see the same averaged losses and the same data, and agree on whether each has its GPU:
# they stop together without a failure, since a new try would end the same way. Any other error
# fails the worker, so that none waits for it.
SAME_ON_ALL_RANKS = (TrainingDiverged, DataError, EngineFailed)
# Ray would resume from its own list of checkpoints; the newest good one of the folder counts.
RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"


def fit(job: FitJob, progress: Progress) -> FitResult:
    """Fits the generator on Ray Train workers.

    Checkpoints go through Ray's storage into the run's folder. A lost worker is replaced, up to
    ``engine.max_failures`` times, and the run continues from the newest checkpoint.

    Args:
        job: The fit.
        progress: Told of images seen and losses, in this process.

    Raises:
        TrainingDiverged: losses or weights are not finite or exploding; the last good checkpoint
            is kept, and no worker tries again.
        CheckpointError: the folder holds another run.
        EngineFailed: workers could not be started, failed too often, or were given GPUs by Ray
            that torch cannot find.
    """
    import ray
    from ray.train import TrainingFailedError
    from ray.util.queue import Queue

    job.check()
    folder = job.folder.resolve()  # workers run in folders of their own
    job = replace(job, folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RAY_SNAPSHOT).unlink(missing_ok=True)
    with ray_cluster(job.config.engine.timeout):
        _check_room(job)
        messages = Queue(actor_options={"num_cpus": 0})
        loop = {"job": ray.put(job), "messages": messages, "asked": time.time()}
        trainer = _trainer(job, folder, loop)
        failure: Exception | None = None
        with _Listener(messages, progress) as listener, _ctrl_c_given_back():
            try:
                trainer.fit()
            except TrainingFailedError as error:
                failure = error
        # Only now has the listener heard everything that the workers said.
        if failure is not None:
            raise (listener.error or _gave_up(failure)) from failure
        messages.shutdown(grace_period_s=1)
    if isinstance(listener.error, SAME_ON_ALL_RANKS):
        raise listener.error
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        raise CheckpointError("the run left no checkpoint", do="run it again")
    return FitResult(checkpoint, tracked_run_id(folder))


def _trainer(job: FitJob, folder: Path, loop: dict[str, Any]) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    engine = job.config.engine
    return TorchTrainer(
        _worker,
        train_loop_config=loop,
        # On GPUs too: NCCL could not even say that there is no CUDA. `_reduction` adds it.
        torch_config=TorchConfig(backend="gloo", timeout_s=COLLECTIVE_TIMEOUT),
        scaling_config=ScalingConfig(
            num_workers=engine.workers,
            use_gpu=engine.use_gpu,
            resources_per_worker={"CPU": engine.cpus_per_worker}
            | ({"GPU": 1} if engine.use_gpu else {}),
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(
                max_failures=engine.max_failures, controller_failure_limit=0
            ),
            # Rank 0 removes old ones: it keeps the best beside the newest.
            checkpoint_config=CheckpointConfig(num_to_keep=None),
        ),
    )


def _check_room(job: FitJob) -> None:
    """Says at once what this machine can never give; a cluster may still grow.

    Raises:
        EngineFailed: the workers ask for more than this machine has.
    """
    import ray

    engine, there = job.config.engine, ray.cluster_resources()
    wanted = {"CPU": engine.workers * engine.cpus_per_worker}
    if engine.use_gpu:
        wanted["GPU"] = engine.workers
    short = {k: n for k, n in wanted.items() if n > there.get(k, 0.0)}
    if not short:
        return
    said = ", ".join(f"{n:g} {k} wanted and {there.get(k, 0.0):g} there" for k, n in short.items())
    if is_cluster():
        log.warning("waiting for the cluster to grow: %s", said)
        return
    raise EngineFailed(
        f"the workers ask for more than this machine has: {said}",
        do="lower engine.workers or engine.cpus_per_worker, or name a cluster in RAY_ADDRESS",
    )


@contextmanager
def _ctrl_c_given_back() -> Iterator[None]:
    """Ray Train takes Ctrl-C to abort its run, and keeps it: later on, Ctrl-C would do nothing."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _gave_up(error: Exception) -> EngineFailed:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return EngineFailed(
        f"Ray Train gave up: {lines[-1] if lines else type(error).__name__}",
        do="see the workers' logs in Ray's session folder; resume with --resume",
    )


class _Listener:
    """Hands the workers' messages to ``progress`` while the fit blocks this process."""

    def __init__(self, messages: Any, progress: Progress) -> None:
        self._messages, self._progress = messages, progress
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="fit-progress", daemon=True)
        self.error: FastGANAugError | None = None

    def __enter__(self) -> _Listener:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join(timeout=10)

    def _listen(self) -> None:
        from ray.util.queue import Empty

        while True:
            finished = self._done.is_set()
            try:
                message = self._messages.get(timeout=0.5)
            except Empty:
                if finished:
                    return
                continue
            except Exception as error:
                log.warning("the workers' progress cannot be read: %s", error)
                return
            if isinstance(message, FastGANAugError):
                self.error = message
            elif isinstance(message, Placement):
                log.info("%s", message)
            else:
                self.error = None  # a replaced worker went on
                self._progress(*message)


@dataclass(frozen=True)
class Placement:
    """Where Ray put a worker.

    Attributes:
        rank: Of the worker.
        host: Name of the machine.
        gpus: Ray's ids of the GPUs that it alone may use.
    """

    rank: int
    host: str
    gpus: tuple[str, ...]

    def __str__(self) -> str:
        gpus = f"GPU {', '.join(self.gpus)}" if self.gpus else "no GPU"
        return f"worker {self.rank} on {self.host} with {gpus}"


def _placement(rank: int) -> Placement:
    import ray

    ids = ray.get_runtime_context().get_accelerator_ids()
    return Placement(rank, socket.gethostname(), tuple(ids.get("GPU", ())))


def _worker(loop: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import ray
    from ray.train import get_context

    job: FitJob = ray.get(loop["job"], timeout=300)
    context = get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    resume_from = newest_checkpoint(job.folder)
    watch = Stopwatch(job.folder, job.seconds, loop["asked"], writes=rank == 0)
    placement = _placement(rank)
    _tell(loop["messages"], placement)

    def progress(images_seen: int, values: Mapping[str, float]) -> None:
        if rank == 0:
            _tell(loop["messages"], (images_seen, dict(values)))

    try:
        device = _device(job.config.engine.use_gpu, placement, world)
        share = Share(rank, world, _reduction(device))
        with tracked(job) if rank == 0 else nullcontext() as tracker:
            run_fit(
                job, _publish(rank, job.folder, watch), progress, tracker,
                share=share, device=str(device), resume_from=resume_from, watch=watch,
            )  # fmt: skip
    except FastGANAugError as error:
        _tell(loop["messages"], error)
        if not isinstance(error, SAME_ON_ALL_RANKS):
            raise


def _device(use_gpu: bool, placement: Placement, world: int) -> torch.device:
    """The device of this worker; on all of them, or none goes on.

    Ray counts the GPUs that it is told of and would give a worker without CUDA the CPU.

    Raises:
        EngineFailed: a worker was given a GPU that torch cannot find.
    """
    from ray.train.torch import get_device

    if not use_gpu:
        return torch.device("cpu")
    found = torch.tensor([float(torch.cuda.is_available())])
    if world > 1:
        _average(None, [found])
    if found.item() < 1:
        raise EngineFailed(
            f"Ray gave each worker a GPU, but torch finds no CUDA device in {1 - found.item():.0%} "
            f"of the {world}; told by {placement}",
            allowed="nodes with a real GPU for each worker and a CUDA build of torch",
            do="install those, start Ray without --num-gpus so that it counts real GPUs alone, or "
            "set engine.use_gpu = false",
        )
    device = torch.device(get_device())
    torch.cuda.set_device(device)
    return device


def _reduction(device: torch.device) -> Callable[[list[Tensor]], None]:
    """How gradients are averaged: by NCCL among GPUs, by gloo otherwise."""
    import torch.distributed as dist

    if device.type != "cuda":
        return partial(_average, None)
    timeout = timedelta(seconds=COLLECTIVE_TIMEOUT)
    return partial(_average, dist.new_group(backend="nccl", timeout=timeout))


def _publish(rank: int, run_folder: Path, watch: Stopwatch) -> Publish:
    from ray.train import Checkpoint, report

    def publish(write: Callable[[Path], Path]) -> Path:
        if rank != 0:
            with watch.timing("report"):
                report({}, checkpoint=None)
            return run_folder
        with tempfile.TemporaryDirectory() as temporary:
            folder = write(Path(temporary))
            metrics = {"images_seen": read_meta(folder).images_seen}
            made = Checkpoint.from_directory(folder)
            with watch.timing("report"):
                report(metrics, made, checkpoint_dir_name=folder.name)
        return run_folder / folder.name

    return publish


def _tell(messages: Any, message: object) -> None:
    try:
        messages.put(message, timeout=5)
    except Exception as error:
        log.warning("the progress could not be told: %s", error)


def _average(group: Any, tensors: list[Tensor]) -> None:
    """Means over the workers, in place, by one all-reduce of all tensors together.

    Args:
        group: torch's process group; None for the one that Ray made.
        tensors: Of one device, dtype and order on all workers.
    """
    import torch.distributed as dist

    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat, group=group)
    flat /= dist.get_world_size()
    for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
