"""The Ray engine on real Ray Train workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from test_local_engine import toy_config

from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local, ray_train
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.ray_cluster import ray_cluster
from fastgan_aug.engines.stopwatch import RunTimes
from fastgan_aug.errors import StorageError, TrainingDiverged
from fastgan_aug.gan.checkpoint import checkpoint_name, checkpoints
from fastgan_aug.gan.step import new_state

pytestmark = pytest.mark.integration


def ray_config(workers: int, **training: object) -> Config:
    values = toy_config(**training).to_dict()
    values["engine"] |= {"kind": "ray", "workers": workers, "cpus_per_worker": 0.4}
    return Config.of(values)


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with ray_cluster(timeout=180):
        yield


@pytest.fixture(scope="module")
def train_part(toy: Dataset) -> Dataset:
    return training_part(toy_config(), toy)[0]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(checkpoint / "state.safetensors"))


def nothing(images_seen: int, values: Mapping[str, float]) -> None:
    pass


def test_one_worker_gives_the_local_engines_weights(train_part: Dataset, tmp_path: Path) -> None:
    seen: list[int] = []
    ours = ray_train.fit(
        FitJob(ray_config(1), train_part, tmp_path / "ray"), lambda n, values: seen.append(n)
    )
    theirs = local.fit(FitJob(toy_config(), train_part, tmp_path / "local"), nothing)
    assert seen == [16, 32, 48, 64, 80, 96]
    assert [p.name for p in checkpoints(tmp_path / "ray")] == [
        p.name for p in checkpoints(tmp_path / "local")
    ]
    expected = weights(theirs.checkpoint)
    for name, tensor in weights(ours.checkpoint).items():
        assert torch.equal(tensor, expected[name]), name


def test_two_workers_survive_the_loss_of_one(train_part: Dataset, tmp_path: Path) -> None:
    killed: list[int] = []
    seen: list[int] = []
    before: list[int] = []

    def kill_one(images_seen: int, values: Mapping[str, float]) -> None:
        seen.append(images_seen)
        if images_seen >= 48 and not killed:
            children = psutil.Process().children(recursive=True)
            workers = [p for p in children if "RayTrainWorker" in " ".join(p.cmdline())]
            killed.append(workers[-1].pid)
            before.extend(seen)
            os.kill(workers[-1].pid, signal.SIGKILL)

    config = ray_config(2, images=160)
    result = ray_train.fit(FitJob(config, train_part, tmp_path / "two"), kill_one)
    assert killed
    assert result.checkpoint.name == "images-000000160"
    undisturbed = ray_train.fit(FitJob(config, train_part, tmp_path / "calm"), nothing)
    # Batch-norm statistics are each worker's own, and those of rank 0 restart both: so close,
    # not equal.
    name = "generator.embed.weight"
    ours, theirs = weights(result.checkpoint)[name], weights(undisturbed.checkpoint)[name]
    start = new_state(config.network, config.training, 4, torch.device("cpu"))
    moved = (theirs - start.generator.embed.weight.detach()).abs().max()
    assert float((ours - theirs).abs().max()) < 0.1 * float(moved)
    after = seen[len(before) :]
    assert min(after) > 32, "it continued from the checkpoint at 32, not from the start"


@pytest.mark.slow
def test_two_workers_train_for_a_time(train_part: Dataset, tmp_path: Path) -> None:
    told: list[float] = []
    config = ray_config(2, images=10**9, log_every=10**6, checkpoint_every=10**6)
    job = FitJob(config, train_part, tmp_path / "run", seconds=6.0)
    result = ray_train.fit(job, lambda n, values: told.append(values["seconds"]))
    assert checkpoints(job.folder) == [result.checkpoint], "the one at the end, off the schedule"
    run = RunTimes.read(job.folder)
    assert result.checkpoint.name == checkpoint_name(run.last.images_seen)
    assert 5.5 < told[-1] < 8.0
    assert 0 < run.start < 120
    assert run.last.checkpoint > 0
    assert 0 < run.last.report < run.last.seconds
    assert run.last.seconds >= told[-1] + run.last.checkpoint + run.last.report - 0.01


def test_divergence_reaches_the_caller_and_is_not_retried(
    train_part: Dataset, tmp_path: Path
) -> None:
    job = FitJob(ray_config(1, loss_limit=1e-9), train_part, tmp_path / "wild")
    with pytest.raises(TrainingDiverged, match="finite and at most"):
        ray_train.fit(replace(job), nothing)
    assert checkpoints(job.folder) == []


@pytest.mark.slow
def test_a_run_goes_on_under_another_engine(train_part: Dataset, tmp_path: Path) -> None:
    """Ray's own list of checkpoints is out of date after the local engine went on."""
    folder = tmp_path / "run"
    ray_train.fit(FitJob(ray_config(1, images=32), train_part, folder), nothing)
    local.fit(FitJob(toy_config(images=64), train_part, folder, resume=True), nothing)
    (folder / "images-000000032").rename(tmp_path / "pruned")
    result = ray_train.fit(FitJob(ray_config(1), train_part, folder, resume=True), nothing)
    whole = local.fit(FitJob(toy_config(), train_part, tmp_path / "whole"), nothing)
    ours, expected = weights(result.checkpoint), weights(whole.checkpoint)
    assert all(torch.equal(ours[k], expected[k]) for k in expected)


@pytest.mark.slow
def test_an_error_of_one_worker_alone_reaches_the_caller(
    train_part: Dataset, tmp_path: Path
) -> None:
    """Rank 0 cannot write its spool; the other worker must not wait for it."""
    values = ray_config(2).to_dict()
    values["engine"]["max_failures"] = 0
    job = FitJob(Config.of(values), train_part, tmp_path / "run", tracking_uri="sqlite:///x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tracking").write_text("a file where the spool's folder belongs")
    with pytest.raises(StorageError):
        ray_train.fit(job, nothing)
