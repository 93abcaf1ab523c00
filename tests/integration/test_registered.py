"""Model changes on a real MLflow server: followed, refused, side by side, and through an outage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fastgan_aug.engines.mlflow_client import connect
from fastgan_aug.engines.mlflow_promotion import promote
from fastgan_aug.engines.mlflow_server import free_port
from fastgan_aug.errors import CheckpointError, ModelNotFound, RegistryError
from serving.server.registered import RegistryModels
from tests.served import registered

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
NAME = "followed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("followed")


@pytest.fixture(scope="module")
def uri(mlflow_uri: str, folder: Path) -> str:
    """Four versions: 1 is champion, 3 has weights that are not finite, 4 was changed on disk."""
    for number in (1, 2, 3, 4):
        registered(folder, mlflow_uri, NAME, number, broken=number == 3)
    _champion(mlflow_uri, "1")
    return mlflow_uri


def _champion(uri: str, version: str, name: str = NAME) -> None:
    promote(name, version, uri, by="a test", reason="a reason", override=True)


@pytest.fixture
def models(uri: str) -> Iterator[RegistryModels]:
    _champion(uri, "1")
    made = RegistryModels(NAME, uri, default="champion", most_versions=2)
    yield made
    made.close()


def image(model) -> bytes:
    cell = model.synthesizer.space.cells[0]
    return bytes(model.synthesizer.generate([cell], np.zeros(1, np.uint64)).tobytes())


def test_an_alias_is_followed_and_a_request_keeps_its_version(models, uri):
    begun = models.get("champion")
    before = image(begun)
    _champion(uri, "2")
    assert models.get("champion").version == "1"  # not looked yet: memory answers
    models.look()
    assert models.get("champion").version == "2"
    assert models.get("champion").alias == "champion"
    assert image(models.get("champion")) != before
    assert (begun.version, image(begun)) == ("1", before)
    assert image(models.get("1")) == before
    assert models.status()["loaded"] == ["2", "1"]


def test_the_thread_looks_by_itself(uri):
    _champion(uri, "1")
    models = RegistryModels(NAME, uri, default="champion", poll_seconds=0.2)
    models.get("champion")
    models.follow()
    _champion(uri, "2")
    deadline = time.monotonic() + 20
    while models.known("champion").version != "2" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert models.known("champion").version == "2"
    models.close()


def test_bad_versions_are_refused_and_the_old_one_stays(models, uri, mlflow_folder):
    made_by = connect(uri).get_model_version(NAME, "4").source.rpartition("/")[2]
    (weights,) = (p for p in mlflow_folder.rglob("generator.safetensors") if made_by in str(p))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    models.get("champion")
    for number, words in [("3", "not finite"), ("4", "sha256")]:
        _champion(uri, number)
        models.look()
        assert models.get("champion").version == "1"
        assert words in models.status()["refused"][number]
        with pytest.raises(CheckpointError, match=words):
            models.get(number)
    began = time.monotonic()
    with pytest.raises(CheckpointError):
        models.get("4")
    assert time.monotonic() - began < 1  # it is remembered, not downloaded again
    _champion(uri, "2")
    models.look()
    assert models.get("champion").version == "2"


def test_versions_in_memory_are_bounded_and_the_default_stays(models, uri, tmp_path):
    models.get("champion")
    models.get("2")
    assert sorted(models.status()["loaded"]) == ["1", "2"]
    extra = registered(tmp_path, uri, NAME, 5)
    models.get(extra.version)
    assert sorted(models.status()["loaded"]) == sorted(["1", extra.version])
    assert models.known("2") is None


def test_the_engine_is_what_was_asked_for(uri):
    _champion(uri, "1")
    reference, faster = (
        RegistryModels(NAME, uri, engine=name).get("champion").synthesizer
        for name in ("torch", "openvino")
    )
    assert faster.engine.startswith("openvino-")
    cell, seeds = reference.space.cells[0], np.arange(3, dtype=np.uint64)
    apart = faster.generate([cell] * 3, seeds) - reference.generate([cell] * 3, seeds)
    assert np.abs(apart).max() <= 1e-5


def test_what_is_not_there_is_told(models):
    for name in ("nobody", "99"):
        with pytest.raises(ModelNotFound):
            models.get(name)
    assert models.known("nobody") is None


def test_an_outage_stops_nothing_that_is_loaded(models, uri, monkeypatch):
    models.get("champion")
    with monkeypatch.context() as patch:
        patch.setattr(models, "_uri", f"http://127.0.0.1:{free_port()}")  # nobody listens there
        began = time.monotonic()
        for _ in range(100):
            assert models.get("champion").version == "1"
        assert time.monotonic() - began < 1
        models.look()
        assert models.get("champion").version == "1"
        assert "could not be reached" in models.status()["registry"]
        with pytest.raises(RegistryError):
            models.get("2")
    _champion(uri, "2")
    models.look()
    assert models.get("champion").version == "2"
    assert models.status()["registry"] == "reached"
