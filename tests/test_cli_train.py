from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from test_local_engine import toy_config

from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset

SAMPLE = ("sample", "--counts", "a=1,b=2", "--url", "http://127.0.0.1:9", "--out", "OUT")


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
    done = command(*(str(tmp_path / "out") if a == "OUT" else a for a in arguments))
    assert done.returncode == 1
    assert said in done.stderr
    assert "what to do" in done.stderr
    assert "Traceback" not in done.stderr
