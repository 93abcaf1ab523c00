from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_local_engine import toy_config

from fastgan_aug.cli.train import _seconds, expected_rest
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import ConfigError

SAMPLE = ("sample", "--counts", "a=1,b=2", "--url", "http://127.0.0.1:9", "--out", "OUT.parquet")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "fastgan_aug.cli.main", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)


def write_toml(config: Config, path: Path) -> Path:
    """The sections that the tests need, as TOML."""
    lines = [f'name = "{config.name}"']
    for section in ("data", "network", "training"):
        lines.append(f"[{section}]")
        for key, value in config.to_dict()[section].items():
            if isinstance(value, bool):
                lines.append(f"{key} = {str(value).lower()}")
            elif isinstance(value, int | float):
                lines.append(f"{key} = {value}")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def files(toy: Dataset, tmp_path: Path) -> tuple[Path, Path]:
    data = tmp_path / "toy.parquet"
    toy.write(data)
    return write_toml(toy_config(images=48), tmp_path / "toy.toml"), data


def test_a_dry_run_tells_configuration_sizes_and_time(files: tuple[Path, Path]) -> None:
    config, data = files
    done = command("train", "--config", str(config), "--data", str(data), "--dry-run")
    assert done.returncode == 0, done.stderr
    for word in (
        '"generator_width": 4',
        "parameters",
        "GFLOP",
        "images/s",
        "expected time",
        "cross",
    ):
        assert word in done.stdout


@pytest.mark.slow
def test_the_papers_dry_run() -> None:
    done = command("train", "--config", "configs/werner2022-a.toml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "21,934,148 parameters" in done.stdout
    assert "6 elements" in done.stdout


def test_a_run_is_kept_tracked_and_not_overwritten(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    config, data = files
    fit = ("train", "--config", str(config), "--data", str(data), "--out", str(tmp_path / "run"))
    done = command(*fit)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "images-000000048" / "meta.json").is_file()
    assert (tmp_path / "run" / "mlflow.db").is_file()
    assert done.stdout.count("selection.validation_fraction") == 1, "it is warned of once"
    assert done.stdout.rstrip().endswith(f"fastgan-aug select {tmp_path / 'run'}")
    again = command(*fit)
    assert again.returncode == 1
    assert "already holds checkpoints" in again.stderr
    assert "--resume" in again.stderr


def test_a_time_is_trained_for(files: tuple[Path, Path], tmp_path: Path) -> None:
    config, data = write_toml(toy_config(images=10**8), tmp_path / "long.toml"), files[1]
    where = ("--config", str(config), "--data", str(data), "--out", str(tmp_path / "run"))
    done = command("train", *where, "--budget", "2s")
    assert done.returncode == 0, done.stderr
    assert "the budget of time ended it" in done.stdout


def test_a_dry_run_tells_what_a_time_gives(files: tuple[Path, Path]) -> None:
    config, data = files
    dry = ("train", "--config", str(config), "--data", str(data), "--dry-run")
    by_images = command(*dry, "--budget", "2h")
    assert "48, ended by the images" in by_images.stdout, by_images.stderr


@pytest.mark.parametrize("budget", ["10", "ten", "0s", "-5m", "0.5s", "10 min", "nan", "1d"])
def test_a_budget_that_is_no_time_is_refused(budget: str) -> None:
    with pytest.raises(ConfigError, match="no time to train for"):
        _seconds(budget)


def test_times_are_read_in_their_units() -> None:
    times = ("90s", "10m", "1.5h", None)
    assert [_seconds(time) for time in times] == [90, 600, 5400, None]


def test_the_rest_is_bounded_by_images_and_by_time() -> None:
    points = [(100, 10.0), (200, 30.0)]  # 5 images/s with checkpoints, 10 without
    curve = [{"images_seen": n, "seconds": s, "images_per_second": 10.0} for n, s in points]
    assert expected_rest(50, None, curve) == (10.0, 0.2)
    assert expected_rest(50, 34.0, curve) == (4.0, 0.2)
    assert expected_rest(50, 20.0, curve) == (0.0, 0.2)
    assert expected_rest(50, None, curve[:1]) == (5.0, 0.1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--config", "nowhere"), "config-invalid"),
        (("train", "--data", "nowhere.parquet"), "data-invalid"),
        (SAMPLE, "service-unavailable"),
        (("demo", "--data", "nowhere.parquet", "--out", "OUT"), "data-invalid"),
    ],
)
def test_an_expected_error_is_one_message(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = command(*(a.replace("OUT", str(tmp_path / "out")) for a in arguments))
    assert done.returncode == 1
    assert said in done.stderr
    assert "what to do" in done.stderr
    assert "Traceback" not in done.stderr
