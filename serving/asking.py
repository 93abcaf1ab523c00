"""What a caller asks for, in a caller's words: the same for every client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, Self, TypedDict, Unpack

from fastgan_aug.target import MAJORITY, Target, count_labels, key_text
from serving.batch import BalancedBatch, Gathering, Grouping
from serving.progress import shown
from serving.protocol import Answer, Chunk, Header
from serving.request import DEFAULT_MODEL, BatchRequest

Counts = Mapping[Any, int] | Iterable[Hashable]
Wanted = Target | Mapping[Any, int] | Callable[[Any], Mapping[Any, int]]
BATCH_SIZE = 1024


class Options(TypedDict, total=False):
    """The keywords of a request; ``Asker.request_balanced_batch`` tells what they mean."""

    model: str
    seed: int
    max_ratio: float | None
    filter: str | None
    allow_unseen: bool


class Asker(ABC):
    """Who can be asked for images: a `Client`, or an `OfflineClient`."""

    @abstractmethod
    def answer(self, request: BatchRequest) -> Answer:
        """Begins to answer: the header at once, the images as they are made."""

    @abstractmethod
    def planned(self, request: BatchRequest) -> Header:
        """What ``answer`` would say of the same request, before any image."""

    def __sklearn_clone__(self) -> Self:
        """Itself: estimators that are cloned share their client."""
        return self

    def request_balanced_batch(
        self,
        counts: Counts,
        target: Wanted = MAJORITY,
        *,
        model: str = DEFAULT_MODEL,
        seed: int = 0,
        max_ratio: float | None = None,
        filter: str | None = None,
        allow_unseen: bool = False,
        progress: bool = False,
    ) -> BalancedBatch:
        """Asks for the images that fill every cell of ``counts`` up to ``target``.

        Args:
            counts: Real images there are: a mapping by cell (or by the values of one factor), or
                a sequence of labels, as in ``y`` (a list, an array, a tensor, a series).
            target: Desired count after filling, real and synthetic together: an integer; a
                mapping (keys left out stay as they are); a function of ``counts`` that returns
                one; or a word. ``"majority"`` and ``"all"`` fill every cell to the largest count,
                ``"not majority"`` and ``"auto"`` all but the largest, ``"not minority"`` all but
                the smallest, ``"minority"`` the smallest alone.
            model: An alias (``champion``, ``candidate``) or a version's number.
            seed: The same request with the same seed, answered by the same version, gives the
                same images.
            max_ratio: Most synthetic per real image over the whole request; None fills exactly.
            filter: None returns every image. ``"default"`` has the version's own filter judge each
                one; what it refuses is made anew, and places that stay unfilled are left out:
                ``BalancedBatch.outcome`` tells how many and why.
            allow_unseen: Whether cells without training images may be generated.
            progress: Whether to show a bar, if rich is installed.

        Raises:
            BalanceError: counts and target cannot be met, or a value is not accepted.
            UnknownCell: the model has no such cell.
            UnseenCell: the model never saw such an image.
            ModelNotFound: no such version or alias.
            ServiceUnavailable: the service is not up, or did not answer in time.
        """
        request = request_of(
            counts, target, model=model, seed=seed, max_ratio=max_ratio, filter=filter,
            allow_unseen=allow_unseen,
        )  # fmt: skip
        answer = self.answer(request)
        gathered = Gathering(answer.header)
        for chunk in counted(answer, progress):
            gathered.add(chunk)
        return BalancedBatch(**gathered.fields())

    def iter_batches(
        self,
        counts: Counts,
        target: Wanted = MAJORITY,
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
        **options: Unpack[Options],
    ) -> Iterator[BalancedBatch]:
        """The images of ``request_balanced_batch`` in batches, as they come.

        Memory stays flat however many they are: one batch at a time. Nothing is generated much
        before it is taken, but for a page behind Serve's own Python proxy. Each batch knows its
        positions in the whole (``header.page``).

        Args:
            counts: As for ``request_balanced_batch``.
            target: As for ``request_balanced_batch``.
            batch_size: Images of a batch; the last one may have fewer.
            progress: Whether to show a bar, if rich is installed.
            options: As for ``request_balanced_batch``, and its errors.
        """
        answer = self.answer(request_of(counts, target, **options))
        grouping = Grouping(answer.header, batch_size)
        with closing(counted(answer, progress)) as chunks:
            for chunk in chunks:
                yield from grouping.add(chunk)

    def plan(self, counts: Counts, target: Wanted = MAJORITY, **options: Unpack[Options]) -> Header:
        """What would be generated, and why, before any image is made; ``print`` shows a table.

        Args:
            counts: As for ``request_balanced_batch``.
            target: As for ``request_balanced_batch``.
            options: As for ``request_balanced_batch``, and its errors.

        Returns:
            The header that the images would have; the table is its ``plan``.
        """
        return self.planned(request_of(counts, target, **options))


def request_of(
    counts: Counts,
    target: Wanted = MAJORITY,
    *,
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    max_ratio: float | None = None,
    filter: str | None = None,
    allow_unseen: bool = False,
) -> BatchRequest:
    """The request that a caller's arguments mean.

    Raises:
        BalanceError: a value is not accepted.
    """
    if not isinstance(counts, Mapping) and not hasattr(counts, "__len__"):
        counts = list(counts) if isinstance(counts, Iterable) else counts
    wanted = target(counts) if callable(target) else target
    return BatchRequest(
        _plain(counts) if isinstance(counts, Mapping) else count_labels(counts),
        _plain(wanted) if isinstance(wanted, Mapping) else _number(wanted),
        model,
        _number(seed),
        max_ratio,
        allow_unseen,
        filter=filter,
    )


def counted(answer: Answer, progress: bool) -> Generator[Chunk, None, None]:
    """The chunks of an answer; a bar shows how many images have come, if it is wanted."""
    start, stop = answer.header.span
    with shown(progress, stop - start) as advance:
        for chunk in answer.chunks:
            yield chunk
            advance(len(chunk.cells))


def _plain(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {key_text(key): _number(n) for key, n in mapping.items()}


def _number(value: Any) -> Any:
    """Numpy's integers as Python's; anything else stays, for the request to judge."""
    is_index = hasattr(value, "__index__") and not isinstance(value, bool)
    return int(value) if is_index else value
