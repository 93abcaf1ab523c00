"""Ray Serve with a registered checkpoint: started, asked, promoted, ended."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
import yaml
from ray import serve

from benchmarks.replicas import replicas, wait_until
from fastgan_aug.config import ReplicaConfig
from fastgan_aug.data.schema import REASONS
from fastgan_aug.engines.mlflow_client import local_uri
from fastgan_aug.engines.mlflow_promotion import promote
from fastgan_aug.errors import (
    AccessRefused,
    BalanceError,
    ConfigError,
    FastGANAugError,
    ModelNotFound,
    PortInUse,
    ServiceUnavailable,
    UnseenCell,
)
from serving.asking import request_of
from serving.client import Client
from serving.offline import OfflineClient
from serving.protocol import decode
from serving.request import BatchRequest
from serving.server.deployment import (
    APPLICATION,
    ServiceArguments,
    app_builder,
    build_application,
    start_service,
    stop_service,
)
from serving.server.measures import REFUSED_VERSIONS, SERIES
from serving.server.ray_measures import metrics_urls
from serving.server.tokens import add_to_file, make_token
from tests.serve_toy import bearer, in_pages, settings, started, statuses, wait_for_champion
from tests.served import registered

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
NAME = "toy-shapes"
COUNTS = {"disc": 60, "ring": 40, "bar": 24}
LIMITS = {"replicas": 2, "poll_seconds": 0.5, "most_waiting_requests": 4}


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


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The file of tokens, and the tokens by name."""
    file, made = tmp_path_factory.mktemp("tokens") / "tokens.toml", {}
    for name, role in [("lab", "generate"), ("old", "generate"), ("boss", "admin")]:
        made[name], entry = make_token(name, role)
        add_to_file(entry, file)
    return file, made


