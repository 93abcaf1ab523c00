"""One request and its answer, page by page, over any number of attempts. No input or output.

The sync and the async client ask this object what to send, and give it what arrives. It goes on
where a lost attempt ended: no image comes twice, and none is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pyarrow as pa

from fastgan_aug.errors import ServiceUnavailable
from serving.attempts import Lost
from serving.decoding import StreamDecoder
from serving.protocol import Chunk, Header, positions, sample_seed
from serving.request import BatchRequest

PATH = "/v1/balanced-batch"
PAGE = 16_384  # images: large enough that a page's start costs nothing, small enough to repeat


class Exchange:
    """Asks for all images of a request.

    Attributes:
        request: The whole of it; its ``page`` is set by the exchange.
        header: Of all images, known from the first answer on.
        at: Position of the next image.
    """

    def __init__(self, request: BatchRequest) -> None:
        self.request, self.at = request, 0
        self.header: Header | None = None
        self._decoder, self._began = StreamDecoder(), 0
        self._expected: Iterator[tuple[str, int]] = iter(())

    @property
    def complete(self) -> bool:
        """Whether every image has arrived."""
        return self.header is not None and self.at >= self.header.plan.total_generate

    def begin(self) -> str:
        """The body to send next: the page that starts at the next image."""
        self._decoder, self._began = StreamDecoder(), self.at
        page = (self.at, self.at + PAGE)
        # The version that answered first, even where the alias means another one by now.
        model = self.header.provenance.version if self.header else self.request.model
        return replace(self.request, page=page, model=model).to_json()

    def feed(self, piece: bytes) -> Iterator[Chunk]:
        """Takes what arrived, and gives the chunks that it completes, one by one.

        Raises:
            Lost: it is no answer to what was asked.
            ServiceUnavailable: another model answers than before.
        """
        known = self._decoder.header is not None
        try:
            chunks = self._decoder.feed(piece)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise Lost(f"the answer broke off: {error}") from error
        if not known and self._decoder.header is not None:
            self._take_header(self._decoder.header)
        for chunk in chunks:
            self._take(chunk)
            yield chunk

    def end(self) -> None:
        """The answer is over.

        Raises:
            Lost: it brought no image, though some are missing.
        """
        if not self.complete and self.at == self._began:
            raise Lost("the answer broke off before its next image")

    def _take_header(self, header: Header) -> None:
        whole = replace(header, page=None)
        if self.header is None:
            self.header = whole
        elif _identity(whole) != _identity(self.header):
            was, now = self.header.provenance, whole.provenance
            raise ServiceUnavailable(
                f"the answer goes on by another model: {now.model} version {now.version} on "
                f"{now.engine} instead of {was.model} version {was.version} on {was.engine}",
                allowed="one version and engine for all images of a request",
                do="ask again, with the version's number instead of an alias",
            )
        if header.span[0] != self.at and not self.complete:
            raise Lost(f"the page starts at {header.span[0]} instead of {self.at}")
        total = whole.plan.total_generate
        self._expected = positions(whole.plan.generate, self.at, total)

    def _take(self, chunk: Chunk) -> None:
        """Counts a chunk, if it holds the very images that are next."""
        images = list(islice(self._expected, len(chunk.cells)))
        attempts = chunk.attempts.tolist()
        seeds = [
            sample_seed(self.request.seed, *image, attempt)
            for image, attempt in zip(images, attempts, strict=False)
        ]
        arrived = list(zip(chunk.cells, chunk.index.tolist(), strict=True))
        if images != arrived or seeds != chunk.seeds.tolist():
            raise Lost("the answer holds other images than those that are next")
        self.at += len(images)


def _identity(header: Header) -> Header:
    """What may not change between pages: all but who asked by which name."""
    return replace(header, provenance=replace(header.provenance, alias="", request_id=""))
