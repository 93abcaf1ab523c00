"""Where `fastgan-aug register` looks for MLflow, and how promotions are told; none is reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.cli.registry import _tracked_at, _tree
from fastgan_aug.engines.mlflow_client import local_uri
from fastgan_aug.engines.mlflow_spool import Spool
from fastgan_aug.errors import ConfigError, RegistryError
from serving.protocol import Provenance

SERVER, OTHER = "http://127.0.0.1:9", "http://127.0.0.1:10"


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run folder whose spool has this address."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def make(uri: str) -> Path:
        Spool(tmp_path).create("experiment", "name", uri)
        return tmp_path

    return make


def test_the_address_of_the_run_comes_first(tracked, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", OTHER)
    assert _tracked_at(tracked(SERVER)) == SERVER


def test_an_address_with_a_password_has_to_be_given_again(tracked, monkeypatch) -> None:
    folder = tracked("http://***@127.0.0.1:9")
    (folder / "mlflow.db").write_text("not this run's")
    result = CliRunner().invoke(app, ["register", str(folder / "images-000000001")])
    assert isinstance(result.exception, ConfigError)
    assert "password" in result.exception.what
    assert "--tracking-uri" in result.exception.do
    monkeypatch.setenv("MLFLOW_TRACKING_URI", OTHER)
    assert _tracked_at(folder) == OTHER


def test_a_run_folder_that_was_moved_brings_its_database_along(tracked) -> None:
    folder = tracked("sqlite:////gone/mlflow.db")
    with pytest.raises(ConfigError, match="nothing tells"):
        _tracked_at(folder)
    (folder / "mlflow.db").write_text("moved here")
    assert _tracked_at(folder) == local_uri(folder)


def test_an_older_run_without_an_address_takes_what_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", OTHER)
    assert _tracked_at(tmp_path) == OTHER


@pytest.mark.parametrize("missing", ["--by", "--reason"])
@pytest.mark.parametrize("override", [[], ["--override"]])
def test_nobody_promotes_without_name_and_reason(missing: str, override: list[str]) -> None:
    said = {"--by": "A. Person", "--reason": "better"} | {missing: "  "}
    options = [part for option in said.items() for part in option]
    result = CliRunner().invoke(
        app, ["promote", "1", *options, "--tracking-uri", SERVER, *override]
    )
    assert isinstance(result.exception, RegistryError)
    assert "name and a reason" in result.exception.what


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("no", "promoted by A. Person: better"),
        ("the report says FAIL", "promoted by A. Person (overrode: the report says FAIL): better"),
    ],
)
def test_the_lineage_tells_of_an_override(override: str, shown: str) -> None:
    origin = Provenance("toy", "1", "champion", "r", "c", "d", "g", "v", "torch", 7, "request")
    told = {
        "promoted": {
            "promoted_by": "A. Person",
            "promoted_reason": "better",
            "promoted_override": override,
        }
    }
    console = Console(width=120, record=True)
    console.print(_tree("batch.parquet", 3, origin, told))
    assert shown in console.export_text()
