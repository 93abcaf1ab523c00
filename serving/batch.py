"""`BalancedBatch`: generated images with labels, seeds and provenance; in memory and as a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastgan_aug.balance import BalancePlan
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import FICTION, REASONS, UNGROUPED, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import BalanceError, DataError
from fastgan_aug.target import SEPARATOR
from serving.extras import require
from serving.parquet import ROWS_PER_GROUP, merge_outcome, read_outcome, write_parquet
from serving.protocol import (
    Answer,
    Chunk,
    Header,
    Outcome,
    Provenance,
    add_outcome,
    from_arrow,
)

if TYPE_CHECKING:
    from torch import Tensor


class Gathering:
    """Images on their way into one batch; each is copied once, into memory taken at the start.

    Args:
        header: Its span says how many will come.
    """

    def __init__(self, header: Header) -> None:
        start, stop = header.span
        n = stop - start
        self._header, self._total, self._cells = header, n, list[str]()
        self._images = np.empty((n, header.size, header.size), np.float32)
        self._seeds, self._index = np.empty(n, np.uint64), np.empty(n, np.uint32)
        self._unseen, self._kept, self._come = np.empty(n, np.bool_), 0, 0
        judged = bool(header.provenance.filter)
        self._refusals = np.empty((n, len(REASONS)), np.uint8) if judged else None
        self._outcome: Outcome = {}

    @property
    def missing(self) -> int:
        """Images that have not come yet."""
        return self._total - self._come

    def add(self, chunk: Chunk) -> None:
        """Takes the next images.

        Raises:
            ValueError: more than planned.
        """
        if len(chunk.cells) > self.missing:
            raise ValueError(f"more than the {self._total} images planned")
        self._come += len(chunk.cells)
        add_outcome(self._outcome, chunk)
        if not chunk.filled.all():
            chunk = chunk[chunk.filled]
        part = slice(self._kept, self._kept + len(chunk.cells))
        self._kept = part.stop
        self._images[part], self._seeds[part] = chunk.images, chunk.seeds
        self._index[part], self._unseen[part] = chunk.index, chunk.unseen
        if self._refusals is not None and chunk.refusals is not None:
            self._refusals[part] = chunk.refusals
        self._cells += chunk.cells

    def leave_out(self, outcome: Outcome) -> None:
        """Takes what a filter did to images that a file does not hold."""
        merge_outcome(self._outcome, outcome)
        self._come += sum(told["unfilled"] for told in outcome.values())

    def fields(self) -> dict[str, Any]:
        """What a `BalancedBatch` is made of.

        Raises:
            ValueError: fewer images than planned.
        """
        if self.missing:
            raise ValueError(f"{self._come} images instead of the {self._total} planned")
        return {
            "header": self._header,
            "images": self._images[: self._kept],
            "cells": self._cells,
            "seeds": self._seeds[: self._kept],
            "index": self._index[: self._kept],
            "unseen": self._unseen[: self._kept],
            "refusals": None if self._refusals is None else self._refusals[: self._kept],
            "outcome": self._outcome,
        }


class Grouping:
    """Chunks of any length cut into batches of one size, the last one smaller.

    Args:
        header: Of all images.
        size: Images of a batch.
    """

    def __init__(self, header: Header, size: int) -> None:
        if size < 1:
            raise BalanceError(f"batch_size is {size!r}", allowed="an integer of 1 or more")
        self._header, self._size = header, size
        self._at = header.span[0]
        self._open = self._next()

    def add(self, chunk: Chunk) -> Iterator[BalancedBatch]:
        """Takes the next images, and gives the batches that they complete."""
        while chunk.cells:
            room = self._open.missing
            if not room:
                raise ValueError(f"more than the {self._header.plan.total_generate} images planned")
            self._open.add(chunk[:room])
            chunk = chunk[room:]
            if not self._open.missing:
                yield BalancedBatch(**self._open.fields())
                self._open = self._next()

    def _next(self) -> Gathering:
        page = (self._at, min(self._at + self._size, self._header.span[1]))
        self._at = page[1]
        return Gathering(replace(self._header, page=page))


@dataclass(frozen=True)
class BalancedBatch:
    """The answer to a request: N generated images.

    Attributes:
        header: Image size, factors, plan and provenance.
        images: (N, S, S) float32 in [0, 1], normalised counts; row 0 anterior and column 0 the
            patient's right where the training data were.
        cells: The cell of each image.
        seeds: (N,) uint64; model version, cell and seed determine the image.
        index: (N,) uint32, the image's number within its cell.
        unseen: (N,) whether the model never saw a training image of the cell.
        refusals: (N, reasons) uint8, how many images a filter refused before each, None without.
        outcome: Where a filter judged the images, per cell: requested, generated, accepted, refused
            by reason, and places that stayed unfilled after ``protocol.ATTEMPTS`` images.

    Example:
        >>> client = Client.offline(checkpoint)
        >>> batch = client.request_balanced_batch({"disc": 9, "ring": 6}, seed=7)
        >>> batch.images.shape, batch.labels, batch.provenance.seed
        ((3, 32, 32), {'shape': ['ring', 'ring', 'ring']}, 7)
    """

    header: Header
    images: NDArray[np.float32]
    cells: list[str]
    seeds: NDArray[np.uint64]
    index: NDArray[np.uint32]
    unseen: NDArray[np.bool_]
    refusals: NDArray[np.uint8] | None = None
    outcome: Outcome = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def whole(self) -> Chunk:
        """All images as one chunk, without a copy."""
        return Chunk(self.images, self.cells, self.seeds, self.index, self.unseen, self.refusals)

    @property
    def plan(self) -> BalancePlan:
        """How many images of which cell, and why any cell stayed short."""
        return self.header.plan

    @property
    def provenance(self) -> Provenance:
        """Model, version, run, digests and seed."""
        return self.header.provenance

    @cached_property
    def labels(self) -> Mapping[str, list[str]]:
        """One list of N values per factor."""
        values = [cell.split(SEPARATOR) for cell in self.cells]
        return {name: [v[i] for v in values] for i, name in enumerate(self.header.factors)}

    @cached_property
    def keys(self) -> list[str]:
        """The key of the request that each image was made for: a cell, or a factor's value."""
        asked = self.plan.asked
        return [
            cell if cell in asked else next(v for v in cell.split(SEPARATOR) if v in asked)
            for cell in self.cells
        ]

    @property
    def classes(self) -> tuple[str, ...]:
        """The request's keys in their order; ``to_torch`` numbers them so."""
        return tuple(self.plan.asked)

    @classmethod
    def collect(cls, header: Header, chunks: Iterable[Chunk]) -> Self:
        """Gathers a whole answer, each image copied once.

        Raises:
            ValueError: fewer or more images than planned: the stream broke off.
        """
        gathered = Gathering(header)
        for chunk in chunks:
            gathered.add(chunk)
        return cls(**gathered.fields())

    def to_parquet(self, path: Path | str) -> None:
        """Writes one Parquet file: a row an image, ``synthetic`` true on each, provenance inside.

        Raises:
            StorageError: the file cannot be written; an older file is kept.
        """
        there: Outcome = {}
        add_outcome(there, self.whole)
        left_out = {
            cell: {name: n - there.get(cell, {}).get(name, 0) for name, n in told.items()}
            for cell, told in self.outcome.items()
        }
        write_parquet(Answer(self.header, iter([self.whole])), Path(path), left_out)

    def to_numpy(self) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
        """Images (N, S, S) float32 in [0, 1], and the key of each (N,), as in ``y``."""
        return self.images, np.asarray(self.keys, np.str_)

    def to_torch(self) -> tuple[Tensor, Tensor]:
        """Images (N, 1, S, S) float32 in [0, 1], and the class of each (N,) int64.

        A class is the position of the image's key in ``classes``. The images are not copied.

        Raises:
            ConfigError: torch is not installed.
        """
        from serving.torch_data import tensors

        return tensors(self)

    def to_folder(self, path: Path | str) -> None:
        """Writes 16-bit PNG images and ``labels.csv``, which the folder importer reads back.

        A folder that holds an older export is replaced, any other is refused.

        Raises:
            ConfigError: Pillow is not installed.
            DataError: there is no image, or something else than an export stands there.
            StorageError: it cannot be written; nothing half-written is left.
        """
        self._export(path, "png", "PIL")

    def to_dicom(self, path: Path | str) -> None:
        """Writes a DICOM file an image, each marked as synthetic, and ``labels.csv``.

        Raises:
            ConfigError: pydicom is not installed.
            DataError: there is no image, or something else than an export stands there.
            StorageError: it cannot be written; nothing half-written is left.
        """
        self._export(path, "dicom", "pydicom")

    def _export(self, path: Path | str, file_format: str, needs: str) -> None:
        from fastgan_aug.data.exporters.export import export

        require(needs, "method")
        export(self.to_dataset(), Path(path), file_format)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Reads ``to_parquet`` back.

        Raises:
            DataError: no such file, damaged, or not a batch.
        """
        try:
            with pq.ParquetFile(path) as file:
                header = Header.of(file.schema_arrow)
                gathered = Gathering(header)
                for rows in file.iter_batches(ROWS_PER_GROUP):
                    gathered.add(from_arrow(rows, header.size))
                gathered.leave_out(read_outcome(file.metadata.metadata))
                return cls(**gathered.fields())
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read as a batch: {error}",
                allowed="a Parquet file written by BalancedBatch.to_parquet",
                do="ask for a batch with `fastgan-aug sample --out BATCH.parquet`",
            ) from error

    def to_dataset(self) -> Dataset:
        """The images as a data set: every row synthetic, of a patient who does not exist.

        ``data.exporters.export`` writes it as NPZ, PNG, NIfTI or DICOM. Beyond the usual
        columns: ``seed``, ``index`` and ``unseen``; the provenance is in ``meta.extra``.
        """
        origin, n = self.provenance, len(self)
        nobody = [f"synthetic-{origin.seed}-{i:06d}" for i in range(n)]
        meta = DatasetMeta(
            space=ConditionSpace.of(self.header.factors),
            size=self.header.size,
            source=f"generated by {origin.model} version {origin.version}",
            normalisation="as the training data",
            laterality=UNVERIFIED,  # that of the training data, which a batch does not tell
            grouping=UNGROUPED,
            pseudonym_key=FICTION,
            extra={"provenance": asdict(origin)},
        )
        return Dataset.build(
            meta,
            images=self.images,
            labels=self.labels,
            patient_id=nobody,
            scan_id=nobody,
            z=[0.0] * n,
            scale=[1.0] * n,
            unit="normalised counts",
            synthetic=True,
            extra={
                "seed": pa.array(self.seeds, pa.uint64()),
                "index": pa.array(self.index, pa.uint32()),
                "unseen": pa.array(self.unseen),
            },
        )
