"""Model versions on a real MLflow server: registered, found, fetched, verified."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from mlflow_toy import LINEAGE, checkpoint, png, promoted, record

from fastgan_aug.engines import mlflow_promotion as promotion
from fastgan_aug.engines import mlflow_registry as registry
from fastgan_aug.engines.mlflow_client import connect
from fastgan_aug.errors import CheckpointError, ModelNotFound, RegistryError
from fastgan_aug.gan.checkpoint import GENERATOR, META

pytestmark = pytest.mark.integration


def test_registered_fetched_promoted(
    mlflow_uri: str, mlflow_run: tuple[Path, str], tmp_path: Path
) -> None:
    folder, run_id = mlflow_run
    source = folder / "images-000004000"
    made = registry.register(source, uri=mlflow_uri, model_name="toy", run_id=run_id)
    words = connect(mlflow_uri).get_model_version("toy", made.version).description
    link = re.search(r"\((get-artifact\?.+)\)", words)
    assert link is not None
    picture = httpx.get(f"{mlflow_uri}/{link[1]}")
    assert picture.content == png(), "the version's page shows the sample grid"
    assert made.aliases == ("candidate",)
    assert json.loads(made.tags["class_counts"])["cross"] == 0
    again = registry.register(source, uri=mlflow_uri, model_name="toy", run_id=run_id)
    assert again.version == made.version

    with pytest.raises(ModelNotFound, match="fastgan-aug promote"):
        registry.fetch("toy", "champion", mlflow_uri, tmp_path)
    with pytest.raises(ModelNotFound, match="candidate"):
        registry.find("toy", "99", mlflow_uri)
    with pytest.raises(ModelNotFound, match="nothing-here"):
        registry.find("nothing-here", "champion", mlflow_uri)

    with pytest.raises(RegistryError, match="name and a reason"):
        promotion.promote("toy", made.version, mlflow_uri, by=" ", reason="better")
    record(made, mlflow_uri, tmp_path / "quality", 0.01)
    champion = promotion.promote("toy", "candidate", mlflow_uri, by="A. Person", reason="first one")
    assert champion.aliases == ("candidate", "champion")
    assert champion.tags["promoted_by"] == "A. Person"
    assert champion.tags["promoted_over"] == "none"
    assert champion.tags["promoted_override"] == "no"

    fetched = registry.fetch("toy", "champion", mlflow_uri, tmp_path)
    assert fetched.folder is not None
    assert {p.name for p in fetched.folder.iterdir()} == {META, GENERATOR}
    assert (fetched.folder / GENERATOR).read_bytes() == (source / GENERATOR).read_bytes()
    # A copy that was damaged on disk is fetched again.
    (fetched.folder / GENERATOR).write_bytes(b"damaged")
    assert registry.fetch("toy", "champion", mlflow_uri, tmp_path) == fetched
    assert (fetched.folder / GENERATOR).read_bytes() == (source / GENERATOR).read_bytes()

    points = registry.loss_curves(made, mlflow_uri)
    assert [point["images_seen"] for point in points] == list(range(100, 4100, 100))
    assert points[0]["loss_d"] == pytest.approx(0.01)

    origin = registry.lineage("toy", made.version, mlflow_uri)
    assert origin["run"]["id"] == run_id
    assert origin["dataset"] == {"digest": "d" * 64, "names": ["shapes"]}
    assert origin["code_version"] == LINEAGE.code_version


@pytest.mark.parametrize("name", [META, GENERATOR])
def test_a_damaged_artefact_is_refused(
    name: str,
    mlflow_uri: str,
    mlflow_folder: Path,
    mlflow_run: tuple[Path, str],
    tmp_path: Path,
) -> None:
    source = checkpoint(tmp_path / "source", seed=1)
    made = registry.register(
        source, uri=mlflow_uri, model_name=f"damaged-{name[:4]}", run_id=mlflow_run[1]
    )
    stored = [
        path
        for path in (mlflow_folder / "mlartifacts").rglob(name)
        if path.read_bytes() == (source / name).read_bytes()
    ]
    assert stored
    for path in stored:
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        registry.fetch(made.name, made.version, mlflow_uri, tmp_path / "cache")
    assert not list((tmp_path / "cache" / made.name).iterdir())


def test_a_run_that_is_not_there_leaves_no_model(mlflow_uri: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        registry.register(
            checkpoint(tmp_path / "c"), uri=mlflow_uri, model_name="of no run", run_id="0" * 32
        )
    assert not connect(mlflow_uri).search_registered_models("name = 'of no run'")


@pytest.mark.parametrize("name", ["O'Brien's", 'the "best"', "50 % [bold]", "Gehirn-Größe"])
def test_a_name_with_quotes_is_registered_found_promoted_and_fetched(
    name: str, mlflow_uri: str, mlflow_run: tuple[Path, str], tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "source", seed=7)
    with pytest.raises(ModelNotFound, match="no registered model"):
        registry.find(name, "1", mlflow_uri)
    made, again = (
        registry.register(source, uri=mlflow_uri, model_name=name, run_id=mlflow_run[1])
        for _ in range(2)
    )
    assert (made.name, made.version, again.version) == (name, "1", "1")
    with pytest.raises(ModelNotFound, match="versions 1"):
        registry.find(name, "champion", mlflow_uri)
    record(made, mlflow_uri, tmp_path / "quality", 0.01)
    promoted(made, mlflow_uri)
    fetched = registry.fetch(name, "champion", mlflow_uri, tmp_path / "cache")
    assert fetched.folder is not None
    assert (fetched.folder / GENERATOR).read_bytes() == (source / GENERATOR).read_bytes()


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "a:b", "two\nlines", 'it\'s "the" one'])
def test_a_name_that_could_not_be_looked_up_is_refused_before_any_work(
    name: str, mlflow_uri: str, mlflow_run: tuple[Path, str], tmp_path: Path
) -> None:
    before = {model.name for model in connect(mlflow_uri).search_registered_models()}
    with pytest.raises(RegistryError, match="cannot be named") as caught:
        # Neither the checkpoint nor the address is looked at.
        registry.register(tmp_path, uri="http://127.0.0.1:9", model_name=name, run_id="0")
    assert "quotes" in caught.value.allowed
    with pytest.raises(RegistryError, match="cannot be named"):
        registry.register(
            mlflow_run[0] / "images-000004000",
            uri=mlflow_uri,
            model_name=name,
            run_id=mlflow_run[1],
        )
    with pytest.raises(RegistryError, match="cannot be named"):
        registry.find(name, "1", mlflow_uri)
    assert {model.name for model in connect(mlflow_uri).search_registered_models()} == before
