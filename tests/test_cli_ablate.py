from __future__ import annotations

from pathlib import Path

import pytest
from test_cli_train import command
from toy_ablation import write_toy_ablation

from fastgan_aug.cli.ablate import resolve
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import ConfigError


@pytest.fixture(scope="module")
def table(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_ablation(tmp_path_factory.mktemp("ablate"), toy)


def test_a_dry_run_tells_plan_and_time_and_makes_nothing(table: Path, tmp_path: Path) -> None:
    done = command(
        "ablate", str(table), "--data", str(table.parent / "toy.parquet"), "--out",
        str(tmp_path / "out"), "--seeds", "0,3", "--images", "640", "--dry-run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for word in (
        "no-average: training.ema_half_life = 0",
        "images/s",
        "3 variants x seeds 0, 3 = 6 runs of 640 images each, 6 of them still to do: about",
    ):
        assert word in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_command_line_counts_before_the_file(table: Path) -> None:
    own = resolve(str(table), None, None, [])
    assert (own.images, list(own.seeds), len(own.variants)) == (64, [0], 3)
    said = resolve(str(table), 32, "2, 5", ["no-average"])
    assert (said.images, said.seeds) == (32, [2, 5])
    assert [v.name for v in said.variants] == ["no-average"]


@pytest.mark.parametrize("seeds", ["", "a", "1,,2", "-1", "1.5", "1,1"])
def test_bad_seeds_say_what_is_allowed(table: Path, seeds: str) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        resolve(str(table), None, seeds, [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--images", "64", "--minutes", "1"), "both --images and --minutes"),
        (("--only", "nothing"), "there is no variant nothing"),
        (("--data", "nowhere.parquet"), "data-invalid"),
    ],
)
def test_an_expected_error_is_one_message(
    table: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = command("ablate", str(table), "--out", str(tmp_path / "out"), *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert "what to do" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_help_shows_how() -> None:
    done = command("ablate", "--help")
    assert done.returncode == 0
    assert "fastgan-aug ablate configs/ablation.toml --dry-run" in done.stdout
