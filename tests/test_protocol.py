"""Laws of the wire."""

from __future__ import annotations

import hashlib
import io
import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_aug.balance import plan
from fastgan_aug.errors import BalanceError, ConfigError, FastGANAugError, UnseenCell
from serving.protocol import (
    Chunk,
    Header,
    Provenance,
    decode,
    encode,
    error_classes,
    error_of,
    positions,
    problem,
    sample_seed,
)
from serving.request import BatchRequest

FACTORS = {"level": ["LOW", "HIGH"], "pattern": ["none", "left"]}
CELLS = ["LOW/none", "LOW/left", "HIGH/none", "HIGH/left"]
ORIGIN = Provenance("toy", "3", "champion", "run", "c", "d", "e", "0.1", "torch", 7, "id")


def header(size: int = 4, factors: dict[str, list[str]] = FACTORS) -> Header:
    agreed = plan({"LOW/none": 9, "LOW/left": 2}, "majority", cells=CELLS,
                  training_counts=dict.fromkeys(CELLS, 5))  # fmt: skip
    return Header(size, factors, agreed, ORIGIN)


def chunk(n: int, start: int = 0, size: int = 4) -> Chunk:
    random = np.random.default_rng(start)
    return Chunk(
        random.random((n, size, size), np.float32),
        [CELLS[i % 4] for i in range(n)],
        random.integers(0, 2**64, n, np.uint64),
        np.arange(start, start + n, dtype=np.uint32),
        random.random(n) < 0.5,
    )


def test_seeds_are_the_first_bytes_of_the_documented_hash():
    expected = hashlib.sha256(b"7|COR/bilateral|12").digest()[:8]
    assert sample_seed(7, "COR/bilateral", 12) == int.from_bytes(expected, "big")
    # A change of this number would change every image ever served.
    assert sample_seed(0, "a", 0) == 0x699BA3D2ED74BC27


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), max_size=4))
def test_what_was_encoded_is_decoded(sizes):
    sent = [chunk(n, start) for start, n in enumerate(sizes)]
    told, received = decode(io.BytesIO(b"".join(encode(header(), sent))))
    assert told == header()
    for ours, theirs in zip(sent, received, strict=True):
        assert theirs.images.dtype == np.float32
        for name in ("images", "seeds", "index", "unseen"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert ours.cells == theirs.cells


def test_every_row_says_what_it_is_to_any_arrow_reader():
    table = pa.ipc.open_stream(b"".join(encode(header(), [chunk(5)]))).read_all()
    assert table["synthetic"].to_pylist() == [True] * 5
    assert table["level"].to_pylist() == ["LOW", "LOW", "HIGH", "HIGH", "LOW"]
    assert table["pattern"].to_pylist() == ["none", "left", "none", "left", "none"]
    told = json.loads(table.schema.metadata[b"fastgan_aug.batch"])
    assert told["provenance"]["version"] == "3"
    assert told["provenance"]["synthetic"] is True


def test_every_record_batch_names_its_version():
    reader = pa.ipc.open_stream(b"".join(encode(header(), [chunk(5), chunk(2)])))
    told = [dict(named) for _, named in reader.iter_batches_with_custom_metadata()]
    assert told == [{b"fastgan_aug.version": b"3"}] * 2


def test_the_encoder_holds_one_chunk_at_a_time():
    made = []

    def source():
        for i in range(3):
            made.append(i)
            yield chunk(2, i)

    pieces = encode(header(), source())
    seen = [(len(next(pieces)), len(made)) for _ in range(4)]
    assert [n for _, n in seen] == [1, 2, 3, 3]
    assert all(length for length, _ in seen)


@pytest.mark.parametrize("column", ["seed", "image", "synthetic"])
def test_a_factor_may_not_hide_another_column(column):
    with pytest.raises(ConfigError, match=column):
        header(factors={column: ["a"], "pattern": ["b"]}).schema()


@pytest.mark.parametrize("data", [b"", b"no arrow at all", b"\0" * 400])
def test_other_bytes_are_refused(data):
    with pytest.raises((ValueError, OSError)):
        decode(io.BytesIO(data))


def test_an_image_that_is_not_finite_is_refused():
    bad = chunk(2)
    bad.images[1, 0, 0] = np.nan
    _, received = decode(io.BytesIO(b"".join(encode(header(), [bad]))))
    with pytest.raises(ValueError, match="outside"):
        list(received)


def test_every_error_travels_and_comes_back_as_its_own_class():
    for code, kind in error_classes().items():
        sent = kind("what", allowed="allowed", do="do")
        back = error_of(json.loads(json.dumps(problem(sent))))
        assert type(back) is kind
        assert (back.code, str(back)) == (code, str(sent))


def test_codes_are_unique_and_unknown_ones_become_the_base():
    assert error_classes()["cell-unseen"] is UnseenCell
    assert type(error_of({"code": "of-a-newer-server", "detail": "x"})) is FastGANAugError


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(CELLS), st.integers(1, 9)),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_ranges_of_positions_neither_repeat_nor_leave_out_an_image(generate, cuts):
    every = [(cell, i) for cell, n in generate.items() for i in range(n)]
    bounds = [0, *sorted(cuts), 40]
    parts = [list(positions(generate, a, b)) for a, b in pairwise(bounds)]
    assert [pair for part in parts for pair in part] == every


requests = st.builds(
    BatchRequest,
    counts=st.dictionaries(st.text(max_size=20), st.integers(-5, 10**9), max_size=5),
    target=st.sampled_from(["majority", "not minority"])
    | st.integers(-5, 10**9)
    | st.dictionaries(st.text(max_size=20), st.integers(0, 99), max_size=3),
    seed=st.integers(0, 2**64 - 1),
    max_ratio=st.none() | st.floats(0, 100),
    allow_unseen=st.booleans(),
    page=st.none() | st.tuples(st.integers(0, 9), st.integers(9, 2**53 - 1)),
)


@settings(deadline=None, max_examples=50)
@given(requests)
def test_a_request_survives_json(request_):
    assert BatchRequest.from_json(request_.to_json()) == request_


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"counts": None}, "counts"),
        ({"counts": [1]}, "counts"),
        ({"counts": {"a": 1.5}}, "counts"),
        ({"counts": {"a": True}}, "counts"),
        ({"counts": {"a": 10**9 + 1}}, "counts"),
        ({"counts": {"a" * 201: 1}}, "counts"),
        ({"target": "most"}, "target"),
        ({"target": None}, "target"),
        ({"target": True}, "target"),
        ({"target": {"a": "1"}}, "target"),
        ({"model": ""}, "model"),
        ({"model": "../x"}, "model"),
        ({"model": "a\n"}, "model"),
        ({"model": 3}, "model"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"max_ratio": -0.1}, "max_ratio"),
        ({"max_ratio": "1"}, "max_ratio"),
        ({"max_ratio": float("nan")}, "max_ratio"),
        ({"max_ratio": float("inf")}, "max_ratio"),
        ({"allow_unseen": 1}, "allow_unseen"),
        ({"request_id": "a b"}, "request_id"),
        ({"filter": {}}, "filter"),
    ],
)
def test_a_bad_field_is_named(change, named):
    with pytest.raises(BalanceError, match=named) as caught:
        BatchRequest.from_json(json.dumps({"counts": {"a": 1}} | change))
    assert caught.value.allowed


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000, b"{}"])
def test_a_body_that_is_no_request(body):
    with pytest.raises(BalanceError):
        BatchRequest.from_json(body)
