"""`register`, `evaluate`, `promote` and `lineage` on a bare SQLite file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow_toy import LINEAGE, SPACE, finished_run
from test_local_engine import toy_config
from typer.testing import CliRunner

from fastgan_aug.balance import BalancePlan
from fastgan_aug.cli.main import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines import mlflow_promotion as promotion
from fastgan_aug.engines import mlflow_registry as registry
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.mlflow_client import local_uri
from fastgan_aug.engines.mlflow_server import free_port
from fastgan_aug.errors import GateRefused
from fastgan_aug.gan.checkpoint import read_meta
from serving.batch import BalancedBatch
from serving.protocol import Header, Provenance

pytestmark = pytest.mark.integration

NAME = "A. Person's toy [1]"
"""Nothing in it may be taken for a quote, markup or an option."""


def test_the_command_line_registers_promotes_and_prints_the_lineage(tmp_path: Path) -> None:
    runner, store, run_folder = CliRunner(), tmp_path / "store", tmp_path / "run"
    store.mkdir()
    address = local_uri(store)
    run_id = finished_run(run_folder, address)
    source = run_folder / "images-000004000"
    sha = read_meta(source).digest

    def call(*arguments: str) -> str:
        result = runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    # The default address is where the run was tracked.
    assert f"models:/{NAME}/1" in call("register", str(source), "--model", NAME)
    promote = ("promote", "candidate", "--by", "A. Person", "--reason", "the first")
    where = ("--model", NAME, "--tracking-uri", address)
    refused = runner.invoke(app, [*promote, *where])
    assert isinstance(refused.exception, GateRefused)
    assert "--override" in refused.exception.do
    said = call(*promote, *where, "--override", "--expect", "none")
    assert "before: none" in said
    assert "no quality report" in said

    batch = tmp_path / "batch.parquet"
    origin = Provenance(
        NAME, "1", "champion", run_id, sha, LINEAGE.dataset_digest, LINEAGE.config_digest,
        LINEAGE.code_version, "torch-cpu-fp32", 7, "request",
    )  # fmt: skip
    plan = BalancePlan({}, {})
    none = np.zeros(0, np.uint64)
    images = np.zeros((0, 32, 32), np.float32)
    header = Header(32, SPACE, plan, origin)
    BalancedBatch(header, images, [], none, none.astype(np.uint32), none.astype(bool)).to_parquet(
        batch
    )
    alone = call("lineage", str(batch))
    for part in (f"models:/{NAME}/1", run_id, sha, "c" * 64, "d" * 64, LINEAGE.code_version):
        assert part in alone
    assert "= MLflow" not in alone
    compared = call("lineage", str(batch), "--tracking-uri", address)
    assert compared.count("= MLflow") == 5
    assert f"promoted by A. Person (overrode: models:/{NAME}/1 has no quality report)" in compared
    away = call("lineage", str(batch), "--tracking-uri", f"http://127.0.0.1:{free_port()}")
    assert "could not be reached" in away
    assert run_id in away


def test_an_evaluation_decides_the_promotion(tmp_path: Path, toy: Dataset) -> None:
    """Fit, register, evaluate, promote: by the command line, on a bare SQLite file."""
    store, run_folder, data = tmp_path / "store", tmp_path / "run", tmp_path / "toy.parquet"
    store.mkdir()
    address = local_uri(store)
    toy.write(data)
    config = toy_config(images=48)
    train, _ = training_part(config, toy)
    made = local.fit(FitJob(config, train, run_folder, address), lambda seen, values: None)
    lenient = tmp_path / "lenient.toml"
    lenient.write_text('[[quality.gate]]\nmetric = "kid"\ncells = "disc"\nat_most = 1e9\n')
    where = ("--model", "toy", "--tracking-uri", address)
    evaluate = ("evaluate", "candidate", str(data), "--no-classifier", "--out", str(tmp_path / "q"))
    promote = ("promote", "candidate", "--by", "A. Person", "--reason", "the first")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, *where], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    call("register", str(made.checkpoint))
    assert "quality = FAIL on models:/toy/1" in call(*evaluate)
    refused = CliRunner().invoke(app, [*promote, *where])
    assert isinstance(refused.exception, GateRefused)
    assert "quality = PASS on models:/toy/1" in call(*evaluate, "--config", str(lenient))
    assert "overridden" not in call(*promote)
    version = registry.find("toy", "champion", address)
    assert version.tags["promoted_override"] == "no"
    report = promotion.recorded_report(version, address)
    assert report is not None
    assert report.provenance["checkpoint"] == version.tags["checkpoint_sha256"]
    assert "training curves" in (tmp_path / "q" / "report.html").read_text().lower()
