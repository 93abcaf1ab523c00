"""The end of a training by the clock, at the same step on all workers."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import torch

from fastgan_aug.gan.batch import Share


class Deadline:
    """Looks at the clock ever more often as the time runs out.

    A look waits for the device and asks all workers, so it must be rare: half of the steps that
    still fit pass until the next one. That makes about log2(n) looks in n steps, and an end that
    is a step late, or a few where the steps became more than twice as slow since the last look.

    Args:
        seconds_left: Of this worker; infinite, then and always, where there is no deadline.
        share: How the workers agree: on the mean of what they say.
        device: Where the steps run.
    """

    def __init__(
        self, seconds_left: Callable[[], float], share: Share, device: torch.device
    ) -> None:
        self._seconds_left, self._share, self._device = seconds_left, share, device
        self._steps, self._until = 0, 1  # since the last look, and how many until the next one
        self._since, self._pace = time.perf_counter(), 0.0  # of the last look; seconds per step

    def stepped(self) -> bool:
        """Told of every step; whether the time is up, where it is time to look."""
        self._steps += 1
        return self._steps >= self._until and self.look()

    def look(self) -> bool:
        """Whether the time is up; all workers look at the same step and get the same answer."""
        if math.isinf(self._seconds_left()):
            self._until = sys.maxsize
            return False
        # The host runs ahead of a GPU: only what the device has done counts.
        torch.zeros(1, device=self._device).item()
        now = time.perf_counter()
        pace = (now - self._since) / self._steps if self._steps else self._pace
        agreed = torch.tensor([self._seconds_left(), pace], device=self._device)
        if self._share.world > 1:
            self._share.average([agreed])
        left, self._pace = agreed.tolist()
        self._steps, self._since = 0, time.perf_counter()
        self._until = max(1, int(left / max(self._pace, 1e-6) / 2)) if self._pace else 1
        return bool(left < self._pace / 2 or left <= 0)
