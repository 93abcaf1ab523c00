"""The client: in process for its laws, over a real socket for what breaks on the way."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from fastgan_aug.conditions import Cell
from fastgan_aug.errors import (
    BalanceError,
    DataError,
    FastGANAugError,
    ModelNotFound,
    RegistryError,
    ServiceUnavailable,
    StorageError,
    UnknownCell,
    UnseenCell,
)
from serving.attempts import ATTEMPTS
from serving.client import BalancedBatch, Client, request_balanced_batch
from serving.server.app import create_app
from tests.served import (
    ONE_COUNTS,
    ONE_FACTOR,
    FolderModels,
    InProcess,
    lineage,
    over_http,
    tiny_checkpoint,
)

COUNTS = {"disc": 60, "ring": 40, "bar": 24}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("serving.attempts.FIRST_PAUSE", 0.001)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return FolderModels(tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS)))


@pytest.fixture(scope="module")
def client(models) -> Iterator[Client]:
    with Client(transport=InProcess(create_app(models))) as opened:
        yield opened


@pytest.fixture(scope="module")
def batch(client):
    return client.request_balanced_batch(COUNTS, seed=7)


def test_what_was_asked_arrives(batch):
    assert Counter(batch.cells) == {"ring": 20, "bar": 36}
    for cell, row in batch.plan.asked.items():
        assert row.present + batch.cells.count(cell) == row.target == 60
    assert batch.images.shape == (56, 32, 32)
    assert batch.images.dtype == np.float32
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert len(np.unique(batch.seeds)) == 56
    assert batch.labels == {"shape": batch.cells}
    assert not batch.unseen.any()
    assert (batch.provenance.model, batch.provenance.alias) == ("toy", "champion")


def test_labels_count_as_their_counts(client, batch):
    y = np.asarray([name for name, n in COUNTS.items() for _ in range(n)])
    for counts in (y, list(y), {Cell((k,)): np.int64(n) for k, n in COUNTS.items()}):
        again = client.request_balanced_batch(counts, seed=np.int64(7))
        assert again.images.tobytes() == batch.images.tobytes()


def test_batches_as_they_come_are_the_batch_cut_in_pieces(client, batch):
    parts = list(client.iter_batches(COUNTS, seed=7, batch_size=20))
    assert [len(part) for part in parts] == [20, 20, 16]
    assert [part.header.page for part in parts] == [(0, 20), (20, 40), (40, 56)]
    assert b"".join(part.images.tobytes() for part in parts) == batch.images.tobytes()
    assert [cell for part in parts for cell in part.cells] == batch.cells
    assert list(client.iter_batches({"disc": 5})) == []
    with pytest.raises(BalanceError, match="batch_size"):
        list(client.iter_batches(COUNTS, batch_size=0))


def test_pages_of_any_length_make_the_same_batch(models, batch, monkeypatch):
    for page in (1, 7, 55, 56):
        monkeypatch.setattr("serving.exchange.PAGE", page)
        transport = Faulty(models, [])
        with Client(transport=transport) as client:
            again = client.request_balanced_batch(COUNTS, seed=7)
        assert again.images.tobytes() == batch.images.tobytes()
        assert again.header.page is None
        bodies = [json.loads(body) for body in transport.bodies]
        assert len(bodies) == -(-56 // page)
        assert len({body["request_id"] for body in bodies}) == 1
        assert {body["model"] for body in bodies[1:]} <= {"1"}  # the version that answered first


def test_a_service_that_sends_less_than_a_page_is_asked_again(models, batch):
    with Client(transport=InProcess(create_app(models, most_images=10))) as client:
        again = client.request_balanced_batch(COUNTS, seed=7)
    assert again.images.tobytes() == batch.images.tobytes()


def test_the_plan_is_the_batchs_own(client, batch):
    told = client.plan(COUNTS, seed=7)
    assert told.plan == batch.plan
    assert told.provenance.version == batch.provenance.version
    assert "ring    40     60    20  filled" in str(told)
    with pytest.raises(UnseenCell):
        client.plan({"disc": 5, "cross": 0})


def test_a_function_of_the_labels_is_a_target(client):
    y = np.asarray(["disc"] * 5 + ["ring"] * 2)
    seen = []

    def twice(labels):
        seen.append(labels)
        return {name: 2 * n for name, n in Counter(labels.tolist()).items()}

    batch = client.request_balanced_batch(y, twice)
    assert seen[0] is y
    assert Counter(batch.cells) == {"disc": 5, "ring": 2}
    assert client.plan((name for name in y), lambda labels: {"ring": len(labels)}).plan == (
        client.plan({"disc": 5, "ring": 2}, {"ring": 7}).plan
    )


def test_arrays_and_tensors_say_what_the_batch_holds(batch):
    images, y = batch.to_numpy()
    assert images is batch.images
    assert y.tolist() == batch.keys == batch.cells
    as_tensor, classes = batch.to_torch()
    assert as_tensor.shape == (56, 1, 32, 32)
    assert as_tensor.numpy().tobytes() == images.tobytes()
    assert [batch.classes[i] for i in classes] == batch.cells


def test_progress_is_shown_when_it_is_asked_for(client, capsys):
    client.request_balanced_batch(COUNTS, seed=7)
    assert capsys.readouterr().out == ""
    client.request_balanced_batch(COUNTS, seed=7, progress=True)
    assert "56/56" in capsys.readouterr().out


def test_a_file_keeps_everything(batch, tmp_path):
    path = tmp_path / "sub" / "batch.parquet"
    batch.to_parquet(path)
    back = BalancedBatch.read(path)
    assert back.header == batch.header
    assert back.cells == batch.cells
    for name in ("images", "seeds", "index", "unseen"):
        np.testing.assert_array_equal(getattr(back, name), getattr(batch, name))
    table = pq.read_table(path)
    assert table["synthetic"].to_pylist() == [True] * 56
    assert table["shape"].to_pylist() == batch.cells
    assert [p.name for p in path.parent.iterdir()] == ["batch.parquet"]


def test_a_file_that_is_no_batch(batch, tmp_path):
    whole = tmp_path / "batch.parquet"
    batch.to_parquet(whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-100])
    bare = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(whole).replace_schema_metadata(None), bare)
    fewer = tmp_path / "fewer.parquet"
    pq.write_table(pq.read_table(whole).slice(0, 9), fewer)
    for path in (tmp_path / "missing.parquet", cut, bare, fewer):
        with pytest.raises(DataError, match=path.name):
            BalancedBatch.read(path)


def test_a_place_that_cannot_be_written_leaves_the_old_file(batch, tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(StorageError):
        batch.to_parquet(tmp_path / "file" / "batch.parquet")
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"counts": {"square": 1}}, UnknownCell),
        ({"counts": {"disc": 5, "cross": 0}}, UnseenCell),
        ({"counts": {"disc": -1}}, BalanceError),
        ({"counts": {"disc": 5}, "target": 4}, BalanceError),
        ({"counts": {"disc": 5}, "target": {"ring": 4}}, BalanceError),
        ({"counts": {"disc": 5}, "target": {"disc": 4.5}}, BalanceError),
        ({"counts": {"disc": "5"}}, BalanceError),
        ({"counts": "disc"}, BalanceError),
        ({"counts": 5}, BalanceError),
        ({"counts": ["disc", None]}, BalanceError),
        ({"counts": {}}, BalanceError),
        ({"counts": {"disc": 5}, "filter": "good"}, BalanceError),
        ({"counts": {"disc": 5}, "seed": True}, BalanceError),
        ({"counts": {"disc": 5}, "seed": None}, BalanceError),
        ({"counts": {"disc": 5}, "max_ratio": -1}, BalanceError),
        ({"counts": {"disc": 5}, "model": "nobody"}, ModelNotFound),
    ],
)
def test_errors_come_back_as_their_own_class(client, arguments, error):
    with pytest.raises(error) as caught:
        client.request_balanced_batch(**arguments)
    assert type(caught.value) is error
    assert caught.value.do


def test_the_model_and_readiness(client):
    assert client.model()["training_counts"] == ONE_COUNTS
    assert client.ready()
    with pytest.raises(ModelNotFound):
        client.model("nobody")


# -- what breaks on the way ------------------------------------------------------------------------


class Faulty(httpx.BaseTransport):
    """Breaks the first attempts, then lets requests through; keeps their bodies."""

    def __init__(self, models: FolderModels, faults: list[object]) -> None:
        self._inner, self._faults = InProcess(create_app(models)), faults
        self.bodies: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        response = self._inner.handle_request(request)
        fault = self._faults.pop(0) if self._faults else None
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, int):
            return httpx.Response(fault, text="replica died")
        if fault == "cut":
            whole = response.read()
            return httpx.Response(200, content=whole[: len(whole) // 2])
        if fault == "short":
            return httpx.Response(200, content=response.read()[:-9000])
        return response


@pytest.mark.parametrize(
    "fault", [httpx.ReadError("gone"), httpx.RemoteProtocolError("gone"), 503, 500, "cut", "short"]
)
def test_a_lost_attempt_is_repeated_as_the_same_request(models, batch, fault):
    transport = Faulty(models, [fault])
    with Client(transport=transport) as client:
        again = client.request_balanced_batch(COUNTS, seed=7)
    assert again.images.tobytes() == batch.images.tobytes()
    first, second = (json.loads(body) for body in transport.bodies)
    assert first.pop("page")[0] <= second.pop("page")[0]
    assert first | {"model": second["model"]} == second


def test_it_gives_up_at_last(models):
    transport = Faulty(models, [503] * 9)
    with Client(transport=transport) as client, pytest.raises(ServiceUnavailable, match="503"):
        client.model()
    assert len(transport.bodies) == ATTEMPTS


def test_a_problem_of_the_registry_is_told_at_once():
    class Away:
        def get(self, model: str) -> None:
            raise RegistryError("the registry is away", do="start it")

        known = get

    with (
        Client(transport=InProcess(create_app(Away()))) as client,
        pytest.raises(RegistryError, match="away"),
    ):
        client.model()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_listens():
    url = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable, match=url) as caught:
        request_balanced_batch(COUNTS, url=url)
    assert "fastgan-aug serve" in caught.value.do
    assert time.monotonic() - began < 5
    with Client(url) as client:
        assert not client.ready()


@pytest.mark.parametrize("url", ["127.0.0.1:1", "ftp://127.0.0.1", "http://[", "http://a b"])
def test_an_address_that_is_none(url):
    with pytest.raises(ServiceUnavailable):
        request_balanced_batch(COUNTS, url=url)


def test_a_service_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.3) as client:
            with pytest.raises(ServiceUnavailable, match=r"0\.3 s"):
                client.model()
            assert not client.ready()


def test_another_service_listens_there():
    def other(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, text="what?")

    with (
        Client(transport=httpx.MockTransport(other)) as client,
        pytest.raises(ServiceUnavailable, match="404"),
    ):
        client.request_balanced_batch(COUNTS)


class Breaking:
    """A model whose generator fails on one cell."""

    def __init__(self, models: FolderModels, cell: str) -> None:
        self._model, self._cell = models.get("1"), Cell((cell,))

    def get(self, model: str):
        return self

    known = get

    def __getattr__(self, name: str):
        return getattr(self._model, name)

    @property
    def synthesizer(self):
        return self

    @property
    def space(self):
        return self._model.synthesizer.space

    @property
    def size(self):
        return self._model.synthesizer.size

    @property
    def class_counts(self):
        return self._model.synthesizer.class_counts

    def generate(self, cells, seeds):
        if self._cell in cells:
            raise RuntimeError("out of memory")
        return self._model.synthesizer.generate(cells, seeds)


@pytest.fixture
def serve_over_socket():
    with ExitStack() as running:
        yield lambda app: running.enter_context(over_http(app))


def test_over_a_socket_it_is_the_same(models, batch, serve_over_socket):
    url = serve_over_socket(create_app(models))
    again = request_balanced_batch(COUNTS, seed=7, url=url)
    assert again.images.tobytes() == batch.images.tobytes()


def test_a_failure_in_mid_stream_is_no_short_batch(models, serve_over_socket):
    url = serve_over_socket(create_app(Breaking(models, "bar")))
    with pytest.raises(FastGANAugError, match="RuntimeError"):
        request_balanced_batch(COUNTS, 400, url=url)


def test_a_failure_before_the_stream_is_an_error(models, serve_over_socket):
    url = serve_over_socket(create_app(Breaking(models, "ring")))
    with Client(url) as client, pytest.raises(Exception, match="RuntimeError") as caught:
        client.request_balanced_batch(COUNTS)
    assert caught.value.code == "error"


def test_the_client_brings_no_heavy_library():
    heavy = "{'torch', 'ray', 'mlflow', 'pydantic', 'fastapi', 'starlette', 'scipy', 'pandas'}"
    code = f"import sys, serving.client; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
