from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgan_aug.cli.data import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError

CONFIG = """
[phantom]
patients = 3
[phantom.counts]
"BG/normal" = 3
"COR/unilateral" = 2
"""


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_describe_tells_the_digest_and_the_cells(toy: Dataset, tmp_path: Path):
    toy.write(tmp_path / "toy.parquet")
    described = run("describe", tmp_path / "toy.parquet", "--per-cell", 2)
    assert all(word in described for word in (toy.digest, "disc", "ring", "bar", "cross"))
    assert "<h2>Counts</h2>" in (tmp_path / "toy.html").read_text()


def test_phantom_follows_configuration_and_seed(tmp_path: Path):
    (tmp_path / "few.toml").write_text(CONFIG)
    for seed in (0, 1):
        run("phantom", "--config", tmp_path / "few.toml", "--seed", seed,
            "--out", tmp_path / f"{seed}.parquet")  # fmt: skip
    first, second = (Dataset.read(tmp_path / f"{seed}.parquet") for seed in (0, 1))
    assert first.digest != second.digest
    assert {str(c): n for c, n in first.class_counts.items() if n} == {
        "BG/normal": 3,
        "COR/unilateral": 2,
    }


def test_bad_input_raises_its_own_error_and_writes_nothing(tmp_path: Path):
    with pytest.raises(DataError):
        run("describe", tmp_path / "missing.parquet")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["phantom", "import", "describe"])
def test_help_shows_an_example(command: str):
    assert "Example" in run(command, "--help")
