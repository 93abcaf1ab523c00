from __future__ import annotations

from pathlib import Path

import pytest
from toy import make_toy_folder
from typer.testing import CliRunner

from fastgan_aug.cli.data import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError, UnknownFactorValue

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


def test_import_then_describe(tmp_path: Path):
    root, out = make_toy_folder(tmp_path / "toy"), tmp_path / "toy.parquet"
    said = run("import", root, "--factor", "shape", "--size", 32, "--patient", "donor",
               "--z", "slice", "--out", out)  # fmt: skip
    dataset = Dataset.read(out)
    assert dataset.digest in said
    described = run("describe", out, "--per-cell", 2)
    assert all(word in described for word in (dataset.digest, "disc", "ring", "bar", "cross"))
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")


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
    root, out = make_toy_folder(tmp_path / "toy"), tmp_path / "out.parquet"
    with pytest.raises(UnknownFactorValue):
        run("import", root, "--factor", "shape=disc,ring", "--patient", "donor", "--out", out)
    with pytest.raises(DataError):
        run("describe", tmp_path / "missing.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize("command", ["phantom", "import", "describe"])
def test_help_shows_an_example(command: str):
    assert "Example" in run(command, "--help")
