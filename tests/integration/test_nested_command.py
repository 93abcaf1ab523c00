"""The nested command on toy shapes: real generators, killed, given again, told to MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_demo import CONFIG
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.cli.nested import NestedParts, OpenNested
from fastgan_aug.config import load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.mlflow_client import connect, local_uri
from fastgan_aug.errors import ConfigError, LeakageError

pytestmark = pytest.mark.integration
SHORT = 'seeds = [0, 1]\nfolds = 2\narms = ["real", "real + synthetic"]'
QUICK = "[quality]\nsteps = 5\nresplits = 20\n[tracking]"


@pytest.fixture(scope="module")
def folder(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nested")
    toy.write(folder / "toy.parquet")
    text = CONFIG.replace("seeds = [0]", SHORT).replace("[tracking]", QUICK)
    (folder / "toy.toml").write_text(text.replace("images = 640", "images = 320"))
    return folder


def words(folder: Path, *more: str) -> list[str]:
    return [
        "downstream", "--data", str(folder / "toy.parquet"), "--config", str(folder / "toy.toml"),
        "--out", str(folder / "out"), "--workers", "1", "--tracking-uri", local_uri(folder), *more,
    ]  # fmt: skip


def pieces(folder: Path) -> dict[str, int]:
    """Finished pieces, and when each was written."""
    found = (folder / "out" / "pieces").glob("[0-9]*.npz")
    return {path.name: path.stat().st_mtime_ns for path in found}


def kill_within(folder: Path) -> None:
    """Starts the command and kills it, with all that it started, once two pieces are done."""
    command = [sys.executable, "-m", "fastgan_aug.cli.main", *words(folder)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while len(pieces(folder)) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def test_a_plan_a_kill_and_the_same_command_again(folder: Path) -> None:
    told = CliRunner().invoke(app, words(folder, "--dry-run"))
    assert told.exit_code == 0, told.output
    assert "2 generators of 320 images, 2 to do; 8 fits of the classifier, 8 to do" in told.output
    assert "fold 1, test: disc" in told.output
    assert not pieces(folder)

    kill_within(folder)
    before = pieces(folder)
    assert 2 <= len(before) < 8
    generators = {p: p.stat().st_mtime_ns for p in (folder / "out/pieces").glob("fit-*.json")}
    assert len(generators) == 2

    ended = CliRunner().invoke(app, words(folder))
    assert ended.exit_code == 0, ended.output
    after = pieces(folder)
    assert len(after) == 8
    assert before.items() <= after.items(), "a finished piece is not done again"
    assert all(p.stat().st_mtime_ns == then for p, then in generators.items())
    report = json.loads((folder / "out/downstream.json").read_text())
    assert report["folds"] == 2
    assert sum("the gate says FAIL" in note for note in report["notes"]) == 2, "folds are kept"
    donors = set(Dataset.read(folder / "toy.parquet").patients)
    assert not any(donor in (folder / "out/downstream.json").read_text() for donor in donors)


def test_mlflow_has_versions_without_an_alias_and_the_report(folder: Path) -> None:
    client = connect(local_uri(folder))
    model = client.get_registered_model("toy-shapes-folds")
    assert dict(model.aliases) == {}
    versions = client.search_model_versions("name = 'toy-shapes-folds'")
    assert {version.tags["quality"] for version in versions} == {"FAIL"}
    assert len(versions) == 2
    experiment = client.get_experiment_by_name("toy shapes")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = (run for run in runs if run.info.run_name == "toy-shapes-downstream")
    assert "models:/toy-shapes-folds/" in run.data.tags["generators"]
    files = {file.path for file in client.list_artifacts(run.info.run_id, "downstream")}
    assert files == {"downstream/downstream.json", "downstream/downstream.html"}


def test_a_generator_of_another_fold_is_refused(folder: Path) -> None:
    config = load_config(str(folder / "toy.toml"))
    (wrong,) = (folder / "out/fits/fold-1").glob("images-*320")
    parts = NestedParts(folder / "toy.parquet", 0, config)
    tested = parts.fold().test.patients
    with pytest.raises(LeakageError, match="test patients") as refused:
        OpenNested(parts, wrong)()
    assert any(patient in refused.value.what for patient in tested)


def test_other_settings_need_another_folder(folder: Path) -> None:
    text = (folder / "toy.toml").read_text()
    (folder / "toy.toml").write_text(text.replace("steps = 40", "steps = 41"))
    ended = CliRunner().invoke(app, words(folder))
    assert isinstance(ended.exception, ConfigError)
    assert "another experiment" in ended.exception.what
