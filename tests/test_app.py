"""The application in process, on a real generator: plan first, then the stream."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
from itertools import pairwise

import httpx
import numpy as np
import pytest

from fastgan_aug.errors import ModelNotFound
from serving.batch import BalancedBatch
from serving.generating import chunks
from serving.protocol import (
    CHUNK,
    MEDIA_TYPE,
    PROBLEM_TYPE,
    Header,
    decode,
    error_classes,
    sample_seed,
)
from serving.request import BatchRequest
from serving.server import stream
from serving.server.access import LARGEST_BODY
from serving.server.app import create_app
from serving.server.scheduler import Scheduler
from tests.served import (
    TWO_COUNTS,
    TWO_FACTORS,
    FolderModels,
    InProcess,
    lineage,
    tiny_checkpoint,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return FolderModels(tiny_checkpoint(folder, lineage(TWO_FACTORS, TWO_COUNTS)))


@pytest.fixture(scope="module")
def http(models):
    app = create_app(models, most_images=500)
    with httpx.Client(transport=InProcess(app), base_url="http://service") as client:
        yield client


def ask(http: httpx.Client, **fields: object) -> httpx.Response:
    return http.post("/v1/balanced-batch", content=json.dumps(fields))


def batch_of(response: httpx.Response) -> BalancedBatch:
    assert response.status_code == 200, response.text
    return BalancedBatch.collect(*decode(io.BytesIO(response.content)))


def test_the_answer_holds_what_was_planned(http):
    response = ask(http, counts={"LOW/none": 90, "LOW/left": 10, "HIGH/both": 4}, seed=5)
    assert response.headers["content-type"] == MEDIA_TYPE
    batch = batch_of(response)
    assert batch.images.shape == (80 + 86, 32, 32)
    assert batch.cells == ["LOW/left"] * 80 + ["HIGH/both"] * 86
    assert (batch.index[:80] == np.arange(80)).all()
    assert [int(s) for s in batch.seeds[:2]] == [sample_seed(5, "LOW/left", i) for i in (0, 1)]
    assert batch.provenance.version == "1"
    assert batch.provenance.seed == 5
    assert batch.provenance.dataset == "d" * 64


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(http):
    counts = {"LOW/none": 20, "LOW/left": 10}
    first, again = (batch_of(ask(http, counts=counts, seed=1)) for _ in range(2))
    other = batch_of(ask(http, counts=counts, seed=2))
    assert first.images.tobytes() == again.images.tobytes()
    assert first.images.tobytes() != other.images.tobytes()


def test_an_image_does_not_depend_on_what_is_asked_beside_it(http):
    alone = batch_of(ask(http, counts={"HIGH/both": 4}, target=40, seed=1))
    beside = batch_of(
        ask(http, counts={"LOW/left": 3, "HIGH/both": 4, "HIGH/none": 9}, target=75, seed=1)
    )
    same = np.asarray(beside.cells) == "HIGH/both"
    assert alone.images.tobytes() == beside.images[same][:36].tobytes()


def test_chunks_are_bounded_and_cover_the_plan(models):
    model = models.get("champion")
    response = {"LOW/left": 70, "HIGH/none": 60}
    agreed = BalancedPlanOf(response)
    sizes = [len(c.cells) for c in chunks(model, agreed, 0)]
    assert sizes == [CHUNK, CHUNK, 2]


class BalancedPlanOf:
    """Only what ``chunks`` reads of a plan."""

    def __init__(self, generate: dict[str, int]) -> None:
        self.generate = generate


def test_the_plan_is_told_before_any_image_and_is_the_answers_own(http):
    asked = {"counts": {"LOW/none": 90, "LOW/left": 10}, "target": "not majority", "seed": 5}
    asked |= {"request_id": "one"}
    told = http.post("/v1/plan", content=json.dumps(asked))
    assert told.status_code == 200
    header = Header.from_json(told.content)
    assert header == batch_of(ask(http, **asked)).header
    assert "LOW/left   10     90    80  filled" in str(header)
    refused = http.post("/v1/plan", content=json.dumps({"counts": {"LOW/both": 1}, "target": 2}))
    assert (refused.status_code, refused.json()["code"]) == (422, "cell-unseen")


def test_a_plan_may_be_larger_than_an_answer(http):
    asked = json.dumps({"counts": {"LOW/none": 5}, "target": 10**6})
    header = Header.from_json(http.post("/v1/plan", content=asked).content)
    assert header.plan.total_generate == 10**6 - 5


@pytest.mark.parametrize("cuts", [(0, 166), (0, 1, 79, 81, 166, 200), (0, 64, 128, 192)])
def test_pages_are_the_answer_cut_in_pieces(http, cuts):
    asked = {"counts": {"LOW/none": 90, "LOW/left": 10, "HIGH/both": 4}, "seed": 5}
    whole = batch_of(ask(http, **asked))
    pages = [batch_of(ask(http, page=page, **asked)) for page in pairwise(cuts)]
    assert b"".join(p.images.tobytes() for p in pages) == whole.images.tobytes()
    assert [c for p in pages for c in p.cells] == whole.cells
    for name in ("seeds", "index"):
        together = np.concatenate([getattr(p, name) for p in pages])
        assert (together == getattr(whole, name)).all()
    assert [p.header.page for p in pages] == [(min(a, 166), min(b, 166)) for a, b in pairwise(cuts)]


def test_a_page_is_shortened_to_what_one_answer_may_hold(http):
    page = batch_of(ask(http, counts={"LOW/none": 5}, target=2000, page=[100, 2000]))
    assert page.header.page == (100, 600)
    assert page.index[[0, -1]].tolist() == [100, 599]


def test_nothing_to_generate_is_an_empty_batch(http):
    batch = batch_of(ask(http, counts={"LOW/none": 3}))
    assert len(batch) == 0
    assert batch.images.shape == (0, 32, 32)


def test_unseen_cells_are_refused_or_marked(http):
    refused = ask(http, counts={"LOW/none": 5, "LOW/both": 0})
    assert (refused.status_code, refused.json()["code"]) == (422, "cell-unseen")
    batch = batch_of(ask(http, counts={"LOW/none": 2, "LOW/left": 1, "LOW/both": 0},
                         allow_unseen=True))  # fmt: skip
    assert batch.unseen.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"counts": {"LOW/odd": 1}}, 422, "cell-unknown"),
        ({"counts": {"\ud800": 1}}, 422, "cell-unknown"),
        ({"counts": {"LOW/none": 5}, "target": 4}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": -5}}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": 5}, "model": "9"}, 404, "model-not-found"),
        ({"counts": {"LOW/none": 5}, "target": 506}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": 5}, "target": 10**9}, 422, "balance-invalid"),
        ({"target": 3}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": 5}, "page": [3, 2]}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": 5}, "page": [-1, 2]}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": 5}, "page": [0, 2**53]}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": 5}, "page": [0]}, 422, "balance-invalid"),
        ({"counts": {"LOW/none": 5}, "page": "all"}, 422, "balance-invalid"),
    ],
)
def test_bad_requests_are_problems_before_any_image(http, fields, status, code):
    response = ask(http, **fields)
    assert response.status_code == status
    assert response.headers["content-type"].startswith(PROBLEM_TYPE)
    told = response.json()
    assert (told["type"], told["code"], told["status"]) == (code, code, status)
    assert told["detail"]
    assert told["do"]
    assert told["title"] == (error_classes()[code].__doc__ or "").splitlines()[0]


def test_a_body_too_large_is_refused(http):
    response = http.post("/v1/balanced-batch", content=b" " * (LARGEST_BODY + 1))
    assert response.status_code == 413
    assert "bytes" in response.json()["detail"]


def test_the_model_tells_cells_counts_and_lineage(http):
    facts = http.get("/v1/model").json()
    assert facts["training_counts"] == TWO_COUNTS
    assert facts["unseen"] == ["LOW/both"]
    assert facts["factors"] == TWO_FACTORS
    assert (facts["version"], facts["run_id"], facts["size"]) == ("1", "run-7", 32)
    assert len(facts["checkpoint"]) == 64


@pytest.mark.parametrize(("model", "status"), [("9", 404), ("../../etc", 422), ("", 422)])
def test_a_model_that_is_none(http, model, status):
    assert http.get("/v1/model", params={"model": model}).status_code == status


def test_health_and_description(http, models):
    assert http.get("/v1/health/live").json() == {"status": "live"}
    assert http.get("/v1/health/ready").json()["status"] == "ready"
    paths = http.get("/openapi.json").json()["paths"]
    assert set(paths) >= {"/v1/balanced-batch", "/v1/model", "/v1/health/ready"}
    assert http.get("/docs").status_code == 200
    missing = httpx.Client(
        transport=InProcess(create_app(models, default_model="candidate")), base_url="http://s"
    )
    told = missing.get("/v1/health/ready")
    assert (told.status_code, told.json()["code"]) == (503, "model-not-found")


def test_the_page_of_the_service_needs_no_internet(http):
    page = http.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {name.rpartition(".")[2] for name in files} >= {"js", "css"}
    assert all(http.get(name).status_code == 200 for name in files)
    assert not re.search("https?://", page)
    # Swagger UI reads OpenAPI 3.1, which FastAPI writes, from its version 5 on.
    (script,) = (name for name in files if name.endswith(".js"))
    assert re.search(r'PACKAGE_VERSION:"[5-9]\.', http.get(script).text)
    assert http.get("/redoc").status_code == 404


def test_a_full_service_says_when_to_come_back(models):
    app = create_app(models, scheduler=Scheduler(most_requests=0))
    with httpx.Client(transport=InProcess(app), base_url="http://service") as full:
        answer = ask(full, counts={"LOW/none": 5, "LOW/left": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("asgi", ["2.3", "2.4"])  # Starlette has two ways to send
def test_an_answer_that_nobody_reads_is_ended(models, monkeypatch, caplog, asgi):
    monkeypatch.setattr(stream, "UNREAD_SECONDS", 0.2)
    caplog.set_level(logging.INFO, "serving")
    work, bodies = Scheduler(), []
    body = json.dumps({"counts": {"LOW/none": 490, "LOW/left": 0}}).encode()
    scope = {"type": "http", "method": "POST", "path": "/v1/balanced-batch", "headers": [],
             "query_string": b"", "asgi": {"spec_version": asgi}}  # fmt: skip

    async def read_one_piece() -> dict[str, object]:
        sent = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return sent.pop() if sent else await asyncio.sleep(60)

        async def send(message) -> None:
            bodies.extend([message] if message["type"] == "http.response.body" else [])
            if len(bodies) > 1:
                await asyncio.sleep(60)

        app = create_app(models, scheduler=work)
        await asyncio.wait_for(app(scope, receive, send), 20)
        return work.status()

    assert asyncio.run(read_one_piece())["requests"] == 0
    assert len(bodies) == 2
    (line,) = [r.facts for r in caplog.records if r.message == "request"]
    assert "not read" in line["ended"]


def test_a_registry_that_hangs_keeps_nobody_from_a_model_in_memory(models):
    hangs = threading.Event()

    class Hanging:
        known = models.known

        def get(self, model: str) -> None:
            hangs.wait(20)
            raise ModelNotFound("it is there no longer")

    app = create_app(Hanging())

    async def crowd() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            lost = [
                asyncio.create_task(http.get("/v1/model", params={"model": f"other-{i}"}))
                for i in range(60)
            ]
            await asyncio.sleep(0.3)
            body = json.dumps({"counts": {"LOW/none": 4, "LOW/left": 2}})
            asked = http.post("/v1/balanced-batch", content=body)
            try:
                answer = await asyncio.wait_for(asked, 10)
            finally:
                hangs.set()
            return [answer.status_code, *(a.status_code for a in await asyncio.gather(*lost))]

    assert asyncio.run(crowd()) == [200] + [404] * 60


def test_no_answer_names_a_patient(http):
    assert "a" * 64 not in http.get("/v1/model").text  # the digest in the toy lineage


def test_other_paths_and_failures_are_problems_too(http):
    told = http.get("/v2")
    assert told.status_code == 404
    assert told.headers["content-type"].startswith(PROBLEM_TYPE)

    class Broken:
        def known(self, model: str) -> None:
            raise RuntimeError("a secret of the inside")

    app = create_app(Broken())
    with httpx.Client(transport=InProcess(app), base_url="http://service") as client:
        answer = client.get("/v1/model")
    assert answer.status_code == 500
    assert answer.json()["code"] == "error"
    assert "secret" not in answer.text


def test_the_request_described_is_the_request_taken(http):
    schema = http.get("/openapi.json").json()["paths"]["/v1/balanced-batch"]["post"]["requestBody"]
    described = schema["content"]["application/json"]["schema"]["properties"]
    assert set(described) == set(BatchRequest.__dataclass_fields__)
