"""A withdrawn patient and a real MLflow: which model versions saw them, by alias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from served import lineage, tiny_checkpoint
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import patient_digest
from fastgan_aug.engines.mlflow_client import connect, local_uri
from fastgan_aug.engines.mlflow_promotion import promote
from fastgan_aug.engines.mlflow_registry import find, register
from fastgan_aug.engines.mlflow_server import free_port, tracking_server
from fastgan_aug.engines.mlflow_sightings import sightings
from fastgan_aug.engines.mlflow_tracking import RunTracker
from fastgan_aug.errors import DataError, RegistryError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["server", "file"])
def uri(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, toy: Dataset
) -> Iterator[str]:
    """An MLflow with versions that saw all patients, all but one, others, and who knows whom."""
    folder = tmp_path_factory.mktemp("registry")
    if request.param == "file":
        fill(folder, local_uri(folder), toy)
        yield local_uri(folder)
        return
    with tracking_server(folder, free_port()) as address:
        fill(folder, address, toy)
        yield address


def fill(folder: Path, address: str, toy: Dataset) -> None:
    tracker = RunTracker(folder / "run", uri=address, experiment="toy", name="toy")
    tracker.start({"a": 1})
    tracker.finish()
    assert tracker.close(60)
    counts = {str(c): n for c, n in toy.class_counts.items()}
    whole = replace(
        lineage(toy.meta.space.to_dict(), counts),
        patient_digests=toy.patient_digests,
        pseudonym_key=toy.meta.pseudonym_key,
    )
    first = toy.patients[0]
    without = [d for d in toy.patient_digests if d != patient_digest(first)]
    made = (
        ("toy", whole),
        ("toy", replace(whole, patient_digests=without)),
        ("toy", replace(whole, pseudonym_key="KANOTHERKEY00")),
        ("another", replace(whole, dataset_digest="e" * 64)),
        ("phantoms", replace(whole, pseudonym_key="fiction")),
    )
    for seed, (model, origin) in enumerate(made):
        source = tiny_checkpoint(folder / f"checkpoint-{seed}", origin, seed)
        register(source, uri=address, model_name=model, run_id=str(tracker.run_id))
    promote("toy", "1", address, by="A. Person", reason="the first", override=True)
    client = connect(address)
    client.create_registered_model("foreign")
    client.create_model_version("foreign", source="s3://nowhere/nothing")


def test_every_version_is_told_of(uri: str, toy: Dataset) -> None:
    digest = patient_digest(toy.patients[0])
    found = sightings(digest, toy.meta.pseudonym_key, uri)
    told = {f"{s.version.name} {s.version.version}": s.saw for s in found}
    assert told == {
        "toy 1": True, "toy 2": False, "toy 3": None, "another 1": True, "phantoms 1": False,
        "foreign 1": None,
    }  # fmt: skip
    aliases = {f"{s.version.name} {s.version.version}": s.version.aliases for s in found}
    assert aliases["toy 1"] == ("champion",)
    assert aliases["toy 3"] == ("candidate",)
    assert any("another key (KANOTHERKEY00)" in s.why for s in found)


def test_the_command_lists_them_and_touches_none(uri: str, toy: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    toy.write(path)
    words = ["data", "withdraw", toy.patients[0], "--data", str(path), "--tracking-uri", uri]
    for more in (["--dry-run"], []):
        result = CliRunner().invoke(app, words + more, env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert "models:/toy/1" in result.output
        assert "champion" in result.output
        assert "2 of 6 versions saw the patient; of 2 it cannot be told" in result.output
        assert "retrain" in result.output
        assert len(Dataset.read(path)) == (len(toy) if more else len(toy) - 4)
    assert find("toy", "champion", uri).version == "1"


def test_who_saw_them_is_told_after_the_removal_too(uri: str, toy: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    toy.write(path)
    words = ["data", "withdraw", toy.patients[0], "--data", str(path)]
    assert CliRunner().invoke(app, [*words, "--no-models"]).exit_code == 0
    before = path.read_bytes()
    asked = CliRunner().invoke(app, [*words, "--tracking-uri", uri], env={"COLUMNS": "200"})
    assert "2 of 6 versions saw the patient" in asked.output
    assert isinstance(asked.exception, DataError)
    assert "no patient" in asked.exception.what
    assert path.read_bytes() == before


def test_without_the_registry_nothing_is_removed(toy: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    toy.write(path)
    before = path.read_bytes()
    words = ["data", "withdraw", toy.patients[0], "--data", str(path)]
    result = CliRunner().invoke(app, [*words, "--tracking-uri", "http://127.0.0.1:9"])
    assert isinstance(result.exception, RegistryError), result.output
    assert result.exception.what.endswith("could not be reached: ConnectionError"), "no chain"
    assert path.read_bytes() == before
