"""Ray Serve with a registered checkpoint: started, asked, promoted, ended."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import yaml
from ray import serve

from fastgan_aug.config import ServingConfig
from fastgan_aug.engines.mlflow_client import local_uri
from fastgan_aug.engines.mlflow_promotion import promote
from fastgan_aug.engines.mlflow_server import free_port
from fastgan_aug.errors import (
    ConfigError,
    ModelNotFound,
    PortInUse,
    ServiceUnavailable,
    UnseenCell,
)
from serving.client import Client
from serving.deployment import app_builder, start_service, stop_service
from tests.served import registered

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
NAME = "toy-shapes"
COUNTS = {"disc": 60, "ring": 40, "bar": 24}


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> str:
    """An SQLite registry with two versions; the first is champion."""
    folder = tmp_path_factory.mktemp("registry")
    uri = local_uri(folder)
    for number in (1, 2):
        registered(folder, uri, NAME, number)
    promote(NAME, "1", uri, by="a test", reason="the first", override=True)
    return uri


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="fa", dir="/tmp") as folder:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=2,
            _temp_dir=folder,
            object_store_memory=100 << 20,
            log_to_driver=False,
        )
        yield
        serve.shutdown()
        ray.shutdown()


def settings(**changes: object) -> ServingConfig:
    plain = {"port": free_port(), "timeout": 120, "cpus_per_replica": 0.25}
    return ServingConfig.model_validate(plain | changes)


@pytest.fixture(scope="module")
def url(local_ray, registry) -> Iterator[str]:
    yield start_service(settings(), registry, NAME)
    stop_service()


def test_the_service_answers_and_repeats_itself(url):
    with Client(url) as client:
        assert client.ready()
        first, again = (client.request_balanced_batch(COUNTS, seed=3) for _ in range(2))
        facts = client.model()
    assert first.images.tobytes() == again.images.tobytes()
    assert len(first) == 20 + 36
    assert first.provenance.version == facts["version"] == "1"
    assert first.provenance.checkpoint == facts["checkpoint"]
    assert facts["unseen"] == ["cross"]


def test_replicas_give_what_this_process_gives(url, registry):
    from serving.registered import RegistryModels

    here = RegistryModels(NAME, registry).get("champion")
    with Client(url) as client:
        batch = client.request_balanced_batch(COUNTS, seed=3)
    cells = [here.synthesizer.space.parse(cell) for cell in batch.cells]
    assert here.synthesizer.generate(cells, batch.seeds).tobytes() == batch.images.tobytes()


def test_typed_errors_cross_the_proxy(url):
    with Client(url) as client:
        with pytest.raises(UnseenCell):
            client.request_balanced_batch({"disc": 3, "cross": 0})
        with pytest.raises(ModelNotFound):
            client.model("9")


def test_other_versions_and_a_new_champion_need_no_restart(url, registry):
    with Client(url) as client:
        assert client.model("candidate")["version"] == "2"
        by_number = client.request_balanced_batch(COUNTS, seed=3, model="2")
        promote(NAME, "2", registry, by="a test", reason="the second", override=True)
        deadline = time.monotonic() + 20
        while client.model()["version"] != "2" and time.monotonic() < deadline:
            time.sleep(0.5)
        promoted = client.request_balanced_batch(COUNTS, seed=3)
    assert promoted.provenance.version == "2"
    assert promoted.images.tobytes() == by_number.images.tobytes()


def test_requests_side_by_side_all_get_their_own(url):
    answers: dict[int, bytes] = {}

    def ask(seed: int) -> None:
        with Client(url) as client:
            answers[seed] = client.request_balanced_batch(COUNTS, seed=seed % 2).images.tobytes()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 6
    assert len(set(answers.values())) == 2


def test_a_port_in_use_is_refused_at_once(local_ray, registry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            start_service(settings(port=port), registry, NAME)


def test_the_deployed_file_builds_the_application():
    file = Path(__file__).parents[2] / "deploy" / "serve.yaml"
    plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    (application,) = plain["applications"]
    assert application["import_path"] == "serving.deployment:app_builder"
    assert plain["http_options"]["host"] == "127.0.0.1"
    app_builder(application["args"])
    with pytest.raises(ConfigError, match="replica_count"):
        app_builder(application["args"] | {"replica_count": 2})


# These start and end Serve themselves: the last ones, after the shared service is down.


def test_no_champion_and_no_resources_are_told(local_ray, registry):
    stop_service()
    with pytest.raises(ModelNotFound, match="nobody"):
        start_service(settings(), registry, NAME, "nobody")
    with pytest.raises(ServiceUnavailable, match="replica") as caught:
        start_service(settings(cpus_per_replica=99, timeout=15), registry, NAME)
    assert "cpus_per_replica" in caught.value.do
