"""The door: token, role, rate and length before the body; nothing secret in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import httpx
import pytest

from fastgan_aug.errors import Overloaded
from serving.address import is_loopback
from serving.protocol import PROBLEM_TYPE
from serving.server.access import LARGEST_BODY
from serving.server.app import create_app
from serving.server.logs import JsonLines
from serving.server.scheduler import Scheduler
from serving.server.tokens import Token, TokenStore, entry_text, make_token
from tests.served import (
    TWO_COUNTS,
    TWO_FACTORS,
    FolderModels,
    InProcess,
    lineage,
    tiny_checkpoint,
)

BODY = json.dumps({"counts": {"LOW/none": 4, "LOW/left": 2}})
PATHS = [("POST", "/v1/balanced-batch"), ("GET", "/v1/model"), ("GET", "/v1/status"),
         ("GET", "/v9"), ("GET", "/v1/model/")]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return FolderModels(tiny_checkpoint(folder, lineage(TWO_FACTORS, TWO_COUNTS)))


def client(models, *entries: Token) -> httpx.Client:
    text = "".join(entry_text(entry) for entry in entries)
    store = TokenStore(lambda: text, lambda: None) if entries else None
    return httpx.Client(
        transport=InProcess(create_app(models, tokens=store)), base_url="http://service"
    )


@pytest.fixture(scope="module")
def secrets() -> dict[str, tuple[str, Token]]:
    return {
        "lab": make_token("lab", "generate"),
        "boss": make_token("boss", "admin"),
        "slow": make_token("slow", "generate", requests_per_minute=2),
        "few": make_token("few", "generate", images_per_minute=3),
    }


@pytest.fixture
def http(models, secrets) -> Iterator[httpx.Client]:
    with client(models, *(entry for _, entry in secrets.values())) as opened:
        yield opened


def bearer(secrets, name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secrets[name][0]}"}


def problem_of(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == PROBLEM_TYPE
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize(("method", "path"), PATHS)
def test_without_a_token_every_path_but_health_is_closed(http, method, path):
    for headers in ({}, {"authorization": "Bearer fga_wrong"}):
        refused = http.request(method, path, headers=headers)
        assert problem_of(refused) == (401, "token-refused")
        assert refused.headers["www-authenticate"] == "Bearer"
    assert http.get("/v1/health/live").status_code == 200
    assert http.get("/v1/health/ready").status_code == 200
    assert http.get("/openapi.json").status_code == 200


def test_roles(http, secrets):
    assert problem_of(http.get("/v1/status", headers=bearer(secrets, "lab"))) == (
        403, "role-refused",
    )  # fmt: skip
    seen = http.get("/v1/status", headers=bearer(secrets, "boss")).json()
    assert seen["models"]["loaded"] == ["1"]
    assert seen["queue"]["requests"] == 0
    for name in ("lab", "boss"):
        answer = http.post("/v1/balanced-batch", content=BODY, headers=bearer(secrets, name))
        assert answer.status_code == 200


def test_requests_per_minute(http, secrets):
    answers = [http.get("/v1/model", headers=bearer(secrets, "slow")) for _ in range(3)]
    assert [a.status_code for a in answers[:2]] == [200, 200]
    assert problem_of(answers[2]) == (429, "rate-exceeded")
    assert 1 <= int(answers[2].headers["retry-after"]) <= 31


def test_images_per_minute_let_one_large_request_pass_and_count_it(http, secrets):
    body = json.dumps({"counts": {"LOW/none": 12, "LOW/left": 2}})
    first, second = (
        http.post("/v1/balanced-batch", content=body, headers=bearer(secrets, "few"))
        for _ in range(2)
    )
    assert first.status_code == 200
    assert problem_of(second) == (429, "rate-exceeded")
    assert int(second.headers["retry-after"]) > 60


def test_what_is_not_taken_on_uses_up_no_images(models):
    class Full(Scheduler):
        def submit(self, *args, **options):
            if full:
                raise Overloaded("full")
            return super().submit(*args, **options)

    secret, entry = make_token("few", "generate", images_per_minute=3)
    store, full = TokenStore(lambda: entry_text(entry), lambda: None), [True]
    app = create_app(models, tokens=store, scheduler=Full())
    with httpx.Client(transport=InProcess(app), base_url="http://service") as http:

        def ask() -> int:
            headers = {"authorization": f"Bearer {secret}"}
            return http.post("/v1/balanced-batch", content=BODY, headers=headers).status_code

        assert {ask() for _ in range(5)} == {503}
        full.clear()
        assert [ask() for _ in range(3)] == [200, 200, 429]


def test_the_token_and_the_length_are_judged_before_the_body_is_read(models, secrets):
    read = []

    def body() -> Iterator[bytes]:
        read.append(1)
        yield b"x"

    class Unread(InProcess):
        async def _call(self, request: httpx.Request) -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
            async with transport:
                answer = await transport.handle_async_request(request)
                content = await answer.aread()
            return httpx.Response(answer.status_code, headers=answer.headers, content=content)

    async def pieces():
        for piece in body():
            yield piece

    lab = secrets["lab"][1]
    store = TokenStore(lambda: entry_text(lab), lambda: None)
    app = Unread(create_app(models, tokens=store))

    def send(**headers: str) -> httpx.Response:
        request = httpx.Request(
            "POST", "http://service/v1/balanced-batch", content=pieces(), headers=headers
        )
        return app.handle_request(request)

    assert send().status_code == 401
    known = bearer(secrets, "lab")
    assert send(**known, **{"content-length": str(LARGEST_BODY + 1)}).status_code == 413
    assert send(**known, **{"content-length": "9" * 5000}).status_code == 413
    assert not read
    assert send(**known).status_code == 422
    assert read


def test_without_tokens_only_this_machine_may_call(models):
    app = create_app(models)

    class From(httpx.BaseTransport):
        def __init__(self, address: str) -> None:
            self._client = (address, 999)

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            import asyncio

            async def call() -> httpx.Response:
                transport = httpx.ASGITransport(app=app, client=self._client)
                answer = await transport.handle_async_request(
                    httpx.Request(request.method, request.url)
                )
                content = await answer.aread()
                return httpx.Response(answer.status_code, headers=answer.headers, content=content)

            return asyncio.run(call())

    for address, status in [("127.0.0.1", 200), ("::1", 200), ("192.0.2.7", 401)]:
        with httpx.Client(transport=From(address), base_url="http://service") as http:
            assert http.get("/v1/model").status_code == status


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("", False),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
     ("127.0.0.1.evil.example", False), ("fe80::1%eth0", False)],
)  # fmt: skip
def test_loopback(host, own):
    assert is_loopback(host) is own


def test_no_origin_is_let_in_and_ids_are_answered(http, secrets):
    known = bearer(secrets, "lab")
    answer = http.get("/v1/model", headers=known | {"origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = http.options("/v1/model", headers={"origin": "http://evil.example"})
    assert preflight.status_code == 401
    assert http.get("/v1/model", headers=known | {"x-request-id": "a-7"}).headers[
        "x-request-id"
    ] == "a-7"  # fmt: skip
    made = http.get("/v1/model", headers=known | {"x-request-id": "a b\tc"})
    assert len(made.headers["x-request-id"]) == 32


def test_the_log_tells_what_came_of_a_request_and_nothing_secret(http, secrets, caplog):
    caplog.set_level(logging.INFO, "serving")
    body = json.dumps({"counts": {"LOW/none": 4, "SECRET-PATIENT": 2}, "request_id": "r-1"})
    http.post("/v1/balanced-batch", content=body, headers=bearer(secrets, "lab"))
    http.post("/v1/balanced-batch", content=BODY, headers=bearer(secrets, "lab"))
    http.get("/SECRET-PATIENT?key=SECRET-PATIENT", headers=bearer(secrets, "lab"))
    lines = [json.loads(JsonLines().format(r)) for r in caplog.records if r.name[:7] == "serving"]
    told = [line for line in lines if line["event"] == "request"]
    assert [(t["route"], t["status"]) for t in told] == [
        ("/v1/balanced-batch", "422"), ("/v1/balanced-batch", "200"), ("other", "404"),
    ]  # fmt: skip
    assert told[0]["code"] == "cell-unknown"
    assert (told[1]["images"], told[1]["version"], told[1]["token"]) == (2, "1", "lab")
    assert len({t["request_id"] for t in told}) == 3
    text = json.dumps(lines)
    assert "SECRET-PATIENT" not in text
    assert not [secret for secret, _ in secrets.values() if secret in text]


def test_a_failure_is_logged_by_its_place_without_its_words(caplog):
    class Broken:
        def known(self, model: str) -> None:
            raise RuntimeError("SECRET-PATIENT")

    with httpx.Client(transport=InProcess(create_app(Broken())), base_url="http://s") as http:
        assert problem_of(http.get("/v1/model")) == (500, "error")
    lines = [json.loads(JsonLines().format(r)) for r in caplog.records if r.exc_info]
    assert lines[0]["exception"] == "RuntimeError"
    assert any("app.py" in place for place in lines[0]["where"])
    assert "SECRET-PATIENT" not in json.dumps(lines)
