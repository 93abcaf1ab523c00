"""The nested command on toy shapes: real generators, killed, given again, on Ray, told to MLflow.

One command is killed and goes on, another does the same on Ray workers: everything else looks at
what these two left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from downstream.outcome import Outcome
from fastgan_aug.cli.main import app
from fastgan_aug.cli.nested import NestedParts, OpenNested
from fastgan_aug.config import load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.mlflow_client import connect
from fastgan_aug.errors import ConfigError, LeakageError

pytestmark = pytest.mark.integration
MODEL = "nested-shapes"
# As small as every part of it allows: the questions are what is done when, by whom and how often.
CONFIG = f"""
name = "{MODEL}"
[network]
size = 32
latent = 8
embedding = 8
generator_width = 4
discriminator_width = 4
[training]
images = 64
batch = 16
log_every = 32
checkpoint_every = 64
[tracking]
experiment = "{MODEL}"
model = "{MODEL}"
[quality]
resplits = 20
classifier = false
[downstream]
seeds = [0, 1]
folds = 2
arms = ["real", "real + synthetic"]
steps = 30
width = 8
bootstrap = 100
"""
FITS = 2 * 2 * 2  # folds, arms, seeds


@pytest.fixture(scope="module")
def folder(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nested")
    toy.write(folder / "toy.parquet")
    (folder / "toy.toml").write_text(CONFIG)
    return folder


def words(folder: Path, out: str, *more: str) -> list[str]:
    return [
        "downstream", "--data", str(folder / "toy.parquet"), "--config", str(folder / "toy.toml"),
        "--out", str(folder / out), *more,
    ]  # fmt: skip


def pieces(folder: Path) -> dict[str, int]:
    """Finished pieces, and when each was written."""
    found = (folder / "out" / "pieces").glob("[0-9]*.npz")
    return {path.name: path.stat().st_mtime_ns for path in found}


def generators(out: Path) -> dict[str, str]:
    """Digest of each fold's generator."""
    found = {p.name: json.loads(p.read_text()) for p in (out / "pieces").glob("fit-*.json")}
    return {name: record["checkpoint_digest"] for name, record in found.items()}


