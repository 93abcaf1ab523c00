from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli_train import command
from test_local_engine import toy_config

from fastgan_aug.config import SelectionConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.scoring import SCORES, read_scores
from fastgan_aug.quality.selection import ranked


@pytest.fixture(scope="module")
def run(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("select") / "run"
    config = toy_config()
    local.fit(FitJob(config, training_part(config, toy)[0], folder), lambda seen, values: None)
    return folder


def test_it_ranks_with_reasons_and_says_what_to_register(run: Path) -> None:
    done = command("select", str(run))
    assert done.returncode == 0, done.stderr
    best = ranked([s for s in read_scores(run) if s.images_seen > 32])[0]
    lines = done.stdout.splitlines()
    assert lines[2].split()[0] == f"{best.images_seen:,}"
    assert f"register {run}/images-{best.images_seen:09d}" in done.stdout.replace("\n", "")
    said = done.stdout.replace("\n", " ")
    assert said.count("selection.validation_fraction") == 1
    assert said.startswith("warning ")


def test_a_run_with_validation_patients_is_not_warned_of(
    run: Path, toy: Dataset, tmp_path: Path
) -> None:
    config = toy_config().model_copy(update={"selection": SelectionConfig(validation_fraction=0.4)})
    local.fit(FitJob(config, training_part(config, toy)[0], tmp_path), lambda seen, values: None)
    done = command("select", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    scored = {cell.cell for cell in read_scores(tmp_path)[0].cells}
    left_out = sorted({str(cell) for cell in toy.meta.space.cells} - scored)
    assert ("Not in the score" in done.stdout) is bool(left_out)
    assert all(cell in done.stdout for cell in left_out)
    assert "validation patients" in done.stdout


def test_top_shows_no_more(run: Path) -> None:
    done = command("select", str(run), "--top", "1")
    assert len([x for x in done.stdout.splitlines() if x.strip()[:2] in ("64", "96")]) == 1


def test_a_run_without_scores_is_scored_when_its_data_are_given(
    run: Path, toy: Dataset, tmp_path: Path
) -> None:
    before = (run / SCORES).read_text()
    (run / SCORES).unlink()
    done = command("select", str(run))
    assert done.returncode == 1
    assert "--data" in done.stderr
    toy.write(tmp_path / "toy.parquet")
    done = command("select", str(run), "--data", str(tmp_path / "toy.parquet"))
    assert done.returncode == 0, done.stderr
    assert json.loads((run / SCORES).read_text()) == json.loads(before)[-2:]


def test_a_folder_without_checkpoints_is_one_message(tmp_path: Path) -> None:
    done = command("select", str(tmp_path))
    assert done.returncode == 1
    assert "checkpoint-invalid" in done.stderr
    assert "Traceback" not in done.stderr
