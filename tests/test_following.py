"""Aliases are followed one by one: neither a bad one nor too many stop the others."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from fastgan_aug.engines.mlflow_registry import RegisteredVersion
from fastgan_aug.errors import CheckpointError, FastGANAugError, ModelNotFound, RegistryError
from serving.models import LoadedModel
from serving.server import registered
from serving.server.registered import AGAIN_SECONDS, RegistryModels


class Registry:
    """What aliases mean, what goes wrong, and how often each version was loaded."""

    def __init__(self, **aliases: str) -> None:
        self.aliases, self.away = aliases, False
        self.broken: dict[str, Exception] = {}
        self.loads: Counter[str] = Counter()

    def find(self, name: str, model: str, uri: str) -> RegisteredVersion:
        if self.away:
            raise RegistryError("could not be reached")
        version = model if model.isdigit() else self.aliases.get(model)
        if version is None:
            raise ModelNotFound(model)
        return RegisteredVersion(name, version)

    def load(self, version: str) -> LoadedModel:
        self.loads[version] += 1
        if version in self.broken:
            raise self.broken[version]
        return LoadedModel(None, "toy", version, version, "")  # type: ignore[arg-type]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    made = Registry(champion="1", candidate="2")
    monkeypatch.setattr(registered, "find", made.find)
    monkeypatch.setattr(registered, "try_out", lambda model: 0.1)
    monkeypatch.setattr(RegistryModels, "_load", lambda self, version: made.load(version))
    return made


@pytest.mark.parametrize(
    "error", [RegistryError("no such artefact"), RuntimeError("conversion"), MemoryError(),
              CheckpointError("damaged")],
)  # fmt: skip
def test_a_bad_alias_is_refused_and_the_others_are_followed(registry, error):
    models = RegistryModels("toy", "uri", default="champion", most_versions=9)
    for alias in ("candidate", "champion"):
        models.get(alias)
    registry.aliases |= {"candidate": "3", "champion": "4"}
    registry.broken["3"] = error
    for _ in range(3):
        models.look()
    assert models.get("champion").version == "4"
    assert models.get("candidate").version == "2"
    told = models.status()
    assert list(told["refused"]) == ["3"]
    assert told["registry"] == "reached"
    assert registry.loads["3"] == 1  # not anew at every look
    with pytest.raises(FastGANAugError) as caught:
        models.get("3")
    assert caught.value.what in told["refused"]["3"]


def test_what_may_pass_is_tried_again_and_what_is_damaged_is_not(registry, monkeypatch):
    models = RegistryModels("toy", "uri", default="champion")
    registry.broken |= {"1": RegistryError("no such artefact"), "2": CheckpointError("damaged")}
    models.look()
    with pytest.raises(CheckpointError):
        models.get("2")
    registry.broken.clear()
    models.look()
    assert models.known("champion") is None
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + AGAIN_SECONDS)
    models.look()
    assert models.get("champion").version == "1"
    assert list(models.status()["refused"]) == ["2"]
    with pytest.raises(CheckpointError):
        models.get("2")


def test_a_registry_that_is_away_is_told_as_that(registry):
    models = RegistryModels("toy", "uri", default="champion")
    models.get("champion")
    registry.away = True
    models.look()
    assert "could not be reached" in models.status()["registry"]
    assert not models.status()["refused"]
    assert models.get("champion").version == "1"


def test_an_error_that_is_remembered_does_not_grow(registry):
    models = RegistryModels("toy", "uri", default="champion")
    registry.broken["1"] = CheckpointError("damaged")
    depths = []
    for _ in range(5):
        with pytest.raises(CheckpointError) as caught:
            models.get("1")
        depths.append(len(caught.traceback))
    assert len(set(depths[1:])) == 1


def test_more_aliases_than_versions_in_memory_are_not_loaded_in_turn(registry):
    registry.aliases |= {f"a{i}": str(i) for i in range(3, 7)}
    models = RegistryModels("toy", "uri", default="champion", most_versions=3)
    for alias in registry.aliases:
        models.get(alias)
    loads = registry.loads.copy()
    for _ in range(3):
        models.look()
    assert registry.loads == loads
    assert models.get("a3").version == "3"  # asked for again: loaded, and followed again
    registry.aliases["a3"] = "7"
    models.look()
    assert models.known("a3").version == "7"
    assert models.known("champion").version == "1"


def test_to_follow_a_version_is_not_to_use_it(registry):
    models = RegistryModels("toy", "uri", default="champion", most_versions=3)
    for model in ("champion", "candidate", "5"):
        models.get(model)
    models.look()
    models.get("6")  # the candidate is what nobody asked for the longest
    assert models.status()["loaded"] == ["1", "5", "6"]
