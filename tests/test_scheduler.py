"""The scheduler: the same images however requests are packed, bounded queues, nothing left over."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import numpy as np
import pytest

from fastgan_aug.errors import Overloaded
from fastgan_aug.gan import synthesizer
from serving.protocol import CHUNK, Chunk, sample_seed
from serving.server.places import Place
from serving.server.scheduler import BATCH_SIZE, MOST_HELD, Job, Scheduler
from tests.served import (
    TWO_COUNTS,
    TWO_FACTORS,
    FolderModels,
    lineage,
    tiny_checkpoint,
)

CELLS = [cell for cell, n in TWO_COUNTS.items() if n]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    origin = lineage(TWO_FACTORS, TWO_COUNTS)
    return FolderModels(*(tiny_checkpoint(folder / str(i), origin, i) for i in (1, 2)))


def wanted(seed: int, n: int) -> list[Place]:
    names = [CELLS[(i + seed) % len(CELLS)] for i in range(n)]
    return [Place(name, sample_seed(seed, name, i), i) for i, name in enumerate(names)]


async def fetched(job: Job) -> list[Chunk]:
    found = []
    while (chunk := await job.fetch()) is not None:
        found.append(chunk)
    return found


async def asked(scheduler: Scheduler, model, seed: int, n: int) -> np.ndarray:
    chunks = await fetched(scheduler.submit(model, iter(wanted(seed, n)), n))
    sizes = [len(chunk.cells) for chunk in chunks]
    assert sizes == [CHUNK] * (n // CHUNK) + [n % CHUNK] * (n % CHUNK > 0)
    assert [int(s) for c in chunks for s in c.seeds] == [p.seed for p in wanted(seed, n)]
    return np.concatenate([chunk.images for chunk in chunks])


def alone(model, seed: int, n: int) -> np.ndarray:
    places = wanted(seed, n)
    cells = [model.synthesizer.space.parse(p.cell) for p in places]
    return model.synthesizer.generate(cells, np.asarray([p.seed for p in places], np.uint64))


def test_a_batch_is_the_generators():
    assert BATCH_SIZE == synthesizer.CHUNK
    assert MOST_HELD >= 2 * CHUNK


def test_images_do_not_depend_on_who_is_packed_beside_whom(models):
    sizes = [1, 3, 16, 17, 40, 64, 65, 150, 2, 1]

    async def together() -> list[np.ndarray]:
        scheduler = Scheduler()
        tasks = [asked(scheduler, models.get(str(1 + i % 2)), i, n) for i, n in enumerate(sizes)]
        return await asyncio.gather(*tasks)

    for i, (n, images) in enumerate(zip(sizes, asyncio.run(together()), strict=True)):
        assert images.tobytes() == alone(models.get(str(1 + i % 2)), i, n).tobytes()


def test_small_requests_share_a_batch_and_pass_a_large_one(models):
    seen: list[tuple[str, float]] = []

    async def both() -> list[str]:
        scheduler = Scheduler(measure=lambda s, value, _: seen.append((s.name, value)))
        model, order = models.get("1"), list[str]()

        async def one(name: str, seed: int, n: int) -> None:
            await asked(scheduler, model, seed, n)
            order.append(name)

        large = asyncio.create_task(one("large", 0, 1500))
        await asyncio.sleep(0)
        await asyncio.gather(large, *(one("small", i, 4) for i in range(1, 9)))
        scheduler.close()  # the last batch is counted after its images were fetched
        return order

    assert asyncio.run(both())[-1] == "large"
    batches = [value for name, value in seen if name == "fastgan_aug_batch_images"]
    assert sum(batches) == 1500 + 8 * 4
    assert len(batches) <= -(-(1500 + 32) // BATCH_SIZE) + 2


def test_who_does_not_fetch_is_not_generated_for(models):
    async def slow() -> tuple[int, int]:
        made = Counter[str]()
        scheduler = Scheduler(measure=lambda s, v, _: made.update({s.name: v}))
        job = scheduler.submit(models.get("1"), iter(wanted(0, 2000)), 2000)
        await job.fetch()
        await asyncio.sleep(0.5)
        held = made["fastgan_aug_images_total"]
        job.close()
        return int(held), scheduler.status()["images"]

    held, left = asyncio.run(slow())
    assert held <= CHUNK + MOST_HELD
    assert left == 0


def test_a_thousand_cancelled_requests_leave_nothing(models):
    async def cancelled() -> tuple[dict[str, object], bytes]:
        scheduler, model = Scheduler(), models.get("1")
        for i in range(1000):
            job = scheduler.submit(model, iter(wanted(i, 500)), 500)
            if i % 3 == 0:
                fetching = asyncio.create_task(job.fetch())
                await asyncio.sleep(0)
                fetching.cancel()
            if i % 50 == 0:
                await job.fetch()
            job.close()
            job.close()
        after = scheduler.status()
        images = await asyncio.wait_for(asked(scheduler, model, 7, 20), 30)
        return after, images.tobytes()

    after, images = asyncio.run(cancelled())
    assert (after["requests"], after["images"]) == (0, 0)
    assert images == alone(models.get("1"), 7, 20).tobytes()


def test_beyond_the_limits_requests_are_refused_with_a_time(models):
    async def crowd() -> None:
        scheduler, model = Scheduler(most_requests=2, most_images=5000), models.get("1")
        jobs = [scheduler.submit(model, iter(wanted(0, 9000)), 9000)]  # alone: taken on
        with pytest.raises(Overloaded, match="wait for") as caught:
            scheduler.submit(model, iter(wanted(0, 1)), 1)
        assert 1 <= caught.value.retry_after <= 60
        jobs[0].close()
        jobs = [scheduler.submit(model, iter(wanted(i, 600)), 600) for i in range(2)]
        with pytest.raises(Overloaded, match="2 requests"):
            scheduler.submit(model, iter(wanted(0, 1)), 1)
        health = scheduler.submit(model, iter(wanted(0, 1)), 1, always=True)
        assert await health.fetch() is not None
        for job in jobs:
            job.close()
        assert len(await asked(scheduler, model, 0, 5)) == 5

    asyncio.run(crowd())


def test_a_failing_model_fails_its_own_requests_alone(models):
    class Failing:
        space = models.get("1").synthesizer.space
        class_counts = models.get("1").synthesizer.class_counts

        def generate(self, cells, seeds):
            raise FloatingPointError("broken")

    from dataclasses import replace

    async def both() -> None:
        scheduler, good = Scheduler(), models.get("1")
        bad = replace(good, synthesizer=Failing())
        failing = scheduler.submit(bad, iter(wanted(0, 100)), 100)
        working = asyncio.create_task(asked(scheduler, good, 1, 100))
        with pytest.raises(FloatingPointError):
            await failing.fetch()
        assert (await working).tobytes() == alone(good, 1, 100).tobytes()
        assert scheduler.status()["requests"] == 0

    asyncio.run(both())


def test_ending_tells_those_who_wait(models):
    async def ending() -> None:
        scheduler, model = Scheduler(), models.get("1")
        job = scheduler.submit(model, iter(wanted(0, 5000)), 5000)
        await job.fetch()
        await asyncio.to_thread(scheduler.close)
        with pytest.raises(Overloaded, match="ending"):
            await fetched(job)
        with pytest.raises(Overloaded, match="ending"):
            scheduler.submit(model, iter(wanted(0, 1)), 1)

    began = time.monotonic()
    asyncio.run(ending())
    assert time.monotonic() - began < 10
