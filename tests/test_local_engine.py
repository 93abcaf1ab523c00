from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.start import check_same_fit
from fastgan_aug.errors import CheckpointError, ConfigError, EngineFailed, TrainingDiverged
from fastgan_aug.gan.checkpoint import checkpoints, read_meta


def toy_config(**training: object) -> Config:
    return Config.of(
        {
            "name": "toy",
            "data": {"test_fraction": 0.3},
            "network": {
                "size": 32, "latent": 8, "embedding": 16, "generator_width": 4,
                "discriminator_width": 4,
            },
            "training": {
                "images": 96, "batch": 8, "log_every": 16, "checkpoint_every": 32,
                "ema_half_life": 50, "keep": 2, **training,
            },
            "augment": {"flip": {"shape": ["disc", "ring"]}},
            "selection": {"samples": 4, "best": 0},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def job(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FitJob:
    config = toy_config()
    train, _ = training_part(config, toy)
    return FitJob(config, train, tmp_path_factory.mktemp("fit") / "run")


@pytest.fixture(scope="module")
def whole(job: FitJob) -> Path:
    return local.fit(job, lambda seen, values: None).checkpoint


def test_a_fit_leaves_the_newest_checkpoints_with_their_lineage(job: FitJob, whole: Path) -> None:
    assert [p.name for p in checkpoints(job.folder)] == ["images-000000064", "images-000000096"]
    lineage = read_meta(whole).lineage
    assert lineage.dataset_digest == job.dataset.digest
    assert lineage.config_digest == job.config.digest
    assert lineage.class_counts == {str(c): n for c, n in job.dataset.class_counts.items()}
    assert lineage.pseudonym_key == job.dataset.meta.pseudonym_key
    assert lineage.grouping == job.dataset.meta.grouping
    assert not any(patient in str(lineage) for patient in job.dataset.patients)


def test_a_stopped_run_continues_to_the_same_weights(
    job: FitJob, whole: Path, tmp_path: Path
) -> None:
    short = replace(job, folder=tmp_path / "run", config=toy_config(images=40))
    local.fit(short, lambda seen, values: None)
    seen: list[int] = []
    resumed = replace(job, folder=short.folder, resume=True)
    result = local.fit(resumed, lambda images, values: seen.append(images))
    assert seen[0] > 40
    for name in ("generator.safetensors", "state.safetensors"):
        ours, theirs = load_file(result.checkpoint / name), load_file(whole / name)
        assert all(torch.equal(ours[k], theirs[k]) for k in theirs), name


def test_a_run_is_not_overwritten(job: FitJob, whole: Path) -> None:
    with pytest.raises(CheckpointError, match="--resume"):
        local.fit(job, lambda seen, values: None)


def test_networks_of_another_size_are_refused_before_anything_starts(
    job: FitJob, tmp_path: Path
) -> None:
    values = job.config.to_dict()
    values["network"]["size"] = 64
    other = replace(job, config=Config.of(values), folder=tmp_path / "run")
    with pytest.raises(ConfigError, match="but the slices are 32 x 32"):
        local.fit(other, lambda seen, values: None)
    assert not other.folder.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_silently(job: FitJob, tmp_path: Path) -> None:
    values = job.config.to_dict()
    values["engine"]["use_gpu"] = True
    with pytest.raises(EngineFailed, match="no CUDA device"):
        local.fit(
            replace(job, config=Config.of(values), folder=tmp_path / "run"),
            lambda seen, values: None,
        )


@pytest.mark.parametrize("change", [{"seed": 5}, {"generator_learning_rate": 1e-3}, {"batch": 16}])
def test_another_fit_is_not_continued(job: FitJob, whole: Path, change: dict[str, object]) -> None:
    other = replace(job, config=toy_config(images=200, **change), resume=True)
    with pytest.raises(CheckpointError, match="another fit"):
        local.fit(other, lambda seen, values: None)


def test_a_field_that_an_older_run_did_not_have_counts_as_its_default(whole: Path) -> None:
    lineage = read_meta(whole).lineage
    config = json.loads(json.dumps(lineage.config))
    del config["network"]["appearance"], config["training"]["appearance_weight"]
    del config["network"]["projection"], config["training"]["transition"]
    check_same_fit(replace(lineage, config=config), lineage)
    config["training"]["seed"] += 1
    with pytest.raises(CheckpointError, match=r"training\.seed differ"):
        check_same_fit(replace(lineage, config=config), lineage)


def test_divergence_keeps_the_last_good_checkpoint(job: FitJob, tmp_path: Path) -> None:
    good = replace(job, folder=tmp_path / "run", config=toy_config(images=32))
    local.fit(good, lambda seen, values: None)
    wild = replace(job, folder=good.folder, resume=True, config=toy_config(loss_limit=1e-9))
    with pytest.raises(CheckpointError, match="loss_limit"):
        local.fit(wild, lambda seen, values: None)
    fresh = replace(wild, folder=tmp_path / "other", resume=False)
    with pytest.raises(TrainingDiverged, match="finite and at most"):
        local.fit(fresh, lambda seen, values: None)
    assert checkpoints(fresh.folder) == []
    assert [p.name for p in checkpoints(good.folder)] == ["images-000000032"]
    read_meta(checkpoints(good.folder)[0])
