"""The answer's body: a job's chunks as an Arrow stream, for as long as somebody reads it."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

import pyarrow as pa
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from serving.protocol import MEDIA_TYPE, Chunk, Header, encode
from serving.server.access import caller_of
from serving.server.scheduler import Job

UNREAD_SECONDS = 120.0  # after which an answer that nobody reads is ended; the client resumes it
T = TypeVar("T")


class JobResponse(StreamingResponse):
    """Streams a job's chunks; whoever goes away, or stops reading, leaves no work behind.

    Args:
        header: Of the stream.
        first: The first chunk, None where there is none.
        job: Gives the others.
        zstd: Whether the stream is compressed.
    """

    def __init__(self, header: Header, first: Chunk | None, job: Job, *, zstd: bool) -> None:
        self._job = job
        headers = {"vary": "accept-encoding"} | ({"content-encoding": "zstd"} if zstd else {})
        super().__init__(
            _stream(Encoder(header, zstd=zstd), first, job), headers=headers, media_type=MEDIA_TYPE
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer.

        Raises:
            ClientDisconnect: nothing was read for ``UNREAD_SECONDS``, or the caller went away.
        """

        async def read_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(UNREAD_SECONDS):
                    await send(message)
            except TimeoutError:
                # Readers who stop would take all the places of those who wait, for ever.
                caller_of(scope).facts["ended"] = f"not read for {UNREAD_SECONDS:g} s"
                raise ClientDisconnect from None

        try:
            await super().__call__(scope, receive, read_in_time)
        finally:  # not in the stream: one that was never begun is never ended either
            self._job.close()


class Encoder:
    """`serving.protocol.encode` for chunks that come one by one.

    Args:
        header: Of the stream.
        zstd: Compress the stream, flushed after each piece.
    """

    def __init__(self, header: Header, *, zstd: bool) -> None:
        self._slot: list[Chunk] = []
        self._pieces = encode(header, self._chunks())
        # Level 1. Of generated images it leaves 86 % in 2 % of the time that generating them takes;
        # gzip leaves 85 % in 46 % of it, and is not offered (`benchmarks.compression`).
        self._sink = _Sink()
        self._zstd = pa.CompressedOutputStream(self._sink, "zstd") if zstd else None

    def piece(self, chunk: Chunk) -> bytes:
        """The bytes of a chunk; those of the schema before the first."""
        self._slot.append(chunk)
        return self._next()

    def end(self) -> bytes:
        """The bytes that end the stream."""
        return self._next(last=True)

    def _next(self, *, last: bool = False) -> bytes:
        piece = next(self._pieces)
        if self._zstd is None:
            return piece
        self._zstd.write(piece)
        _ = self._zstd.close() if last else self._zstd.flush()
        return self._sink.drained()

    def _chunks(self) -> Iterator[Chunk]:
        while self._slot:
            yield self._slot.pop()


class _Sink(io.RawIOBase):
    """Keeps what is written until it is asked for."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self._kept += piece
        return len(piece)

    def drained(self) -> bytes:
        kept = bytes(self._kept)
        self._kept.clear()
        return kept


async def _stream(encoder: Encoder, first: Chunk | None, job: Job) -> AsyncIterator[bytes]:
    chunk = first
    while chunk is not None:
        yield encoder.piece(chunk)
        chunk = await job.fetch()
    yield encoder.end()


async def unless_gone(request: Request, wanted: Coroutine[Any, Any, T]) -> T:
    """Awaits something, but no longer than the caller is there.

    Raises:
        ClientDisconnect: the caller went away first.
    """
    task = asyncio.create_task(wanted)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for waiting in (task, gone):
            waiting.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def takes_zstd(request: Request) -> bool:
    """Whether ``Accept-Encoding`` names zstd."""
    for coding in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";q=")
        if name == "zstd":
            return not re.fullmatch(r"0(\.0*)?", weight)
    return False
