from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli_train import command, write_toml
from test_local_engine import toy_config

from fastgan_aug.cli.reproduce import resolve
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.reproduce import Plan, fit_digest, start
from fastgan_aug.errors import ConfigError


def pair(**training: object) -> dict[str, Config]:
    """A on all shapes, B on two of them."""
    values = toy_config(**training).to_dict()
    values["data"]["test_fraction"] = 0.0
    restricted = {**values, "data": {**values["data"], "keep": {"shape": ["disc", "ring"]}}}
    return {"A": Config.of(values), "B": Config.of(restricted)}


def test_budgets_name_presets_that_differ_in_their_slices_alone() -> None:
    for budget in ("quick", "full"):
        a, b = resolve(budget, None, None)
        assert a.network == b.network
        assert a.augment == b.augment
        assert a.augment.neighbour_mean
        assert b.data.keep
        assert not a.data.keep
    quick = resolve("quick", None, None)
    assert quick[0].training == quick[1].training
    assert [c.training.images for c in resolve("1200", None, None)] == [1200, 1200]


@pytest.mark.parametrize("budget", ["slow", "0", "-4", "1.5"])
def test_a_bad_budget_says_what_is_allowed(budget: str) -> None:
    with pytest.raises(ConfigError, match="quick, full, or a number"):
        resolve(budget, None, None)


def test_a_dry_run_tells_the_time_and_makes_nothing(toy: Dataset, tmp_path: Path) -> None:
    toy.write(tmp_path / "toy.parquet")
    values = pair()["A"].to_dict()
    config = write_toml(Config.of(values), tmp_path / "tiny.toml")
    done = command(
        "reproduce", "--budget", "64", "--data", str(tmp_path / "toy.parquet"), "--out",
        str(tmp_path / "out"), "--config-a", str(config), "--config-b", str(config), "--dry-run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "64 images at" in done.stdout
    assert "in all" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_folder_holds_one_comparison(toy: Dataset, tmp_path: Path) -> None:
    plan = Plan(pair(), tmp_path / "toy.parquet", tmp_path / "out", 1, "64")
    start(plan, toy)
    start(plan, toy)
    start(Plan(plan.configs, plan.data, plan.out, 2, "64"), toy)  # more seeds add to it
    for other in (
        Plan(pair(images=64), plan.data, plan.out, 1, "64"),
        Plan(plan.configs, plan.data, plan.out, 1, "quick"),
    ):
        with pytest.raises(ConfigError, match="another comparison"):
            start(other, toy)
    with pytest.raises(ConfigError, match="dataset_digest"):
        start(plan, toy.of_patients(toy.patients[3:]))
    assert json.loads((plan.out / "plan.json").read_text())["seeds"] == 2


def test_test_patients_are_refused(toy: Dataset, tmp_path: Path) -> None:
    plan = Plan({"A": toy_config(), "B": toy_config()}, tmp_path / "x", tmp_path, 1, "64")
    with pytest.raises(ConfigError, match="test_fraction = 0"):
        start(plan, toy)


def test_seeds_decide_fits_and_engines_do_not() -> None:
    config = pair()["A"]
    plan = Plan({"A": config, "B": config}, Path("d"), Path("o"), 2, "64")
    assert [(p.key, p.config.training.seed) for p in plan.fits] == [
        ("A-0", 0), ("B-0", 0), ("A-1", 1), ("B-1", 1),
    ]  # fmt: skip
    values = config.to_dict()
    values["engine"]["kind"] = "ray"
    assert fit_digest(Config.of(values)) == fit_digest(config)
    assert fit_digest(plan.fits[2].config) != fit_digest(config)
