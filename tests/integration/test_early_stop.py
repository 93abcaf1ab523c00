"""Rank 0 alone scores; all workers leave the loop at the same step."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_local_engine import toy_config

from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import ray_train
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.ray_cluster import ray_cluster
from fastgan_aug.engines.scoring import read_scores
from fastgan_aug.gan.checkpoint import checkpoint_name, checkpoints
from fastgan_aug.quality.selection import exhausted, ranked

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.mark.slow
def test_two_workers_end_together_and_the_best_is_kept(toy: Dataset, tmp_path: Path) -> None:
    values = toy_config(images=9_600, keep=1).to_dict()
    values["engine"] |= {"kind": "ray", "workers": 2, "cpus_per_worker": 0.4}
    values["training"] |= {
        "generator_learning_rate": 1e-13, "discriminator_learning_rate": 1e-13,
    }  # fmt: skip
    values["selection"] |= {"patience": 2, "best": 1, "validation_fraction": 0.3}
    config = Config.of(values)
    job = FitJob(config, training_part(config, toy)[0], tmp_path / "run")
    with ray_cluster(timeout=180):
        result = ray_train.fit(job, lambda seen, losses: None)
    scores = read_scores(job.folder)
    assert exhausted(scores, 2)
    assert scores[-1].images_seen < 1_000
    assert {s.reference for s in scores} == {"validation"}
    names = [checkpoint_name(s.images_seen) for s in (ranked(scores)[0], scores[-1])]
    assert [p.name for p in checkpoints(job.folder)] == names
    assert result.checkpoint.name == names[-1]
