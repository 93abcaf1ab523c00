"""The asynchronous client gives what the synchronous one gives, and fails as it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from fastgan_aug.errors import ServiceUnavailable, UnknownCell
from serving.client import AsyncClient, Client
from serving.server.app import create_app
from tests.served import (
    ONE_COUNTS,
    ONE_FACTOR,
    FolderModels,
    InProcess,
    lineage,
    tiny_checkpoint,
)

COUNTS = {"disc": 60, "ring": 40, "bar": 24}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("serving.attempts.FIRST_PAUSE", 0.001)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return create_app(FolderModels(tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS))))


@pytest.fixture(scope="module")
def expected(app):
    with Client(transport=InProcess(app)) as client:
        return client.request_balanced_batch(COUNTS, seed=7)


def client_of(app) -> AsyncClient:
    return AsyncClient(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False))


def test_it_gives_what_the_other_gives(app, expected):
    async def ask():
        async with client_of(app) as client:
            whole = await client.request_balanced_batch(COUNTS, seed=7, progress=True)
            empty = await client.request_balanced_batch({"disc": 5})
            parts = [b async for b in client.iter_batches(COUNTS, seed=7, batch_size=20)]
            plan = await client.plan(COUNTS, seed=7)
            return whole, empty, parts, plan, await client.model(), await client.ready()

    whole, empty, parts, plan, facts, ready = asyncio.run(ask())
    assert whole.images.tobytes() == expected.images.tobytes()
    assert whole.cells == expected.cells
    assert len(empty) == 0
    assert [len(part) for part in parts] == [20, 20, 16]
    assert b"".join(part.images.tobytes() for part in parts) == expected.images.tobytes()
    assert plan.plan == expected.plan
    assert facts["training_counts"] == ONE_COUNTS
    assert ready


def test_many_at_once_each_get_their_own(app, expected):
    async def ask():
        async with client_of(app) as client:
            jobs = (client.request_balanced_batch(COUNTS, seed=s) for s in (7, 8, 7, 9))
            return await asyncio.gather(*jobs)

    seven, eight, again, _ = asyncio.run(ask())
    assert seven.images.tobytes() == again.images.tobytes() == expected.images.tobytes()
    assert eight.images.tobytes() != seven.images.tobytes()


class Cut(httpx.AsyncBaseTransport):
    """Lets so many bytes of each answer through, more each time, then breaks."""

    def __init__(self, app: object) -> None:
        self._inner = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        response = await self._inner.handle_async_request(request)
        body = await response.aread()

        async def part() -> AsyncIterator[bytes]:
            yield body[: 3000 + 90_000 * (self.asked - 1)]
            raise httpx.ReadError("cut")

        return httpx.Response(response.status_code, content=part())


def test_what_breaks_is_resumed_without_a_double_or_a_gap(app, expected):
    transport = Cut(app)

    async def ask():
        async with AsyncClient(transport=transport) as client:
            return await client.request_balanced_batch(COUNTS, seed=7)

    assert asyncio.run(ask()).images.tobytes() == expected.images.tobytes()
    assert transport.asked > 2


def test_errors_are_typed(app):
    async def ask():
        async with client_of(app) as client:
            with pytest.raises(UnknownCell):
                await client.request_balanced_batch({"square": 1})
            with pytest.raises(UnknownCell):
                await client.plan({"square": 1})
        async with AsyncClient("http://127.0.0.1:9") as client:
            assert not await client.ready()
            with pytest.raises(ServiceUnavailable, match="fastgan-aug serve"):
                await client.request_balanced_batch(COUNTS)

    asyncio.run(ask())


def test_a_stream_may_be_left_in_the_middle(app):
    async def ask():
        async with client_of(app) as client:
            async for batch in client.iter_batches(COUNTS, 400, batch_size=5):
                return len(batch)
        return 0

    assert asyncio.run(ask()) == 5
