"""`Scheduler`: one thread that runs the generator, on batches packed from all requests.

The generator takes batches of one fixed size, whatever they hold, and an image does not depend on
what stands beside it (`Synthesizer`). So the places of a batch are dealt out in turn among the
requests that wait: a small request is not stuck behind a large one, and small ones share a batch.
A request holds a few chunks that were not fetched at most; whoever reads slowly is passed over.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import Overloaded
from serving.generating import judged
from serving.models import LoadedModel
from serving.protocol import CHUNK, Chunk
from serving.server.measures import (
    BATCH,
    BATCH_SECONDS,
    IMAGES,
    WAITING_IMAGES,
    WAITING_REQUESTS,
    Measure,
    measure_nothing,
)
from serving.server.places import Place

if TYPE_CHECKING:
    from fastgan_aug.conditions import Cell

BATCH_SIZE = 16  # of the generator: `fastgan_aug.gan.synthesizer.CHUNK`
MOST_HELD = 4 * CHUNK  # images of a request that were generated and not yet fetched
LONGEST_PAUSE = 60.0
log = logging.getLogger(__name__)


class Job:
    """The images of one request: generated while they are fetched.

    Made by `Scheduler.submit`; fetched in the event loop that called it.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        model: LoadedModel,
        wanted: Iterator[Place],
        total: int,
        *,
        filtered: bool = False,
    ) -> None:
        self.model, self.left, self.held, self.closed = model, total, 0, False
        self.filtered = filtered
        self._scheduler, self._wanted = scheduler, wanted
        self._open: deque[Place] = deque()  # taken and not yet told, in the answer's order
        self._again: deque[Place] = deque()  # whose image was refused
        self._undecided = total
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Queue[Chunk | Exception] = asyncio.Queue()
        self._unfetched = total

    async def fetch(self) -> Chunk | None:
        """The next chunk, of ``CHUNK`` images but for the last; None after the last.

        Raises:
            Exception: what the generator raised.
        """
        if not self._unfetched:
            return None
        found = await self._ready.get()
        if isinstance(found, Exception):
            raise found
        self._unfetched -= len(found.cells)
        self._scheduler.fetched(self, len(found.cells))
        return found

    def close(self) -> None:
        """Gives up what was not generated yet; safe to call again, and after the end."""
        self._scheduler.drop(self)

    # -- called by the scheduler's thread, or with its lock held ---------------------------------

    @property
    def wants(self) -> bool:
        """Whether it may be given a place in a batch."""
        return self.room > 0

    @property
    def room(self) -> int:
        """Places it may be given."""
        return min(self.left, max(MOST_HELD - self.held, len(self._again)))

    def take(self) -> Place:
        """Its next place: one whose image was refused, or a new one."""
        self.left -= 1
        if self._again:
            return self._again.popleft()
        self.held += 1
        self._open.append(place := next(self._wanted))
        return place

    def give(self, made: list[Place], images: NDArray[np.float32], codes: NDArray[np.uint8]) -> int:
        """Takes images in; every full chunk, and the last, can be fetched.

        Returns:
            How many places need another image.
        """
        again = [
            place
            for place, image, code in zip(made, images, codes.tolist(), strict=True)
            if not place.decide(image, code)
        ]
        self._again += again
        self._undecided -= len(made) - len(again)
        decided = 0
        for place in self._open:
            if place.image is None:
                break
            decided += 1
        while decided >= CHUNK or (decided and decided == len(self._open) and not self._undecided):
            part = [self._open.popleft() for _ in range(min(CHUNK, decided))]
            decided -= len(part)
            self.tell(self._chunk(part))
        return len(again)

    def tell(self, found: Chunk | Exception) -> None:
        """Hands a chunk, or what went wrong, to the event loop."""
        try:
            self._loop.call_soon_threadsafe(self._ready.put_nowait, found)
        except RuntimeError:  # the loop has ended, and with it whoever waited
            self.close()

    def _chunk(self, taken: list[Place]) -> Chunk:
        synthesizer = self.model.synthesizer
        counts = {str(cell): n for cell, n in synthesizer.class_counts.items()}
        refusals = np.asarray([place.refused for place in taken], np.uint8)
        return Chunk(
            np.stack([place.image for place in taken if place.image is not None]),
            [place.cell for place in taken],
            np.asarray([place.seed for place in taken], np.uint64),
            np.asarray([place.index for place in taken], np.uint32),
            np.asarray([counts[place.cell] == 0 for place in taken], np.bool_),
            refusals if self.filtered else None,
        )


