"""The compressed answer, over a real socket: decoded it is the plain one, byte by byte."""

from __future__ import annotations

import io
import json

import httpx
import pyarrow as pa
import pytest

from serving.batch import BalancedBatch
from serving.protocol import decode
from serving.server.app import create_app
from tests.served import ONE_COUNTS, ONE_FACTOR, FolderModels, lineage, over_http, tiny_checkpoint

BODY = json.dumps({"counts": {"disc": 200, "ring": 40}, "seed": 7, "request_id": "one"})


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    models = FolderModels(tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS)))
    with over_http(create_app(models)) as found:
        yield found


def asked(url: str, accepted: str) -> tuple[httpx.Headers, bytes]:
    """Headers and body as they travelled: httpx itself decodes only with another package."""
    headers = {"accept-encoding": accepted}
    with httpx.stream("POST", f"{url}/v1/balanced-batch", content=BODY, headers=headers) as answer:
        assert answer.status_code == 200
        return answer.headers, b"".join(answer.iter_raw())


def read(body: bytes) -> bytes:
    with pa.input_stream(pa.BufferReader(body), compression="zstd") as stream:
        return bytes(stream.read())


@pytest.mark.parametrize("accepted", ["zstd", "gzip, br, ZSTD;q=0.5"])
def test_what_is_decoded_are_the_bytes_of_the_plain_answer(url, accepted):
    plain, packed = asked(url, "identity"), asked(url, accepted)
    assert "content-encoding" not in plain[0]
    assert packed[0]["content-encoding"] == "zstd"
    assert packed[0]["vary"] == plain[0]["vary"] == "accept-encoding"
    assert len(packed[1]) < len(plain[1])
    assert read(packed[1]) == plain[1]
    assert len(BalancedBatch.collect(*decode(io.BytesIO(plain[1])))) == 160


@pytest.mark.parametrize("accepted", ["", "gzip", "zstd;q=0", "zstd; q=0.00", "zstdx"])
def test_who_does_not_name_it_gets_none(url, accepted):
    assert "content-encoding" not in asked(url, accepted)[0]
