"""An Arrow IPC stream decoded from bytes as they arrive, whoever brings them. No input or output.

pyarrow reads streams from files alone, which would need a thread for each asynchronous answer. The
framing is Arrow's encapsulated message format: 0xFFFFFFFF, the metadata's length (int32), metadata
(a flatbuffer), body; a length of 0 ends the stream.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from serving.protocol import Chunk, Header, from_arrow

CONTINUATION = 0xFFFFFFFF
LARGEST_METADATA = 1 << 26
LARGEST_BODY = 1 << 31


class StreamDecoder:
    """Header and chunks of one answer.

    Attributes:
        header: Known from the first message on.
        ended: Whether the stream's own end was read.
    """

    def __init__(self) -> None:
        self.header: Header | None = None
        self.ended = False
        self._schema: pa.Schema | None = None
        self._held = bytearray()
        self._whole: int | None = None  # bytes of the message that is arriving, once it is known

    def feed(self, piece: bytes) -> list[Chunk]:
        """Takes the next bytes of any number, and gives the chunks that they complete.

        Raises:
            ValueError: no stream of this format (pyarrow's errors are ValueErrors too).
        """
        self._held += piece
        found: list[Chunk] = []
        while not self.ended and (message := self._next_message()) is not None:
            chunk = self._read(message)
            if chunk is not None:
                found.append(chunk)
        return found

    def _next_message(self) -> bytes | None:
        """The next whole message; None where its end has not arrived."""
        self._whole = self._whole or self._length()
        if self._whole is None or len(self._held) < self._whole:
            return None
        with memoryview(self._held) as held:
            message = bytes(held[: self._whole])
        del self._held[: self._whole]
        self._whole = None
        return message

    def _length(self) -> int | None:
        """Bytes of the message at the front, as soon as its metadata are whole."""
        if len(self._held) < 8:
            return None
        mark, length = struct.unpack_from("<Ii", self._held)
        if mark != CONTINUATION or not 0 <= length <= LARGEST_METADATA:
            raise ValueError("the answer is no Arrow stream")
        self.ended = length == 0
        if self.ended or len(self._held) < 8 + length:
            return None
        return 8 + int(length) + _body_length(bytes(self._held[8 : 8 + length]))

    def _read(self, message: bytes) -> Chunk | None:
        parsed = pa.ipc.read_message(pa.py_buffer(message))
        if self.header is None or self._schema is None:
            self._schema = pa.ipc.read_schema(parsed)
            self.header = Header.of(self._schema)
            if not self._schema.equals(self.header.schema()):
                raise ValueError("the columns are not those of a batch")
            return None
        return from_arrow(pa.ipc.read_record_batch(parsed, self._schema), self.header.size)


def _body_length(metadata: bytes) -> int:
    """Field 3 of the flatbuffer ``Message`` (format/Message.fbs): bytes of the body.

    Raises:
        ValueError: no such flatbuffer.
    """
    try:
        (table,) = struct.unpack_from("<I", metadata)
        (back,) = struct.unpack_from("<i", metadata, table)
        vtable = table - back
        (size,) = struct.unpack_from("<H", metadata, vtable)
        slot = 4 + 2 * 3
        offset = struct.unpack_from("<H", metadata, vtable + slot)[0] if size > slot else 0
        length = struct.unpack_from("<q", metadata, table + offset)[0] if offset else 0
    except struct.error as error:
        raise ValueError(f"a message without its length: {error}") from error
    if not 0 <= length <= LARGEST_BODY:
        raise ValueError(f"a message of {length} bytes")
    return int(length)
