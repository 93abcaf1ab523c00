"""Requests and images per minute of each token, counted in this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from fastgan_aug.errors import RateExceeded
from serving.server.tokens import Token


class Bucket:
    """A token bucket that may go into debt: one large request passes, and is paid off afterwards.

    Args:
        per_minute: What flows in, and the most it holds.
        now: A clock, seconds.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._most, self._level, self._then = per_minute, per_minute, now

    def take(self, amount: float, now: float) -> float:
        """Takes ``amount`` if anything is left.

        Returns:
            0 where it was taken; else the seconds until something is left.
        """
        flow = self._most / 60
        self._level = min(self._most, self._level + (now - self._then) * flow)
        self._then = now
        needed = min(amount, 1.0, self._most)
        if self._level + 1e-9 < needed:
            return (needed - self._level) / flow
        self._level -= amount
        return 0.0


class Rates:
    """The limits of all tokens.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str, float], Bucket] = {}
        self._lock = threading.Lock()

    def take(self, token: Token, what: str, amount: float) -> None:
        """Counts ``amount`` ``requests`` or ``images`` of a token.

        Raises:
            RateExceeded: its minute is used up; ``retry_after`` says how long to wait.
        """
        per_minute = token.requests_per_minute if what == "requests" else token.images_per_minute
        if per_minute is None or not amount:
            return
        now = self._clock()
        with self._lock:
            # Keyed by the limit too: a changed limit begins with a full bucket.
            key = (token.name, what, per_minute)
            wait = self._buckets.setdefault(key, Bucket(per_minute, now)).take(amount, now)
        if wait:
            error = RateExceeded(
                f"the {what} per minute of {token.name!r} are used up",
                allowed=f"{per_minute:g} {what} per minute",
                do=f"ask again in {math.ceil(wait)} s",
            )
            error.retry_after = wait
            raise error
