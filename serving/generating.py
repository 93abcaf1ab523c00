"""A request becomes a plan, and a plan becomes images: the same for a service and without one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from fastgan_aug.balance import BalancePlan, plan
from fastgan_aug.errors import BalanceError
from serving.models import LoadedModel
from serving.protocol import CHUNK, Chunk, Header, positions, sample_seed
from serving.request import BatchRequest


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
    model: LoadedModel, agreed: BalancePlan, seed: int, span: tuple[int, int] | None = None
) -> Iterator[Chunk]:
    """Generates what was planned, at most ``CHUNK`` images at a time, cell after cell.

    Args:
        model: Who generates.
        agreed: The plan.
        seed: Of the request.
        span: Positions of the images wanted (``Header.span``); None for all.
    """
    synthesizer = model.synthesizer
    waiting = positions(agreed.generate, *(span or (0, sum(agreed.generate.values()))))
    while part := list(islice(waiting, CHUNK)):
        names = [name for name, _ in part]
        cells = [synthesizer.space.parse(name) for name in names]
        seeds = np.asarray([sample_seed(seed, name, i) for name, i in part], np.uint64)
        yield Chunk(
            synthesizer.generate(cells, seeds),
            names,
            seeds,
            np.asarray([i for _, i in part], np.uint32),
            np.asarray([synthesizer.class_counts[cell] == 0 for cell in cells]),
        )
