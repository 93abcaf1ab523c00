"""A training whose tracking server is away."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_local_engine import toy_config

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.mlflow_client import connect, local_uri
from fastgan_aug.engines.mlflow_spool import Spool
from fastgan_aug.engines.mlflow_tracking import replay

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_a_fit_ends_well_and_is_told_later(toy: Dataset, tmp_path: Path) -> None:
    config = toy_config()
    train, _ = training_part(config, toy)
    job = FitJob(config, train, tmp_path / "run", tracking_uri="http://127.0.0.1:9")
    result = local.fit(job, lambda seen, values: None)
    assert result.checkpoint.name == "images-000000096"
    assert result.run_id is None
    uri = local_uri(tmp_path / "mlflow")
    (tmp_path / "mlflow").mkdir()
    assert replay(job.folder, uri) == 0
    run_id = Spool(job.folder).sent["run_id"]
    history = connect(uri).get_metric_history(run_id, "loss_generator")
    assert [point.step for point in history] == [16, 32, 48, 64, 80, 96]
    assert connect(uri).get_run(run_id).info.status == "FINISHED"
