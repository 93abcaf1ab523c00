"""How long a run has trained, on what, and when its time is up.

It is kept in the run's folder, beside the checkpoints and not in them: two runs of one
configuration leave the same bytes, however fast the machine was.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from fastgan_aug.errors import CheckpointError
from fastgan_aug.storage import replace_when_complete

log = logging.getLogger(__name__)
TIMES = "times.json"

Kind = Literal["checkpoint", "report", "score"]


@dataclass(frozen=True)
class Times:
    """What a run took until one of its checkpoints, from the first step on, pauses left out.

    Attributes:
        images_seen: Of the checkpoint.
        seconds: In all.
        checkpoint: Of these, for making and writing checkpoints.
        report: For handing them over to Ray Train, the wait for the other workers included.
        score: For scoring them.
    """

    images_seen: int = 0
    seconds: float = 0.0
    checkpoint: float = 0.0
    report: float = 0.0
    score: float = 0.0

    @property
    def overhead(self) -> float:
        """Share of the run that report and checkpoint took together; 0 before it began."""
        return (self.checkpoint + self.report) / self.seconds if self.seconds else 0.0

    def curves(self) -> dict[str, float]:
        """What is drawn over the images seen."""
        kinds = {name: getattr(self, name) for name in ("checkpoint", "report", "score")}
        return {"seconds": self.seconds} | {f"seconds/{k}": v for k, v in kinds.items()}


@dataclass(frozen=True)
class RunTimes:
    """The times of a run, as its folder holds them.

    Attributes:
        asked: Unix time of the latest fit's beginning.
        start: Seconds from then to its first step.
        points: At the checkpoints, oldest first.
    """

    asked: float = 0.0
    start: float = 0.0
    points: tuple[Times, ...] = ()

    @property
    def last(self) -> Times:
        """At the newest checkpoint."""
        return self.points[-1] if self.points else Times()

    def until(self, images_seen: int) -> tuple[Times, ...]:
        """The points that a checkpoint of so many images has behind it."""
        return tuple(point for point in self.points if point.images_seen <= images_seen)

    @classmethod
    def read(cls, folder: Path) -> RunTimes:
        """Of a run's folder; nothing where nothing was kept yet.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            values = json.loads((folder / TIMES).read_text(encoding="utf-8"))
            points = tuple(Times(**point) for point in values["points"])
            return cls(float(values["asked"]), float(values["start"]), points)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{folder / TIMES} cannot be read: {error}",
                do="remove it: a time budget of the run then begins anew",
            ) from error

    def write(self, folder: Path) -> None:
        """Into a run's folder.

        Raises:
            StorageError: it cannot be written.
        """
        with replace_when_complete(folder / TIMES) as temporary:
            temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")


class Stopwatch:
    """One worker's clock; runs from the first step on.

    Args:
        folder: Of the run.
        budget: Seconds that the run may train in all, earlier parts of a resumed run included;
            None for no limit.
        asked: Unix time at which the fit was asked for.
        writes: Whether this worker keeps the times in the folder.
    """

    def __init__(
        self, folder: Path, budget: float | None, asked: float, *, writes: bool = True
    ) -> None:
        self._folder, self._budget, self._writes = folder, budget, writes
        self._run, self._begun = RunTimes(asked), 0.0
        self._earlier = Times()
        self._spent: dict[Kind, float] = {"checkpoint": 0.0, "report": 0.0, "score": 0.0}

    def resume(self, images_seen: int) -> None:
        """Goes on from what the run had taken until a checkpoint of so many images."""
        known = RunTimes.read(self._folder)
        # Workers that replace lost ones belong to the same fit: its start was the first one.
        start = known.start if known.asked == self._run.asked else 0.0
        self._run = RunTimes(self._run.asked, start, known.until(images_seen))
        self._earlier = self._run.last

    def left(self) -> float:
        """Seconds until the budget is spent, infinite without one; the first call starts it."""
        if not self._begun:
            self._begun = time.perf_counter()
            start = self._run.start or time.time() - self._run.asked
            self._run = replace(self._run, start=start)
            self._spent = dict.fromkeys(self._spent, 0.0)  # before the first step nothing counts
            log.info("workers ready after %.1f s", start)
        return math.inf if self._budget is None else self._budget - self.seconds

    @property
    def seconds(self) -> float:
        """Of training until now, over all parts of the run."""
        return self._earlier.seconds + (time.perf_counter() - self._begun if self._begun else 0.0)

    @contextmanager
    def timing(self, kind: Kind) -> Iterator[None]:
        """Counts the block as that; what is counted inside as something else is left out."""
        begun, counted = time.perf_counter(), sum(self._spent.values())
        try:
            yield
        finally:
            inside = sum(self._spent.values()) - counted
            self._spent[kind] += time.perf_counter() - begun - inside

    def keep(self, images_seen: int) -> dict[str, float]:
        """Writes down what the run took until this checkpoint.

        Returns:
            The same as points of curves.

        Raises:
            StorageError: it cannot be written.
        """
        earlier, spent = self._earlier, self._spent
        point = Times(
            images_seen, self.seconds, earlier.checkpoint + spent["checkpoint"],
            earlier.report + spent["report"], earlier.score + spent["score"],
        )  # fmt: skip
        self._run = replace(self._run, points=(*self._run.points, point))
        if self._writes:
            self._run.write(self._folder)
        return point.curves() | {"seconds/start": self._run.start}
