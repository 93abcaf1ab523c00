"""Laws of the push decoder: it reads what pyarrow's own reader reads, in pieces of any size."""

from __future__ import annotations

import io
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_protocol import chunk, header

from serving.decoding import StreamDecoder
from serving.protocol import decode, encode
from tests.served import pieces

STREAM = b"".join(encode(header(), [chunk(n, n) for n in (3, 1, 5)]))


def same(ours, theirs) -> None:
    assert ours.cells == theirs.cells
    for name in ("images", "seeds", "index", "unseen"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, len(STREAM)))
def test_pieces_of_any_size_give_what_a_file_gives(size):
    decoder, found = StreamDecoder(), []
    for piece in pieces(STREAM, size):
        found += decoder.feed(piece)
    told, expected = decode(io.BytesIO(STREAM))
    assert decoder.header == told
    assert decoder.ended
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs)


def test_a_chunk_is_given_as_soon_as_it_is_whole():
    sent = list(encode(header(), [chunk(2, 1), chunk(2, 2)]))
    decoder = StreamDecoder()
    assert [len(decoder.feed(piece)) for piece in sent] == [1, 1, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"no arrow at all",
        b"\0" * 400,
        struct.pack("<Ii", 0xFFFFFFFF, -1) + b"\0" * 9,
        struct.pack("<Ii", 0xFFFFFFFF, 2**31 - 1),
        struct.pack("<Ii", 0xFFFFFFFF, 8) + b"\xff" * 8,
        struct.pack("<Ii", 0xFFFFFFFF, 3) + b"abc",
        b"".join(encode(header(), [chunk(2)])).replace(b"fastgan_aug.batch", b"fastgan_aug.other"),
    ],
)
def test_other_bytes_are_refused(data):
    with pytest.raises((ValueError, pa.ArrowException)):
        StreamDecoder().feed(data)


def assert_refused_or_whole(damaged):
    """Whether damaged bytes are refused; what is given in spite of the damage is well-formed."""
    try:
        found = StreamDecoder().feed(damaged)
    except (ValueError, OSError, pa.ArrowException):
        return True
    for part in found:
        assert part.images.dtype == np.float32
        assert part.images.shape[1:] == chunk(1).images.shape[1:]
        assert part.images.min(initial=0) >= 0
        assert part.images.max(initial=1) <= 1
        assert len(part.cells) == len(part.images)
    return False


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(STREAM) - 1), st.integers(0, 255))
def test_a_damaged_byte_is_refused_or_changes_a_value(at, value):
    assert_refused_or_whole(STREAM[:at] + bytes([value]) + STREAM[at + 1 :])


@pytest.mark.parametrize("turn", [0x80, 0xFF])
def test_no_damaged_byte_ends_the_process_or_raises_anything_else(turn):
    """Each byte in turn: pyarrow trusts lengths and offsets, and aborts where they are negative."""
    refused = [
        assert_refused_or_whole(STREAM[:at] + bytes([byte ^ turn]) + STREAM[at + 1 :])
        for at, byte in enumerate(STREAM)
    ]
    assert 0 < sum(refused) < len(STREAM)
