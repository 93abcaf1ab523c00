"""The client for asyncio; what it asks, checks and repeats is what the sync client does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from fastgan_aug.target import MAJORITY
from serving.address import DEFAULT_URL, Address
from serving.asking import BATCH_SIZE, Counts, Options, Wanted, request_of
from serving.attempts import REPEATED, Attempts, readable, refusal
from serving.batch import BalancedBatch, Gathering, Grouping
from serving.exchange import PATH, Exchange
from serving.progress import shown
from serving.protocol import Chunk, Header
from serving.request import DEFAULT_MODEL

T = TypeVar("T")


class AsyncClient:
    """A `Client` for asyncio, with the same arguments, methods and errors.

    Args:
        url: Where the service listens.
        timeout: Seconds without a byte after which the service counts as not answering.
        deadline: Seconds that a whole call may take; None as long as images keep coming.
        token: As for `Client`.
        transport: How requests travel; given by tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 120.0,
        deadline: float | None = None,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._address = Address.of(url, timeout, deadline, token)
        self._http = httpx.AsyncClient(transport=transport, **self._address.options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._http.aclose()

    async def request_balanced_batch(
        self,
        counts: Counts,
        target: Wanted = MAJORITY,
        *,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> BalancedBatch:
        """See `Client.request_balanced_batch`."""
        exchange = Exchange(request_of(counts, target, **options))
        gathered: Gathering | None = None
        async with aclosing(self._counted(exchange, progress)) as chunks:
            async for chunk in chunks:
                assert exchange.header is not None
                gathered = gathered or Gathering(exchange.header)
                gathered.add(chunk)
        assert exchange.header is not None
        return BalancedBatch(**(gathered or Gathering(exchange.header)).fields())

    async def iter_batches(
        self,
        counts: Counts,
        target: Wanted = MAJORITY,
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> AsyncIterator[BalancedBatch]:
        """See `Client.iter_batches`."""
        exchange = Exchange(request_of(counts, target, **options))
        grouping: Grouping | None = None
        async with aclosing(self._counted(exchange, progress)) as chunks:
            async for chunk in chunks:
                assert exchange.header is not None
                grouping = grouping or Grouping(exchange.header, batch_size)
                for batch in grouping.add(chunk):
                    yield batch

    async def plan(
        self, counts: Counts, target: Wanted = MAJORITY, **options: Unpack[Options]
    ) -> Header:
        """See `Client.plan`."""
        return await self._ask(
            "POST",
            "/v1/plan",
            lambda r: Header.from_json(r.content),
            content=request_of(counts, target, **options).to_json(),
            headers=self._address.batch_headers,
        )

    async def model(self, model: str = DEFAULT_MODEL) -> dict[str, Any]:
        """See `Client.model`."""
        params = {"model": model}
        return await self._ask("GET", "/v1/model", lambda r: dict(r.json()), params=params)

    async def ready(self) -> bool:
        """See `Client.ready`."""
        try:
            timeout = Attempts(self._address).timeout
            response = await self._http.get("/v1/health/ready", timeout=timeout)
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK

    async def _counted(self, exchange: Exchange, progress: bool) -> AsyncGenerator[Chunk, None]:
        async with aclosing(self._chunks(exchange)) as chunks:
            first = await anext(chunks, None)
            assert exchange.header is not None
            with shown(progress, exchange.header.plan.total_generate) as advance:
                if first is not None:
                    yield first
                    advance(len(first.cells))
                async for chunk in chunks:
                    yield chunk
                    advance(len(chunk.cells))

    async def _chunks(self, exchange: Exchange) -> AsyncGenerator[Chunk, None]:
        attempts = Attempts(self._address)
        while not exchange.complete:
            try:
                async with self._http.stream(
                    "POST",
                    PATH,
                    content=exchange.begin(),
                    headers=self._address.batch_headers,
                    timeout=attempts.timeout,
                ) as response:
                    attempts.answered()
                    if not response.is_success:
                        await response.aread()
                        raise refusal(response)
                    async for piece in response.aiter_bytes():
                        for chunk in exchange.feed(piece):
                            attempts.progressed()
                            yield chunk
                exchange.end()
            except REPEATED as error:
                await asyncio.sleep(attempts.pause(error))

    async def _ask(
        self, method: str, path: str, read: Callable[[httpx.Response], T], **sent: Any
    ) -> T:
        """One question with a short answer."""
        attempts = Attempts(self._address)
        while True:
            try:
                response = await self._http.request(method, path, timeout=attempts.timeout, **sent)
                attempts.answered()
                return readable(response, read)
            except REPEATED as error:
                await asyncio.sleep(attempts.pause(error))
