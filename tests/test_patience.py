"""A paged call that has to wait in the middle: for its quota, or for a service that fell silent."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pytest

from fastgan_aug.errors import RateExceeded, ServiceUnavailable
from serving.attempts import ATTEMPTS
from serving.client import Client
from serving.server.app import create_app
from serving.server.rates import Rates
from serving.server.tokens import TokenStore, entry_text, make_token
from tests.served import ONE_COUNTS, ONE_FACTOR, FolderModels, InProcess, lineage, tiny_checkpoint

COUNTS = {"disc": 60, "ring": 40, "bar": 24}  # lacks 56 images
PAGE = 40


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return FolderModels(tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS)))


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> list[float]:
    """Seconds of the server, which the client's pauses move on; pages are small."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("serving.client.time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr("serving.exchange.PAGE", PAGE)
    monkeypatch.setattr("serving.server.app.Rates", lambda: Rates(lambda: now[0]))
    return now


class Silent(InProcess):
    """Answers the first requests, then is silent for some."""

    def __init__(self, app: object, silences: list[Exception], answers: int = 1) -> None:
        super().__init__(app)
        self._silences, self._answers = silences, answers

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._answers -= 1
        if self._answers < 0 and self._silences:
            raise self._silences.pop()
        return super().handle_request(request)


def limited(models) -> tuple[object, str]:
    secret, entry = make_token("lab", "generate", images_per_minute=6)
    store = TokenStore(lambda: entry_text(entry), lambda: None)
    return create_app(models, tokens=store), secret


def test_with_a_deadline_the_client_waits_for_its_quota(models, clock):
    app, secret = limited(models)
    with Client(transport=InProcess(app), token=secret, deadline=900) as client:
        assert len(client.request_balanced_batch(COUNTS)) == 56
    assert 340 < clock[0] < 370  # the first page leaves a debt of 34 at 6 a minute


def test_without_one_it_says_how_and_keeps_what_came(models, clock):
    app, secret = limited(models)
    with Client(transport=InProcess(app), token=secret) as client:
        parts = client.iter_batches(COUNTS, batch_size=8)
        came = [next(parts) for _ in range(PAGE // 8)]
        with pytest.raises(RateExceeded, match="images per minute") as caught:
            next(parts)
    assert "deadline=" in caught.value.do
    assert [len(part) for part in came] == [8] * 5
    assert not clock[0]


@pytest.mark.parametrize("kind", [httpx.ConnectTimeout, httpx.ReadTimeout])
def test_silence_in_the_middle_is_a_lost_attempt(models, kind):
    app = create_app(models)
    with Client(transport=InProcess(app)) as client:
        whole = client.request_balanced_batch(COUNTS)
    with Client(transport=Silent(app, [kind("late"), kind("late")])) as client:
        again = client.request_balanced_batch(COUNTS)
    assert again.images.tobytes() == whole.images.tobytes()
    endless = Silent(app, [kind("late") for _ in range(ATTEMPTS)])
    with Client(transport=endless) as client, pytest.raises(ServiceUnavailable, match="nothing"):
        client.request_balanced_batch(COUNTS)
    at_once = Silent(app, [kind("late")], answers=0)
    with Client(transport=at_once) as client, pytest.raises(ServiceUnavailable, match="nothing"):
        client.request_balanced_batch(COUNTS)
