"""Workers that ask for GPUs are placed on logical ones; without CUDA they say so and stop."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_local_engine import toy_config

from fastgan_aug.config import Config, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import ray_train
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.errors import EngineFailed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
]
GPUS = 2


@pytest.fixture
def logical_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real Ray of this test alone, which was told of two GPUs."""
    import ray

    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "120")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need a short path
    try:
        ray.init(
            address="local", num_cpus=2, num_gpus=GPUS, include_dashboard=False,
            log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder,
        )  # fmt: skip
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_each_worker_is_given_a_gpu_of_its_own(
    toy: Dataset, tmp_path: Path, logical_gpus: None, caplog: pytest.LogCaptureFixture
) -> None:
    from ray.util import placement_group_table

    engine = load_config("gpu").engine.model_dump() | {"cpus_per_worker": 0.4}
    assert (engine["use_gpu"], engine["workers"]) == (True, GPUS)
    config = Config.of(toy_config().to_dict() | {"engine": engine})
    job = FitJob(config, training_part(config, toy)[0], tmp_path / "run")
    with caplog.at_level(logging.INFO), pytest.raises(EngineFailed) as refused:
        ray_train.fit(job, lambda seen, losses: None)
    # What the workers themselves found to be theirs, in one start: none was tried again.
    placed = re.findall(r"worker (\d) on \S+ with GPU (\S+)", "\n".join(caplog.messages))
    assert sorted(rank for rank, _ in placed) == ["0", "1"]
    assert sorted(gpu for _, gpu in placed) == ["0", "1"]
    # What Ray reserved for them.
    bundles = [list(group["bundles"].values()) for group in placement_group_table().values()]
    assert [{"CPU": 0.4, "GPU": 1.0}] * GPUS in bundles
    # They do not train on the CPU instead.
    assert "no CUDA device in 100% of the 2" in str(refused.value)
    assert "use_gpu = false" in str(refused.value)
    assert not list(job.folder.glob("images-*"))