@pytest.fixture(scope="module")
def url(local_ray, registry, tokens) -> Iterator[str]:
    """Two replicas; every `Client` of these tests sends the token of ``lab``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTGAN_AUG_TOKEN", tokens[1]["lab"])
        yield start_service(settings(tokens=str(tokens[0]), **LIMITS), registry, NAME)
        stop_service()


def idle(url: str, tokens) -> bool:
    queues = [status["queue"] for status in statuses(url, tokens)]
    return all(queue["requests"] == queue["images"] == 0 for queue in queues)


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
    from serving.server.registered import RegistryModels

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


def test_other_versions_and_a_new_champion_need_no_restart(url, registry, tokens):
    with Client(url) as client:
        assert client.model("candidate")["version"] == "2"
        by_number = client.request_balanced_batch(COUNTS, seed=3, model="2")
        promote(NAME, "2", registry, by="a test", reason="the second", override=True)
        wait_for_champion(url, tokens, "2")
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


def test_a_filter_gives_one_set_whatever_the_page_and_the_replica(url, registry, tokens, tmp_path):
    version = registered(tmp_path, registry, NAME, 3, filtered=True).version
    request = request_of(COUNTS, seed=3, model=version, filter="default")
    here = OfflineClient(tmp_path / "checkpoint-3" / "filtered")
    wanted = here.request_balanced_batch(COUNTS, seed=3, filter="default")
    for size in (56, 19, 7):
        images, outcome = in_pages(url, bearer(tokens, "lab"), request, size)
        assert np.array_equal(images, wanted.images)
        assert outcome == wanted.outcome
    # A replica loads a version when it is asked for it: both were.
    assert all(version in status["models"]["loaded"] for status in statuses(url, tokens))
    with pytest.raises(BalanceError, match="has no filter"), Client(url) as client:
        client.request_balanced_batch(COUNTS, model="1", filter="default")
    body = BatchRequest(COUNTS, model="1", filter="default").to_json()
    refused = httpx.post(f"{url}/v1/balanced-batch", content=body, headers=bearer(tokens, "lab"))
    assert (refused.status_code, refused.json()["code"]) == (422, "balance-invalid")


def test_the_outcome_of_a_filter_arrives_and_adds_up(url):
    with Client(url) as client:
        batch = client.request_balanced_batch(COUNTS, seed=3, model="3", filter="default")
    wanted = {cell: n for cell, n in batch.header.plan.generate.items() if n}
    assert {cell: told["requested"] for cell, told in batch.outcome.items()} == wanted
    for cell, told in batch.outcome.items():
        assert told["requested"] == told["accepted"] + told["unfilled"]
        assert told["generated"] == told["accepted"] + sum(told[reason] for reason in REASONS)
        assert batch.cells.count(cell) == told["accepted"]
    assert any(told["generated"] > told["accepted"] for told in batch.outcome.values())


def test_tokens_and_roles_hold_behind_the_proxy(url, tokens):
    body = BatchRequest(COUNTS).to_json()
    for headers in ({}, {"authorization": "Bearer fga_wrong"}):
        refused = httpx.post(f"{url}/v1/balanced-batch", content=body, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "token-refused")
    assert httpx.get(f"{url}/v1/status", headers=bearer(tokens, "lab")).status_code == 403
    status = httpx.get(f"{url}/v1/status", headers=bearer(tokens, "boss")).json()
    assert status["models"]["aliases"]["champion"] in status["models"]["loaded"]
    assert status["models"]["registry"] == "reached"
    with pytest.raises(AccessRefused), Client(url, token="fga_wrong") as client:
        client.model()


def test_a_token_is_revoked_by_the_file_alone(url, tokens):
    file, _ = tokens
    known = bearer(tokens, "old")
    assert httpx.get(f"{url}/v1/model", headers=known).status_code == 200
    entries = [e for e in file.read_text().split("\n\n") if 'name = "old"' not in e]
    file.write_text("\n\n".join(entries))
    assert {httpx.get(f"{url}/v1/model", headers=known).status_code for _ in range(6)} == {401}
    with Client(url) as client:
        assert client.model()["version"]


def test_a_champion_changes_under_load_without_a_failed_request(url, registry, tokens):
    wanted = {v: _of_version(url, v) for v in ("1", "2")}
    ended, seen, failed = threading.Event(), Counter[str](), list[Exception]()

    def load() -> None:
        with Client(url) as client:
            while not ended.is_set():
                try:
                    batch = client.request_balanced_batch(COUNTS, seed=3)
                except FastGANAugError as error:
                    failed.append(error)
                    return
                assert batch.images.tobytes() == wanted[batch.provenance.version]
                seen[batch.provenance.version] += 1

    threads = started(load, 3)
    for version in ("1", "2", "1"):
        promote(NAME, version, registry, by="a test", reason="a change", override=True)
        wait_for_champion(url, tokens, version)
    ended.set()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert set(seen) == {"1", "2"}


def _of_version(url: str, version: str) -> bytes:
    with Client(url) as client:
        return client.request_balanced_batch(COUNTS, seed=3, model=version).images.tobytes()


def test_cancelled_requests_leave_no_work(url, tokens):
    body = json.dumps({"counts": {"disc": 60, "ring": 0}, "target": 6000})
    for i in range(40):
        with httpx.Client(base_url=url, headers=bearer(tokens, "lab"), timeout=30) as http:
            try:
                with http.stream("POST", "/v1/balanced-batch", content=body) as answer:
                    if answer.status_code == 200 and i % 2:
                        next(answer.iter_raw())
            except httpx.TransportError:
                pass
    wait_until(lambda: idle(url, tokens), 10)
    with Client(url) as client:
        assert len(client.request_balanced_batch(COUNTS)) == 56


def test_too_much_at_once_is_refused_with_a_time_and_the_service_recovers(url, tokens):
    body = json.dumps({"counts": {"disc": 60, "ring": 0}, "target": 2000})
    answers: list[httpx.Response] = []

    def ask() -> None:
        headers = bearer(tokens, "lab")
        answers.append(
            httpx.post(f"{url}/v1/balanced-batch", content=body, headers=headers, timeout=120)
        )

    threads = started(ask, 80)
    for thread in threads:
        thread.join(120)
    assert {a.status_code for a in answers} == {200, 503}
    for refused in (a for a in answers if a.status_code == 503):
        assert refused.json()["code"] == "overloaded"
        assert int(refused.headers["retry-after"]) >= 1
    began = time.monotonic()
    with Client(url) as client:
        client.request_balanced_batch(COUNTS)
    assert time.monotonic() - began < 5


def test_a_killed_replica_costs_no_call(url):
    wanted = _of_version(url, "1")
    answers: list[bytes] = []

    def ask() -> None:
        with Client(url) as client:
            for _ in range(15):
                batch = client.request_balanced_batch(COUNTS, seed=3, model="1")
                answers.append(batch.images.tobytes())

    threads = started(ask, 3)
    time.sleep(0.3)
    replicas()[0].kill()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 45
    assert set(answers) == {wanted}


def test_a_replica_that_ends_finishes_its_answers(url, registry, tokens):
    wait_until(lambda: len(replicas()) == 2, 60)
    ended, sizes, failed = threading.Event(), list[int](), list[str]()
    body = json.dumps({"counts": {"disc": 60, "ring": 0}, "target": 400})
    asked = {"content": body, "headers": bearer(tokens, "lab"), "timeout": 60}

    def ask() -> None:  # without the client, which would repeat what was lost
        while not ended.is_set():
            try:
                answer = httpx.post(f"{url}/v1/balanced-batch", **asked)
            except httpx.HTTPError as error:
                failed.append(repr(error))
                return
            if answer.status_code == 200:
                _, chunks = decode(io.BytesIO(answer.content))
                sizes.append(sum(len(chunk.cells) for chunk in chunks))
            elif answer.status_code != 503:
                failed.append(str(answer.status_code))

    threads = started(ask, 3)
    fewer = settings(tokens=str(tokens[0]), **(LIMITS | {"replicas": 1}))
    shared = fewer.model_dump(include=set(ReplicaConfig.model_fields))
    arguments = ServiceArguments(tracking_uri=registry, model_name=NAME, **shared)
    target = serve.RunTarget(build_application(arguments), name=APPLICATION, route_prefix="/")
    serve.run_many([target])
    wait_until(lambda: len(replicas()) == 1, 30)
    ended.set()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert set(sizes) == {340 + 400}


def test_what_is_measured_is_exported_for_prometheus(url):
    def exported() -> set[str]:
        text = httpx.get(metrics_urls()[0]).text
        return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}

    with Client(url) as client:
        client.request_balanced_batch(COUNTS)
    assert httpx.get(f"{url}/v1/model").status_code == 401  # what is refused is counted too
    wanted = {f"ray_{series.name}" for series in SERIES if series is not REFUSED_VERSIONS}
    wait_until(lambda: wanted <= exported(), 30)


def test_a_port_in_use_is_refused_at_once(local_ray, registry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            start_service(settings(port=port), registry, NAME)


def test_the_deployed_file_builds_the_application():
    file = Path(__file__).parents[2] / "deploy" / "serve.yaml"
    plain = yaml.safe_load(file.read_text(encoding="utf-8"))
    (application,) = plain["applications"]
    assert application["import_path"] == "serving.server.deployment:app_builder"
    assert plain["http_options"]["host"] == "127.0.0.1"
    app_builder(application["args"])
    with pytest.raises(ConfigError, match="replica_count"):
        app_builder(application["args"] | {"replica_count": 2})


# These start and end the service themselves: the last ones, after the shared service is down.


def test_stopping_leaves_what_others_serve(url):
    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Other:
        def __call__(self):
            return "another team's"

    serve.run(Other.bind(), name="other", route_prefix="/other")
    for _ in range(2):  # stopping what is not served either
        stop_service()
        assert set(serve.status().applications) == {"other"}
        assert httpx.get(f"{url}/other").text == "another team's"
    serve.delete("other")
    stop_service()
    assert not serve.status().applications


def test_other_machines_are_not_served_without_tokens(local_ray, registry):
    with pytest.raises(ConfigError, match="no tokens"):
        start_service(settings(host="0.0.0.0"), registry, NAME)


@pytest.mark.slow
def test_no_champion_and_no_resources_are_told(local_ray, registry):
    stop_service()
    with pytest.raises(ModelNotFound, match="nobody"):
        start_service(settings(), registry, NAME, "nobody")
    with pytest.raises(ServiceUnavailable, match="replica") as caught:
        start_service(settings(cpus_per_replica=99, timeout=15), registry, NAME)
    assert "cpus_per_replica" in caught.value.do
