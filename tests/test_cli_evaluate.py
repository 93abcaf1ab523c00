"""`fastgan-aug evaluate` on a generator fitted for a moment, without MLflow."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_local_engine import toy_config
from typer.testing import CliRunner, Result

from fastgan_aug.cli.evaluate import split_by_sight
from fastgan_aug.cli.main import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import UNGROUPED
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.errors import (
    CheckpointError,
    DataError,
    FastGANAugError,
    LeakageError,
    PseudonymKeysDiffer,
)
from fastgan_aug.gan.checkpoint import read_meta
from fastgan_aug.quality.plain_words import ADVICE
from fastgan_aug.quality.report import QualityReport


@pytest.fixture(scope="module")
def checkpoint(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = toy_config(images=48)
    train, _ = training_part(config, toy)
    folder = tmp_path_factory.mktemp("fit") / "run"
    return local.fit(FitJob(config, train, folder), lambda seen, values: None).checkpoint


@pytest.fixture(scope="module")
def data(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    toy.write(path)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def judged(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("judged") / "report"
    result = call(checkpoint, data, "--no-classifier", "--out", out)
    assert result.exit_code == 0, result.output
    assert "FAIL" in result.output
    assert "Likeness: " in result.output
    return out


def test_a_report_and_its_page_are_written(judged: Path, checkpoint: Path, toy: Dataset) -> None:
    assert sorted(p.name for p in judged.iterdir()) == ["report.html", "report.json"]
    report = QualityReport.read(judged / "report.json")
    meta = read_meta(checkpoint)
    assert report.provenance["checkpoint"] == meta.digest
    assert report.provenance["config"] == meta.lineage.config_digest
    assert report.provenance["train"] == report.provenance["trained_on"]
    assert report.provenance["images_seen"] == 48
    assert not report.verdict.passed


def test_the_page_stands_alone_and_names_nobody(judged: Path, toy: Dataset) -> None:
    page = (judged / "report.html").read_text(encoding="utf-8")
    text = page + (judged / "report.json").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)
    assert not [name for name in (*toy.patients, *toy.patient_digests) if name in text]
    for words in ("FAIL", "What was found", "Closest pairs", "How it was made", "disc", "cross"):
        assert words in page
    assert "nan" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)


def test_the_same_command_gives_the_same_report(
    judged: Path, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    result = call(checkpoint, data, "--no-classifier", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for name in ("report.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (judged / name).read_bytes()


def test_the_gate_is_the_models_own_or_that_of_a_configuration(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "lenient.toml"
    rule = '[quality]\nresplits = 20\n[[quality.gate]]\nmetric = "kid"\nat_most = 1e9\n'
    config.write_text(rule)
    strict = call(checkpoint, data, "--no-classifier", "--config", config, "--out", tmp_path)
    assert "FAIL" in strict.output
    assert "Could not be judged in cross: too few patients" in strict.output
    assert "--override" in strict.output
    page = (tmp_path / "report.html").read_text()
    assert "too few patients" in page
    assert ADVICE.partition("(")[0] in page
    config.write_text(rule + 'cells = "ring"\n')
    result = call(checkpoint, data, "--no-classifier", "--config", config, "--out", tmp_path)
    assert "PASS" in result.output, result.output
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["verdict"]["passed"]
    assert told["provenance"]["settings"]["resplits"] == 20
    config.write_text('[[quality.gate]]\nmetric = "kid"\nat_mots = 1\n')
    refused = call(checkpoint, data, "--config", config)
    assert isinstance(refused.exception, FastGANAugError)
    assert "at_mots" in str(refused.exception)


def test_the_models_own_patients_tell_the_sides_apart(checkpoint: Path, toy: Dataset) -> None:
    lineage = read_meta(checkpoint).lineage
    train, holdout = split_by_sight(toy, lineage)
    expected = training_part(toy_config(), toy)
    assert (train.digest, holdout.digest) == (expected[0].digest, expected[1].digest)


def test_a_side_that_is_missing_is_refused(checkpoint: Path, toy: Dataset) -> None:
    lineage = read_meta(checkpoint).lineage
    train, holdout = split_by_sight(toy, lineage)
    with pytest.raises(DataError, match="did not see") as caught:
        split_by_sight(train, lineage)
    assert "test_fraction" in caught.value.do
    with pytest.raises(DataError, match="that the model saw"):
        split_by_sight(holdout, lineage)


def test_data_of_which_nobody_can_tell_are_refused(checkpoint: Path, toy: Dataset) -> None:
    lineage = read_meta(checkpoint).lineage
    with pytest.raises(PseudonymKeysDiffer):
        split_by_sight(Dataset(toy.table, replace(toy.meta, pseudonym_key="another")), lineage)
    with pytest.raises(LeakageError, match="grouping"):
        split_by_sight(Dataset(toy.table, replace(toy.meta, grouping=UNGROUPED)), lineage)
    other = replace(lineage, space={"shape": ["disc", "ring"]})
    with pytest.raises(DataError, match="the model's"):
        split_by_sight(toy, other)


def test_what_is_no_model_is_refused(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    nowhere = call(tmp_path / "nothing", data)
    assert isinstance(nowhere.exception, CheckpointError)
    assert "--tracking-uri" in nowhere.exception.allowed
    empty = call(tmp_path, data)
    assert isinstance(empty.exception, CheckpointError)


def test_a_full_disk_leaves_the_report_before(
    judged: Path, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    result = call(checkpoint, data, "--no-classifier", "--out", blocked)
    assert isinstance(result.exception, FastGANAugError)
    assert result.exception.code == "storage-failed"
    assert blocked.read_text() == "in the way"


def test_slices_are_those_of_the_service(checkpoint: Path) -> None:
    from fastgan_aug.cli.evaluate import make_slices
    from fastgan_aug.gan.synthesizer import Synthesizer
    from serving.protocol import sample_seed

    synthesizer = Synthesizer.load(checkpoint)
    images, cells = make_slices(synthesizer, {"ring": 3, "disc": 2}, 5)
    assert cells == ["ring"] * 3 + ["disc"] * 2
    cell = synthesizer.space.parse("ring")
    alone = synthesizer.generate([cell], np.asarray([sample_seed(5, "ring", 2)], np.uint64))
    assert images[2].tobytes() == alone[0].tobytes()
