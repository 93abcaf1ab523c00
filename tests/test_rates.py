"""Limits: never more than a minute's worth at once, and no more than the flow afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_aug.errors import RateExceeded
from serving.server.rates import Rates
from serving.server.tokens import Token

HASH = "0" * 64


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(0.5, 1000), st.lists(st.floats(0, 20), max_size=60))
def test_requests_stay_below_burst_and_flow(limit: float, pauses: list[float]) -> None:
    clock = Clock()
    rates, token, taken = Rates(clock), Token("a", HASH, requests_per_minute=limit), 0
    for pause in pauses:
        clock.now += pause
        try:
            rates.take(token, "requests", 1)
            taken += 1
        except RateExceeded:
            pass
    assert taken <= max(limit, 1) + sum(pauses) * limit / 60 + 1


@given(st.floats(1, 1000), st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_waiting_as_told_is_enough(limit: float, amounts: list[int]) -> None:
    clock = Clock()
    rates, token = Rates(clock), Token("a", HASH, images_per_minute=limit)
    for amount in amounts:
        try:
            rates.take(token, "images", amount)
        except RateExceeded as error:
            clock.now += error.retry_after + 1e-6
            rates.take(token, "images", amount)


def test_names_are_counted_apart_and_no_limit_is_none() -> None:
    rates = Rates(Clock())
    first, second = (Token(name, HASH, requests_per_minute=1) for name in "ab")
    rates.take(first, "requests", 1)
    rates.take(second, "requests", 1)
    with pytest.raises(RateExceeded, match="'a'"):
        rates.take(Token("a", "1" * 64, requests_per_minute=1), "requests", 1)
    for _ in range(100):
        rates.take(Token("c", HASH), "requests", 1)
