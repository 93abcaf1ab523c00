"""The downstream command and a registered model: MLflow tells which patients it saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_downstream import command, serve_model_of

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.engines.mlflow_client import connect, local_uri
from fastgan_aug.engines.mlflow_registry import find, register
from fastgan_aug.engines.mlflow_tracking import RunTracker
from fastgan_aug.errors import LeakageError
from tests.served import ONE_COUNTS, ONE_FACTOR, lineage, tiny_checkpoint

pytestmark = pytest.mark.integration


def registered(checkpoint: Path, folder: Path) -> str:
    """Makes it version 1 of the model `toy`; returns MLflow's address."""
    uri = local_uri(folder)
    tracker = RunTracker(folder / "run", uri=uri, experiment="toy", name="toy")
    tracker.start({"a": 1})
    tracker.finish()
    assert tracker.close(60)
    register(checkpoint, uri=uri, model_name="toy", run_id=str(tracker.run_id))
    return uri


def test_a_model_that_saw_all_patients_is_refused(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = registered(serve_model_of(toy, tmp_path, monkeypatch), tmp_path)
    result = command(toy, tmp_path, 0.4, "--tracking-uri", uri)
    assert isinstance(result.exception, LeakageError), result.output
    assert "test patients" in result.exception.what
    assert not (tmp_path / "out").exists()


def test_a_model_of_other_data_but_no_test_patient_is_taken(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = split_by_patient(toy, 0.4, seed=0)
    part = train.of_patients(train.patients[1:])
    uri = registered(serve_model_of(part, tmp_path, monkeypatch), tmp_path)
    result = command(toy, tmp_path, 0.4, "--tracking-uri", uri)
    assert result.exit_code == 0, result.exception
    version = find("toy", "1", uri)
    assert version.tags["usefulness small-cnn"].startswith("NO EVIDENCE: half synthetic in every")
    files = connect(uri).list_artifacts(version.run_id, version.tags["usefulness_report"])
    assert {Path(f.path).name for f in files} == {"downstream.json", "downstream.html"}
    metrics = connect(uri).get_run(version.run_id).data.metrics
    (judgement,) = json.loads((tmp_path / "out/downstream.json").read_text())["judgements"]
    comparison = judgement["comparisons"][0]
    gain = metrics["usefulness/small-cnn/gain/real _ synthetic"]
    assert gain == pytest.approx(comparison["difference"]["value"])


def test_a_registry_with_another_checkpoint_proves_nothing(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_model_of(toy, tmp_path, monkeypatch)
    other = tiny_checkpoint(tmp_path / "other", lineage(ONE_FACTOR, ONE_COUNTS), seed=9)
    result = command(toy, tmp_path, 0.4, "--tracking-uri", registered(other, tmp_path))
    assert isinstance(result.exception, LeakageError), result.output
    assert "another checkpoint" in result.exception.what
