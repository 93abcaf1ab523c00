"""When a lost attempt is repeated, how long it waits, and what is told at last."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import httpx
import pytest

from fastgan_aug.errors import (
    BalanceError,
    ConfigError,
    FastGANAugError,
    ServiceUnavailable,
    UnseenCell,
)
from serving.address import Address, is_loopback
from serving.attempts import ATTEMPTS, FIRST_PAUSE, LONGEST_PAUSE, Attempts, Lost, refusal
from serving.protocol import PROBLEM_TYPE, problem

HERE = "http://127.0.0.1:9"


def attempts(**changes: object) -> Attempts:
    plain = {"url": HERE, "timeout": 5.0, "deadline": None, "token": None}
    return Attempts(Address.of(**plain | changes))


def answer(status: int, body: str = "", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, text=body, headers=sent, request=httpx.Request("GET", HERE))


def test_pauses_grow_with_jitter_and_end():
    tried = attempts()
    for number in range(ATTEMPTS - 1):
        pause = tried.pause(Lost("gone"))
        grown = min(FIRST_PAUSE * 2**number, LONGEST_PAUSE)
        assert grown / 2 <= pause <= grown
    with pytest.raises(ServiceUnavailable, match="gone"):
        tried.pause(Lost("gone"))
    first = {attempts().pause(Lost("gone")) for _ in range(20)}
    assert len(first) > 10


def test_new_images_begin_the_count_anew():
    tried = attempts()
    for _ in range(3 * ATTEMPTS):
        tried.pause(Lost("gone"))
        tried.progressed()


def test_nobody_there_is_told_at_once_unless_somebody_was():
    with pytest.raises(ServiceUnavailable, match="fastgan-aug serve"):
        attempts().pause(httpx.ConnectError("refused"))
    tried = attempts()
    tried.answered()
    assert tried.pause(httpx.ConnectError("refused")) > 0
    with pytest.raises(ServiceUnavailable):
        tried.pause(httpx.UnsupportedProtocol("ftp"))


@pytest.mark.parametrize("kind", [httpx.ConnectTimeout, httpx.ReadTimeout, httpx.WriteTimeout])
def test_silence_is_told_at_once_unless_somebody_was_there(kind):
    with pytest.raises(ServiceUnavailable, match="sent nothing"):
        attempts().pause(kind("late"))
    tried = attempts()
    tried.answered()
    for _ in range(ATTEMPTS - 1):
        assert tried.pause(kind("late")) > 0
    with pytest.raises(ServiceUnavailable, match="sent nothing"):
        tried.pause(kind("late"))
    tried = attempts(deadline=0.0)
    tried.answered()
    with pytest.raises(ServiceUnavailable, match="deadline"):
        tried.pause(kind("late"))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True])
def test_the_service_says_how_long_to_wait(status, as_date):
    told = formatdate(time.time() + 8.5, usegmt=True) if as_date else "7"
    lost = refusal(answer(status, "busy", retry_after=told))
    assert isinstance(lost, Lost)
    assert 6.5 <= attempts().pause(lost) <= 8.5


@pytest.mark.parametrize("told", ["", "soon", "-3"])
def test_a_retry_after_that_says_nothing_is_none(told):
    lost = refusal(answer(503, "busy", retry_after=told))
    assert isinstance(lost, Lost)
    assert attempts().pause(lost) <= FIRST_PAUSE


def test_who_asks_for_an_hour_is_told_to_the_caller():
    told = problem(ServiceUnavailable("the quota is used up")) | {"status": 429}
    lost = refusal(answer(429, json.dumps(told), retry_after="3600", content_type=PROBLEM_TYPE))
    with pytest.raises(ServiceUnavailable, match="quota") as caught:
        attempts().pause(lost)
    assert "deadline= of more than 3600 s" in caught.value.do
    assert attempts(deadline=4000.0).pause(lost) >= 3600
    with pytest.raises(ServiceUnavailable, match="not done within 100 s"):
        attempts(deadline=100.0).pause(lost)


def test_what_no_repetition_changes_is_told_as_its_own_class():
    body = json.dumps(problem(UnseenCell("never seen")))
    assert isinstance(refusal(answer(422, body, content_type=PROBLEM_TYPE)), UnseenCell)
    newer = json.dumps({"code": "of-a-newer-server", "detail": "x"})
    assert type(refusal(answer(418, newer, content_type=PROBLEM_TYPE))) is FastGANAugError
    assert isinstance(refusal(answer(404, "what?")), ServiceUnavailable)
    assert isinstance(refusal(answer(500, "replica died")), Lost)
    assert isinstance(refusal(answer(502, "[]", content_type=PROBLEM_TYPE)), Lost)


def test_a_deadline_ends_waiting_before_it_is_over():
    tried = attempts(deadline=0.05)
    assert tried.timeout.read <= 0.05
    with pytest.raises(ServiceUnavailable, match="deadline") as caught:
        tried.pause(Lost("gone", retry_after=1.0))
    assert "0.05 s" in caught.value.what
    time.sleep(0.06)
    with pytest.raises(ServiceUnavailable, match="deadline"):
        tried.progressed()
    with pytest.raises(ServiceUnavailable, match="deadline"):
        tried.pause(httpx.ReadTimeout("late"))


# -- addresses and tokens --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://example.org", "https://10.0.0.7:8443", HERE, "http://127.8.9.1",
            "http://localhost:8000", "http://[::1]:8000"],
)  # fmt: skip
def test_a_token_travels_encrypted_or_not_at_all(url):
    options = Address.of(url, 5.0, None, "abc.DEF-1~2_3+4/5==").options
    assert options["headers"]["authorization"] == "Bearer abc.DEF-1~2_3+4/5=="


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://10.0.0.7:8000", "http://localhost.example.org",
            "http://127.0.0.1.example.org", "http://[fe80::1]", "http://0.0.0.0:8000"],
)  # fmt: skip
def test_a_token_is_refused_over_plain_http_to_others(url, monkeypatch):
    with pytest.raises(ConfigError, match="unencrypted") as caught:
        Address.of(url, 5.0, None, "secret")
    assert "secret" not in str(caught.value)
    assert "authorization" not in Address.of(url, 5.0, None, None).options["headers"]
    monkeypatch.setenv("FASTGAN_AUG_TOKEN", "secret")
    with pytest.raises(ConfigError, match="unencrypted"):
        Address.of(url, 5.0, None, None)


def test_the_environment_gives_the_token_where_the_caller_gives_none(monkeypatch):
    monkeypatch.setenv("FASTGAN_AUG_TOKEN", "theirs")
    assert Address.of(HERE, 5.0, None, None).token == "theirs"
    found = Address.of(HERE, 5.0, None, "mine")
    assert found.token == "mine"
    assert "mine" not in repr(found)


@pytest.mark.parametrize("token", ["a b", "a\r\nx: y", "a\n", "ä", "=a"])
def test_a_token_that_no_header_may_hold(token):
    with pytest.raises(ConfigError) as caught:
        Address.of(HERE, 5.0, None, token)
    assert token not in str(caught.value)


def test_loopback_is_this_machine_alone():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("", "10.0.0.1", "::", "example.org", "127.0.0.1.org")))


def test_a_value_that_is_refused_is_a_value_error_too():
    assert issubclass(BalanceError, ValueError)
