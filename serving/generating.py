"""A request becomes a plan, and a plan becomes images: the same for a service and without one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.balance import BalancePlan, plan
from fastgan_aug.data.schema import REASONS
from fastgan_aug.errors import BalanceError
from serving.models import LoadedModel
from serving.protocol import ATTEMPTS, CHUNK, FILTER, Chunk, Header, positions, sample_seed
from serving.request import BatchRequest

if TYPE_CHECKING:
    from fastgan_aug.conditions import Cell
    from fastgan_aug.gan.synthesizer import Synthesizer
    from fastgan_aug.quality.sample_filter import SampleFilter


def decide(request: BatchRequest, model: LoadedModel, most_images: int | None = None) -> Header:
    """What will be generated and why, decided before any image is made.

    Args:
        request: What is asked.
        model: Who generates.
        most_images: Most images of one answer; None sets no bound. A page is shortened to it.

    Raises:
        BalanceError: the plan cannot be made, or has more than ``most_images`` without a page.
        UnknownCell: a key is neither a cell nor a value of exactly one factor.
        UnseenCell: a cell without training images would have to be generated.
    """
    synthesizer = model.synthesizer
    if request.filter and model.sample_filter is None:
        raise BalanceError(
            f"filter is {request.filter!r}, and version {model.version} has no filter",
            allowed="null: every image is returned",
            do="leave filter out, or train a version with selection.filter = true",
        )
    agreed = plan(
        request.counts,
        request.target,
        cells=[str(cell) for cell in synthesizer.space.cells],
        training_counts={str(cell): n for cell, n in synthesizer.class_counts.items()},
        max_ratio=request.max_ratio,
        allow_unseen=request.allow_unseen,
    )
    total, page = agreed.total_generate, None
    if request.page:
        start, stop = (min(position, total) for position in request.page)
        page = start, stop if most_images is None else min(stop, start + most_images)
    elif most_images is not None and total > most_images:
        raise BalanceError(
            f"{total} images would be generated",
            allowed=f"at most {most_images} images an answer",
            do="ask for them page by page, as this project's client does",
        )
    factors = synthesizer.space.to_dict()
    return Header(synthesizer.size, factors, agreed, model.provenance(request), page)


def chunks(
    model: LoadedModel,
    agreed: BalancePlan,
    seed: int,
    span: tuple[int, int] | None = None,
    *,
    filtered: bool = False,
) -> Iterator[Chunk]:
    """Generates what was planned, at most ``CHUNK`` images at a time, cell after cell.

    Args:
        model: Who generates.
        agreed: The plan.
        seed: Of the request.
        span: Positions of the images wanted (``Header.span``); None for all.
        filtered: Whether the model's filter judges them.
    """
    synthesizer = model.synthesizer
    waiting = positions(agreed.generate, *(span or (0, sum(agreed.generate.values()))))
    while part := list(islice(waiting, CHUNK)):
        names = [name for name, _ in part]
        cells = [synthesizer.space.parse(name) for name in names]
        seeds = np.asarray([sample_seed(seed, name, i) for name, i in part], np.uint64)
        images = synthesizer.generate(cells, seeds)
        chunk = Chunk(
            images,
            names,
            seeds,
            np.asarray([i for _, i in part], np.uint32),
            np.asarray([synthesizer.class_counts[cell] == 0 for cell in cells]),
            np.zeros((len(part), len(REASONS)), np.uint8) if filtered else None,
        )
        if filtered:
            _refill(model, chunk, cells, seed)
        yield chunk


def _refill(model: LoadedModel, chunk: Chunk, cells: list[Cell], seed: int) -> None:
    """Makes the images that the filter refuses anew, in place."""
    assert chunk.refusals is not None
    open_ones = np.arange(len(cells))
    for attempt in range(1, ATTEMPTS + 1):
        some = [cells[i] for i in open_ones]
        codes = judged(model, chunk.images[open_ones], some, chunk.seeds[open_ones])
        refused = codes > 0
        open_ones = open_ones[refused]
        chunk.refusals[open_ones, codes[refused] - 1] += 1
        if not len(open_ones) or attempt == ATTEMPTS:
            return
        for i in open_ones:
            chunk.seeds[i] = sample_seed(seed, chunk.cells[i], int(chunk.index[i]), attempt)
        some = [cells[i] for i in open_ones]
        chunk.images[open_ones] = model.synthesizer.generate(some, chunk.seeds[open_ones])


def judged(
    model: LoadedModel,
    images: NDArray[np.float32],
    cells: Sequence[Cell],
    seeds: NDArray[np.uint64],
) -> NDArray[np.uint8]:
    """What the model's filter says of its images: ``sample_filter.SampleFilter.judge``.

    It judges what the reference engine makes, so that the engine does not decide which images an
    answer has.
    """
    assert model.sample_filter is not None
    synthesizer = model.synthesizer
    if not synthesizer.by_reference:
        images = synthesizer.generate(cells, seeds, reference=True)
    index = np.asarray([synthesizer.space.index(cell) for cell in cells], np.int64)
    return model.sample_filter.judge(images, index)


def filter_of(folder: Path, synthesizer: Synthesizer) -> SampleFilter | None:
    """The filter of a checkpoint folder that was verified; None where it has none.

    Raises:
        CheckpointError: it is missing, or cannot be read.
    """
    if FILTER not in synthesizer.meta.files:
        return None
    from fastgan_aug.quality.sample_filter import SampleFilter

    return SampleFilter.load(folder / FILTER)
