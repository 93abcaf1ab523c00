from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli_train import command, write_toml
from test_local_engine import toy_config
from test_validate import columns, make
from typer.testing import CliRunner

from fastgan_aug.cli.data import app
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.job import FitJob
from fastgan_aug.errors import InvalidDataset


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["validate", *map(str, words)], catch_exceptions=False)
    return result.exit_code, result.output


def spoilt() -> Dataset:
    """A slice under two patients."""
    c = columns()
    c["images"][24] = np.round(c["images"][0] * 255) / 255
    return make(**c)


def test_the_table_tells_what_and_the_exit_code_whether(tmp_path: Path):
    make().write(tmp_path / "good.parquet")
    assert run(tmp_path / "good.parquet") == (0, "Nothing to report: the data can be fitted.\n")
    spoilt().write(tmp_path / "bad.parquet")
    code, said = run(tmp_path / "bad.parquet")
    assert code == 1
    assert "row 0 and row 24" in " ".join(said.split())
    assert "1 error, 0 warnings, 0 notes: errors block a fit" in said


def test_json_holds_every_field(tmp_path: Path):
    spoilt().write(tmp_path / "bad.parquet")
    code, said = run(tmp_path / "bad.parquet", "--json")
    assert code == 1
    (finding,) = json.loads(said)
    assert set(finding) == {"severity", "code", "where", "what", "advice"}
    assert finding["code"] == "copy-across-patients"


def test_several_data_sets_are_sides_of_a_split(tmp_path: Path):
    dataset = make()
    for name, patients in (("one", range(10)), ("two", range(9, 12))):
        dataset.of_patients([f"p{p}" for p in patients]).write(tmp_path / f"{name}.parquet")
    code, said = run(tmp_path / "one.parquet", tmp_path / "two.parquet", "--json")
    assert code == 1
    errors = {f["code"] for f in json.loads(said) if f["severity"] == "error"}
    assert errors == {"patient-on-both-sides", "copy-on-both-sides"}


def test_no_fit_starts_on_errors(tmp_path: Path):
    config = Config.of(toy_config(images=16).to_dict() | {"augment": {}})
    with pytest.raises(InvalidDataset, match="two patients"):
        FitJob(config, spoilt(), tmp_path / "run").check()
    spoilt().write(tmp_path / "bad.parquet")
    toml = write_toml(config, tmp_path / "toy.toml")
    done = command("train", "--config", str(toml), "--data", str(tmp_path / "bad.parquet"),
                   "--out", str(tmp_path / "run"))  # fmt: skip
    assert done.returncode == 1
    assert "dataset-invalid" in done.stderr
    assert not (tmp_path / "run").exists()
