from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import toy_dataset
from toy_ablation import write_toy_ablation

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.ablate import Plan, by_pattern, read_few, run_trial, start
from fastgan_aug.errors import ConfigError, DataError, LeakageError
from fastgan_aug.variants import read_ablation


@pytest.fixture(scope="module")
def plan(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("ablate")
    ablation = read_ablation(str(write_toy_ablation(folder, toy)))
    return Plan(ablation, folder / "toy.parquet", None, folder / "out")


@pytest.fixture(scope="module")
def done(plan: Plan) -> dict[str, Any]:
    """The first variant's run."""
    start(plan)
    return run_trial(plan.trials[0])


def other(plan: Plan, **changes: Any) -> Plan:
    return replace(plan, **changes)


def test_the_variants_of_a_seed_come_one_after_the_other(plan: Plan) -> None:
    trials = other(plan, ablation=replace(plan.ablation, seeds=[4, 2])).trials
    assert [t.key for t in trials[:4]] == [
        "default-seed4", "no-average-seed4", "diverging-seed4", "default-seed2",
    ]  # fmt: skip
    assert [t.config.training.seed for t in trials] == [4, 4, 4, 2, 2, 2]
    assert {t.config.training.images for t in trials} == {64}


def test_a_run_says_what_it_rests_on_and_leaves_no_checkpoint(
    plan: Plan, done: dict[str, Any]
) -> None:
    trial = plan.trials[0]
    assert json.loads(trial.result_path.read_text(encoding="utf-8")) == done
    train, holdout = trial.sides()
    assert (done["dataset_digest"], done["holdout_digest"]) == (train.digest, holdout.digest)
    assert not set(train.patients) & set(holdout.patients)
    assert (done["images"], done["images_reached"], done["budget_images"]) == (64, 64, 64)
    assert done["seconds"] > 0
    assert set(done["metrics"]["kid/fixed"]) == {"overall", "disc", "ring", "bar", "cross"}
    assert 0 < len(done["verdict"]["failures"]) <= done["verdict"]["answers"]
    assert not trial.folder.exists()
    few = read_few(trial.samples_path)
    assert few is not None
    assert few.shape == (16, 32, 32)
    assert not any(patient in str(done) for patient in (*train.patients, *holdout.patients))


def test_a_finished_run_is_not_done_again(plan: Plan, done: dict[str, Any]) -> None:
    before = plan.trials[0].result_path.stat().st_mtime_ns
    assert run_trial(plan.trials[0]) == done
    assert plan.trials[0].result_path.stat().st_mtime_ns == before
    start(plan)


@pytest.mark.parametrize("change", ["budget", "minutes", "data", "variant"])
def test_a_finished_run_of_another_plan_is_refused(
    plan: Plan, done: dict[str, Any], toy: Dataset, tmp_path: Path, change: str
) -> None:
    ablation = plan.ablation
    if change == "budget":
        changed = other(plan, ablation=replace(ablation, images=96))
    elif change == "minutes":
        changed = other(plan, seconds=60.0)
    elif change == "data":
        toy.of_patients(toy.patients[2:]).write(tmp_path / "less.parquet")
        changed = other(plan, data=tmp_path / "less.parquet")
    else:
        first = replace(ablation.variants[1], name="default")
        changed = other(plan, ablation=replace(ablation, variants=[first]))
    with pytest.raises(ConfigError, match="of another run"):
        start(changed)


def test_a_field_that_came_later_counts_as_its_default(plan: Plan, done: dict[str, Any]) -> None:
    trial = plan.trials[0]
    record = json.loads(json.dumps(done))
    digests = {"dataset_digest": done["dataset_digest"]}
    assert trial.same_as(record, digests) == []
    del record["config"]["training"]["loss_limit"]  # as written before there was such a field
    assert trial.same_as(record, digests) == []
    assert plan.trials[2].same_as(record, digests) == ["the configuration"]
    record["config"]["training"]["gone"] = 1
    assert trial.same_as(record, digests) == ["the configuration"]


def test_a_run_that_diverges_says_so(plan: Plan) -> None:
    record = run_trial(plan.trials[2])
    assert "loss" in record["diverged"]
    assert record["verdict"] is None
    assert record["metrics"] == {}
    assert run_trial(plan.trials[2]) == record


def test_a_hold_out_of_other_patients_takes_no_slice_away(
    plan: Plan, toy: Dataset, tmp_path: Path
) -> None:
    fresh = toy_dataset(tmp_path, seed=1)
    fresh.write(tmp_path / "fresh.parquet")
    with pytest.raises(LeakageError):  # the toy's donors have the same names whatever the seed
        start(other(plan, against=tmp_path / "fresh.parquet", out=tmp_path / "out"))
    first, second = toy.patients[:20], toy.patients[20:]
    toy.of_patients(first).write(tmp_path / "one.parquet")
    toy.of_patients(second).write(tmp_path / "two.parquet")
    split = other(plan, data=tmp_path / "one.parquet", against=tmp_path / "two.parquet",
                  out=tmp_path / "out")  # fmt: skip
    train, holdout = split.trials[0].sides()
    assert set(train.patients) == set(first)
    assert set(holdout.patients) == set(second)
    start(split)


def test_what_does_not_fit_the_data_is_said_before_anything_runs(
    plan: Plan, small_phantom: Dataset, tmp_path: Path
) -> None:
    small_phantom.write(tmp_path / "phantom.parquet")
    with pytest.raises(ConfigError, match=r"network\.size"):
        start(other(plan, data=tmp_path / "phantom.parquet", out=tmp_path / "out"))
    with pytest.raises(DataError, match="differ in their cells"):
        start(other(plan, against=tmp_path / "phantom.parquet", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_minutes_end_a_run_at_a_step(plan: Plan, tmp_path: Path) -> None:
    ablation = replace(plan.ablation, variants=plan.ablation.variants[:1])
    (trial,) = other(plan, ablation=ablation, seconds=0.2, out=tmp_path, keep=True).trials
    record = run_trial(trial)
    batch = trial.config.training.batch
    assert record["images"] % batch == 0
    assert 0 < record["images"] < trial.config.training.images
    assert record["budget_images"] is None
    assert 0 < trial.part(trial.told)[0] <= trial.part(trial.told)[1] == 0.2
    assert f"images-{record['images']:09d}" in [p.name for p in trial.folder.glob("images-*")]


def test_a_few_of_each_value_in_the_factors_order() -> None:
    cells = ["b/y", "a/x", "b/x", *["a/y"] * 30]
    rows = by_pattern(cells, ["x", "y", "z"])
    assert [cells[i].rpartition("/")[2] for i in rows] == ["x"] * 4 + ["y"] * 4
    assert {cells[i] for i in rows} == {"a/x", "b/x", "a/y", "b/y"}
    assert rows.dtype == np.int64
