"""The client: ask a running service for the images that a data set lacks.

    >>> with Client(url) as client:
    ...     print(client.plan({"disc": 9, "ring": 6}, seed=7))
    ...     batch = client.request_balanced_batch({"disc": 9, "ring": 6}, seed=7)
    cell   has  wants  gets  why
    disc     9      9     0  has what it wants
    ring     6      9     3  filled
    total   15     18     3
    by toy version 1, seed 7
    >>> batch.images.shape, batch.provenance.version
    ((3, 32, 32), '1')

It needs numpy, pyarrow and httpx: no torch, Ray or MLflow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import httpx

from fastgan_aug.target import MAJORITY
from serving.address import DEFAULT_URL, Address
from serving.asking import Asker, Counts, Options, Wanted
from serving.async_client import AsyncClient
from serving.attempts import REPEATED, Attempts, readable, refusal
from serving.batch import BalancedBatch
from serving.exchange import PATH, Exchange
from serving.protocol import Answer, Chunk, Header
from serving.request import DEFAULT_MODEL, BatchRequest

if TYPE_CHECKING:
    from serving.offline import OfflineClient

__all__ = ["AsyncClient", "BalancedBatch", "Client", "request_balanced_batch"]

T = TypeVar("T")


class Client(Asker):
    """A connection to the service, to be used with ``with`` or closed.

    A request that is lost on the way is repeated, and goes on where it ended: waiting grows, with
    jitter, and is as long as the service asks for (Retry-After).

    Args:
        url: Where the service listens.
        timeout: Seconds without a byte after which the service counts as not answering; where it
            has answered the call before, an attempt counts as lost.
        deadline: Seconds that a whole call may take; None as long as images keep coming, and the
            service asks for no pause of more than 300 s.
        token: Sent as a bearer token; None takes that of the environment variable
            FASTGAN_AUG_TOKEN, if there is one. Over plain HTTP only to this machine itself.
        transport: How requests travel; given by tests to call an application in process.

    Raises:
        ConfigError: no token, or one that would travel unencrypted to another machine.
        ServiceUnavailable: ``url`` is no address.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 120.0,
        deadline: float | None = None,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._address = Address.of(url, timeout, deadline, token)
        self._http = httpx.Client(transport=transport, **self._address.options)

    @classmethod
    def offline(cls, checkpoint: Path | str) -> OfflineClient:
        """The same calls without any service: a checkpoint folder makes the images here.

        Raises:
            CheckpointError: missing, damaged, or of another format.
            ConfigError: torch is not installed.
        """
        from serving.offline import OfflineClient

        return OfflineClient(checkpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def model(self, model: str = DEFAULT_MODEL) -> dict[str, Any]:
        """What the service knows of a model: version, cells, training counts, size, digests.

        Raises:
            ModelNotFound: no such version or alias.
            ServiceUnavailable: the service is not up, or did not answer in time.
        """
        return self._ask("GET", "/v1/model", lambda r: dict(r.json()), params={"model": model})

    def ready(self) -> bool:
        """Whether the service is up and its default model generates."""
        try:
            timeout = Attempts(self._address).timeout
            return self._http.get("/v1/health/ready", timeout=timeout).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def planned(self, request: BatchRequest) -> Header:
        """What the service would generate for a request; ``plan`` takes a caller's words."""
        return self._ask(
            "POST",
            "/v1/plan",
            lambda r: Header.from_json(r.content),
            content=request.to_json(),
            headers=self._address.batch_headers,
        )

    def answer(self, request: BatchRequest) -> Answer:
        """Begins to answer a request; ``iter_batches`` takes a caller's words."""
        exchange = Exchange(request)
        arriving = self._chunks(exchange)
        first = next(arriving, None)
        assert exchange.header is not None
        return Answer(exchange.header, _all(first, arriving))

    def _chunks(self, exchange: Exchange) -> Generator[Chunk, None, None]:
        attempts = Attempts(self._address)
        while not exchange.complete:
            try:
                with self._http.stream(
                    "POST",
                    PATH,
                    content=exchange.begin(),
                    headers=self._address.batch_headers,
                    timeout=attempts.timeout,
                ) as response:
                    attempts.answered()
                    if not response.is_success:
                        response.read()
                        raise refusal(response)
                    for piece in response.iter_bytes():
                        for chunk in exchange.feed(piece):
                            attempts.progressed()
                            yield chunk
                exchange.end()
            except REPEATED as error:
                time.sleep(attempts.pause(error))

    def _ask(self, method: str, path: str, read: Callable[[httpx.Response], T], **sent: Any) -> T:
        """One question with a short answer."""
        attempts = Attempts(self._address)
        while True:
            try:
                response = self._http.request(method, path, timeout=attempts.timeout, **sent)
                attempts.answered()
                return readable(response, read)
            except REPEATED as error:
                time.sleep(attempts.pause(error))


def request_balanced_batch(
    counts: Counts,
    target: Wanted = MAJORITY,
    *,
    url: str = DEFAULT_URL,
    token: str | None = None,
    progress: bool = False,
    **options: Unpack[Options],
) -> BalancedBatch:
    """Opens a `Client`, asks once and closes it; see `Client.request_balanced_batch`."""
    with Client(url, token=token) as client:
        return client.request_balanced_batch(counts, target, progress=progress, **options)


def _all(first: Chunk | None, rest: Generator[Chunk, None, None]) -> Generator[Chunk, None, None]:
    with closing(rest):
        if first is not None:
            yield first
        yield from rest
