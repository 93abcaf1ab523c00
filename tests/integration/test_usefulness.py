"""Reports of usefulness beside the version that was served, on a real MLflow server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from served import registered
from test_judging import ARMS, CLASSES, QUICK, simulated

from downstream.judging import judge
from downstream.report import UsefulnessReport
from fastgan_aug.cli.downstream import write_report
from fastgan_aug.cli.downstream_record import record_served
from fastgan_aug.engines.mlflow_client import connect
from fastgan_aug.engines.mlflow_registry import find

pytestmark = pytest.mark.integration
MODEL = "usefulness"


def judged(caveat: str) -> UsefulnessReport:
    return judge(*simulated(), ARMS, CLASSES, replace(QUICK, caveat=caveat))


def test_a_version_names_its_last_report_and_keeps_the_others(
    mlflow_uri: str, tmp_path: Path
) -> None:
    served = registered(tmp_path, mlflow_uri, MODEL, 1)
    client, places = connect(mlflow_uri), []
    for caveat in ("nobody knows whom it saw", ""):
        report = judged(caveat)
        write_report(report, tmp_path / "out")
        places.append(record_served(report, tmp_path / "out", served, mlflow_uri))
        version = find(MODEL, "1", mlflow_uri)
        (judgement,) = report.judgements
        assert judgement.headline is not None
        word = judgement.headline.verdict
        assert word == ("NO EVIDENCE" if caveat else "HELPS")
        assert version.tags[f"usefulness {judgement.classifier}"].startswith(f"{word}: half")
        assert version.tags["usefulness_report"] == places[-1]
        metrics = client.get_run(version.run_id).data.metrics
        name = f"usefulness/{judgement.classifier}/verdict/half"
        assert metrics[name] == (0 if caveat else 1)
        gain = metrics[f"usefulness/{judgement.classifier}/gain/half"]
        assert np.isclose(gain, judgement.headline.difference.value)
        assert (caveat or "none") in version.tags["usefulness_caveat"]
    assert places[0] != places[1]
    for place in places:
        names = {Path(f.path).name for f in client.list_artifacts(version.run_id, place)}
        assert names == {"downstream.json", "downstream.html"}