def kill_within(folder: Path, *more: str) -> None:
    """Starts the command and kills it, with all that it started, once two pieces are done."""
    command = [sys.executable, "-m", "fastgan_aug.cli.main", *words(folder, "out", *more)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while len(pieces(folder)) < 2 and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture(scope="module")
def finished(folder: Path, mlflow_uri: str) -> Path:
    """A command that was planned, killed, given no time, and given again."""
    told = CliRunner().invoke(app, words(folder, "out", "--dry-run"))
    assert told.exit_code == 0, told.output
    assert f"2 generators of 64 images, 2 to do; {FITS} fits" in told.output
    assert "fold 1, test: disc" in told.output
    assert not (folder / "out").exists()

    tracked = ("--workers", "1", "--tracking-uri", mlflow_uri)
    kill_within(folder, *tracked)
    before = pieces(folder)
    assert 2 <= len(before) < FITS
    fitted = {p: p.stat().st_mtime_ns for p in (folder / "out/pieces").glob("fit-*.json")}
    assert len(fitted) == 2

    ended = CliRunner().invoke(app, words(folder, "out", *tracked, "--budget", "0"))
    assert ended.exit_code == 0, ended.output
    assert f"the budget is spent, {FITS - len(before)} fits are still" in ended.output
    assert pieces(folder) == before, "nothing is begun when the budget is spent"
    assert not (folder / "out/downstream.json").exists(), "no seed is complete"

    ended = CliRunner().invoke(app, words(folder, "out", *tracked))
    assert ended.exit_code == 0, ended.output
    after = pieces(folder)
    assert len(after) == FITS
    assert before.items() <= after.items(), "a finished piece is not done again"
    assert all(p.stat().st_mtime_ns == then for p, then in fitted.items())
    return folder / "out"


def test_the_report_of_a_command_that_was_killed(folder: Path, finished: Path) -> None:
    text = (finished / "downstream.json").read_text()
    report = json.loads(text)
    assert (report["folds"], report["seeds"]) == (2, [0, 1])
    notes = " ".join(report["notes"])
    # Fold 0 tests two of the three crosses: the third is learnt from, and nobody is held back.
    assert "Folds without a validation part: 0 of 2" in notes
    assert "Fold 0: the gate cannot be asked" in notes
    assert "Fold 1: the gate says FAIL" in notes, "the fold is kept"
    assert "3 test patients, fewer than 5: whatever the scores, the verdict is NO EVIDENCE" in notes
    assert not any(p in text for p in Dataset.read(folder / "toy.parquet").patients)


@pytest.mark.slow
def test_ray_workers_find_exactly_the_same(folder: Path, finished: Path) -> None:
    ended = CliRunner().invoke(app, words(folder, "ray", "--ray", "--workers", "2"))
    assert ended.exit_code == 0, ended.output
    assert generators(folder / "ray") == generators(finished)
    here, there = (
        {path.name: Outcome.read(path) for path in (out / "pieces").glob("[0-9]*.npz")}
        for out in (finished, folder / "ray")
    )
    assert len(here) == FITS
    assert here.keys() == there.keys()
    for name, outcome in here.items():
        assert np.array_equal(outcome.validation, there[name].validation)
        assert np.array_equal(outcome.test, there[name].test)
    judged = [
        json.loads((out / "downstream.json").read_text()) for out in (finished, folder / "ray")
    ]
    differences = [j["judgements"][0]["comparisons"][0]["difference"] for j in judged]
    assert differences[0] == differences[1]


def test_mlflow_has_versions_without_an_alias_and_the_report(
    finished: Path, mlflow_uri: str
) -> None:
    client = connect(mlflow_uri)
    assert dict(client.get_registered_model(f"{MODEL}-folds").aliases) == {}
    versions = client.search_model_versions(f"name = '{MODEL}-folds'")
    assert {version.tags["fold"] for version in versions} == {"fold-0", "fold-1"}
    assert [version.tags.get("quality") for version in versions].count("FAIL") == 1
    experiment = client.get_experiment_by_name(MODEL)
    runs = client.search_runs([experiment.experiment_id])
    (run,) = (run for run in runs if run.info.run_name == f"{MODEL}-downstream")
    told = run.data.tags["generators"].split(", ")
    assert sorted(told) == sorted(f"models:/{v.name}/{v.version}" for v in versions)
    assert run.data.tags["usefulness small-cnn"].startswith("NO EVIDENCE: real + synthetic against")
    (judgement,) = json.loads((finished / "downstream.json").read_text())["judgements"]
    (comparison,) = judgement["comparisons"]
    named = "usefulness/small-cnn/{}/real _ synthetic"
    assert run.data.metrics[named.format("gain")] == pytest.approx(
        comparison["difference"]["value"]
    )
    assert run.data.metrics[named.format("verdict")] == 0
    assert run.data.metrics["usefulness/small-cnn/macro_f1/real"] == pytest.approx(
        judgement["arms"][0]["macro_f1"]["value"]
    )
    files = {file.path for file in client.list_artifacts(run.info.run_id, "downstream")}
    assert files == {"downstream/downstream.json", "downstream/downstream.html"}


def test_a_generator_of_another_fold_is_refused(folder: Path, finished: Path) -> None:
    config = load_config(str(folder / "toy.toml"))
    (wrong,) = (finished / "fits/fold-1").glob("images-*64")
    parts = NestedParts(folder / "toy.parquet", 0, config)
    tested = parts.fold().test.patients
    with pytest.raises(LeakageError, match="test patients") as refused:
        OpenNested(parts, wrong)()
    assert any(patient in refused.value.what for patient in tested)


def test_other_settings_need_another_folder(folder: Path, finished: Path) -> None:
    other = folder / "other.toml"
    other.write_text(CONFIG.replace("steps = 30", "steps = 31"))
    command = words(folder, "out", "--workers", "1")
    command[command.index("--config") + 1] = str(other)
    ended = CliRunner().invoke(app, command)
    assert isinstance(ended.exception, ConfigError)
    assert "another experiment" in ended.exception.what
