"""Repeating what was lost on the way: when, how often, and the error at last. No input or output.

A request may be repeated because the same request gives the same images: seeds come from it alone.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx

from fastgan_aug.errors import FastGANAugError, ServiceUnavailable
from serving.address import CONNECT_SECONDS, Address
from serving.protocol import PROBLEM_TYPE, error_of

ATTEMPTS = 8  # without a single new image between them
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 300.0  # without a deadline: more patience than that is for a person to grant
RETRIED_STATUS = (429, 503)
T = TypeVar("T")
log = logging.getLogger(__name__)


class Lost(Exception):
    """An attempt was lost; what is missing may be asked for again.

    Args:
        why: What happened.
        told: The typed error that the service gave as its reason, if it gave one.
        retry_after: Seconds that the service wants to be left alone.
    """

    def __init__(
        self, why: str, told: FastGANAugError | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(why)
        self.told, self.retry_after = told, retry_after


REPEATED = (Lost, httpx.TransportError, httpx.DecodingError)


class Attempts:
    """The attempts at one call.

    Args:
        address: Whose time limits hold.
    """

    def __init__(self, address: Address) -> None:
        self._address, self._lost, self._answered = address, 0, False
        self._end = None if address.deadline is None else time.monotonic() + address.deadline

    @property
    def timeout(self) -> httpx.Timeout:
        """Of the next attempt."""
        seconds = self._address.timeout
        if self._end is not None:
            seconds = max(min(seconds, self._end - time.monotonic()), 0.001)
        return httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))

    def answered(self) -> None:
        """Somebody is there: from now on, nobody there means that it starts again."""
        self._answered = True

    def progressed(self) -> None:
        """New images came: the count of lost attempts begins anew.

        Raises:
            ServiceUnavailable: the deadline is over.
        """
        self._lost = 0
        if self._end is not None and time.monotonic() > self._end:
            raise self._address.overdue("images were still coming")

    def pause(self, error: Exception) -> float:
        """Seconds to wait before the next attempt, with jitter, as long as the service asks for.

        Raises:
            FastGANAugError: no further attempt is of use; what the service told, or that it is not
                there.
        """
        silent = isinstance(error, (httpx.ConnectError, httpx.TimeoutException))
        if (silent and not self._answered) or isinstance(error, httpx.UnsupportedProtocol):
            raise self._final(error) from error
        self._lost += 1
        asked = (error.retry_after if isinstance(error, Lost) else None) or 0.0
        if self._lost >= ATTEMPTS:
            raise self._final(error) from error
        if self._end is None and asked > LONGEST_RETRY_AFTER:
            raise _patience(self._final(error), asked) from error
        grown = min(FIRST_PAUSE * 2.0 ** (self._lost - 1), LONGEST_PAUSE)
        seconds = max(grown * random.uniform(0.5, 1.0), asked)
        if self._end is not None and time.monotonic() + seconds > self._end:
            raise self._address.overdue(error) from error
        log.warning("attempt lost (%s); trying again in %.2g s", error, seconds)
        return seconds

    def _final(self, error: Exception) -> FastGANAugError:
        if self._end is not None and time.monotonic() >= self._end:
            return self._address.overdue(error)
        told = error.told if isinstance(error, Lost) else None
        return told or self._address.unavailable(error)


def _patience(told: FastGANAugError, asked: float) -> FastGANAugError:
    """What the service told, and how a caller waits that long all the same."""
    more = (
        f"without deadline= a client waits {LONGEST_RETRY_AFTER:g} s at most: with deadline= of "
        f"more than {math.ceil(asked)} s it waits and goes on; iter_batches keeps what came"
    )
    return type(told)(told.what, allowed=told.allowed, do="; ".join(filter(None, [told.do, more])))


def refusal(response: httpx.Response) -> Exception:
    """What an answer that is no success means: a typed error, or `Lost`.

    Args:
        response: Read to its end.
    """
    told, status = _problem_of(response), response.status_code
    why = f"status {status}: {response.content[:200].decode(errors='replace')}"
    if status in RETRIED_STATUS:
        return Lost(why, told, _retry_after(response.headers))
    if told is not None:
        return told
    # A replica that dies is told as 500 in plain text by the proxy: the next one may answer.
    if response.is_server_error:
        return Lost(why)
    return ServiceUnavailable(
        f"{response.url} answered {status} without a problem description",
        allowed="the address of this project's service",
        do="check the address: another service may listen there",
    )


def readable(response: httpx.Response, read: Callable[[httpx.Response], T]) -> T:
    """What a short answer says.

    Args:
        response: Read to its end.
        read: Raises ValueError where it makes no sense.

    Raises:
        Exception: as ``refusal`` tells.
    """
    if not response.is_success:
        raise refusal(response)
    try:
        return read(response)
    except ValueError as error:
        raise Lost(f"the answer cannot be read: {error}") from error


def _problem_of(response: httpx.Response) -> FastGANAugError | None:
    if not response.headers.get("content-type", "").startswith(PROBLEM_TYPE):
        return None
    try:
        return error_of(json.loads(response.content))
    except (ValueError, AttributeError):
        return None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which has seconds or a date (RFC 9110, 10.2.3)."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return max(seconds, 0.0)