class Scheduler:
    """Takes requests on up to a limit, and generates their images.

    Args:
        most_requests: Requests that may wait at a time.
        most_images: Images that may wait at a time; a request larger than that is taken on alone.
        measure: Where numbers go.
    """

    def __init__(
        self,
        *,
        most_requests: int = 64,
        most_images: int = 1_000_000,
        measure: Measure = measure_nothing,
    ) -> None:
        self._most_requests, self._most_images = most_requests, most_images
        self._measure = measure
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._thread: threading.Thread | None = None
        self._closed = False
        self._speed = 100.0  # images per second, a moving mean
        self._last_made = -float("inf")

    def submit(
        self,
        model: LoadedModel,
        wanted: Iterator[Place],
        total: int,
        *,
        always: bool = False,
        filtered: bool = False,
    ) -> Job:
        """Takes a request on; to be called in an event loop.

        Args:
            model: What generates.
            wanted: The images, in the order of the answer.
            total: How many they are.
            always: Take it on however much waits: a health check.
            filtered: Whether the model's filter judges the images.

        Raises:
            Overloaded: too much waits already, or the service is ending.
        """
        job = Job(self, model, wanted, total, filtered=filtered)
        with self._changed:
            if not always:
                self._admit(total)
            if total:
                self._jobs.append(job)
                self._tell_waiting()
                self._start()
                self._changed.notify()
        return job

    def fetched(self, job: Job, images: int) -> None:
        """Images of a job left this process: it may be given new places."""
        with self._changed:
            job.held -= images
            self._changed.notify()

    def drop(self, job: Job) -> None:
        """Forgets a job."""
        with self._changed:
            job.closed = True
            if job in self._jobs:
                self._jobs.remove(job)
            job.left = 0
            self._tell_waiting()

    def status(self) -> dict[str, Any]:
        """What waits, and how fast it goes: JSON values."""
        with self._changed:
            return {
                "requests": len(self._jobs),
                "images": sum(job.left for job in self._jobs),
                "most_requests": self._most_requests,
                "most_images": self._most_images,
                "images_per_second": round(self._speed, 1),
            }

    def made_within(self, seconds: float) -> bool:
        """Whether the generator has finished a batch in the last ``seconds``."""
        return time.monotonic() - self._last_made < seconds

    def close(self) -> None:
        """Ends the thread after its batch; whoever waits is told that the service is ending."""
        with self._changed:
            self._closed = True
            for job in list(self._jobs):
                job.tell(_ending())
                self.drop(job)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(30)

    # -- with the lock held ----------------------------------------------------------------------

    def _admit(self, total: int) -> None:
        if self._closed:
            raise _ending()
        waiting = sum(job.left for job in self._jobs)
        crowded = len(self._jobs) >= self._most_requests
        if not crowded and (not self._jobs or waiting + total <= self._most_images):
            return
        error = Overloaded(
            f"{len(self._jobs)} requests wait for {waiting} images",
            allowed=f"{self._most_requests} requests and {self._most_images} images at a time",
            do="ask again later, or for fewer images",
        )
        error.retry_after = min(LONGEST_PAUSE, max(1.0, waiting / self._speed))
        raise error

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="generator", daemon=True)
            self._thread.start()

    def _tell_waiting(self) -> None:
        self._measure(WAITING_REQUESTS, len(self._jobs), {})
        self._measure(WAITING_IMAGES, sum(job.left for job in self._jobs), {})

    def _next_batch(self) -> list[tuple[Job, list[Place]]]:
        """Deals the places of a batch among the jobs of the first ready one's version."""
        ready = [job for job in self._jobs if job.wants]
        if not ready:
            return []
        same = [job for job in ready if job.model.synthesizer is ready[0].model.synthesizer]
        dealt: Counter[int] = Counter()
        while sum(dealt.values()) < BATCH_SIZE:
            open_ones = [i for i, job in enumerate(same) if dealt[i] < job.room]
            if not open_ones:
                break
            for i in open_ones[: BATCH_SIZE - sum(dealt.values())]:
                dealt[i] += 1
        batch = [(same[i], [same[i].take() for _ in range(n)]) for i, n in dealt.items()]
        for job, _ in batch:  # who was served goes to the end of the line
            self._jobs.remove(job)
            if job.left:
                self._jobs.append(job)
        return batch

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (batch := self._next_batch()):
                    if self._closed:
                        return
                    self._changed.wait()
            self._generate(batch)

    def _generate(self, batch: list[tuple[Job, list[Place]]]) -> None:
        began = time.perf_counter()
        model = batch[0][0].model
        wanted = [place for _, part in batch for place in part]
        try:
            parse = model.synthesizer.space.parse
            cells = [parse(place.cell) for place in wanted]
            seeds = np.asarray([place.seed for place in wanted], np.uint64)
            images = model.synthesizer.generate(cells, seeds)
            codes = _judged(model, images, cells, seeds, [j.filtered for j, p in batch for _ in p])
        except Exception as error:  # told to those who wait; the thread has to live on
            log.exception("the generator failed", extra={"facts": {"version": model.version}})
            for job, _ in batch:
                job.tell(error)
                self.drop(job)
            return
        at = 0
        for job, part in batch:
            if not job.closed:
                # A view: what is beside it belongs to others, and goes when they have copied it.
                rows = slice(at, at + len(part))
                self._once_more(job, job.give(part, images[rows], codes[rows]))
            at += len(part)
        self._count(model, len(wanted), time.perf_counter() - began)

    def _once_more(self, job: Job, places: int) -> None:
        """A job whose images were refused waits for as many more."""
        with self._changed:
            if places and not job.closed:
                job.left += places
                if job not in self._jobs:
                    self._jobs.append(job)

    def _count(self, model: LoadedModel, images: int, seconds: float) -> None:
        self._last_made = time.monotonic()
        # A batch takes as long however many of its places are taken.
        self._speed = 0.9 * self._speed + 0.1 * BATCH_SIZE / max(seconds, 1e-6)
        self._measure(IMAGES, images, {"version": model.version})
        self._measure(BATCH, images, {})
        self._measure(BATCH_SECONDS, seconds, {})
        with self._changed:
            self._tell_waiting()


def _judged(
    model: LoadedModel,
    images: NDArray[np.float32],
    cells: list[Cell],
    seeds: NDArray[np.uint64],
    filtered: list[bool],
) -> NDArray[np.uint8]:
    """(N,) what the filter says of those that are filtered; 0 for the others."""
    codes, rows = np.zeros(len(cells), np.uint8), np.flatnonzero(filtered)
    if len(rows):
        codes[rows] = judged(model, images[rows], [cells[i] for i in rows], seeds[rows])
    return codes


def _ending() -> Overloaded:
    return Overloaded("the service is ending", do="ask again: another replica answers")
