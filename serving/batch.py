"""`BalancedBatch`: generated images with labels, seeds and provenance; in memory and as a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastgan_aug.balance import BalancePlan
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import FICTION, UNGROUPED, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import DataError
from fastgan_aug.storage import replace_when_complete
from fastgan_aug.target import SEPARATOR
from serving.protocol import Chunk, Header, Provenance, from_arrow, to_arrow

ROWS_PER_GROUP = 1024


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
    """

    header: Header
    images: NDArray[np.float32]
    cells: list[str]
    seeds: NDArray[np.uint64]
    index: NDArray[np.uint32]
    unseen: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.cells)

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

    @classmethod
    def collect(cls, header: Header, chunks: Iterable[Chunk]) -> Self:
        """Gathers a whole answer, each image copied once.

        Raises:
            ValueError: fewer or more images than planned: the stream broke off.
        """
        start, stop = header.span
        total, at = stop - start, 0
        images = np.empty((total, header.size, header.size), np.float32)
        seeds, index = np.empty(total, np.uint64), np.empty(total, np.uint32)
        unseen, cells = np.empty(total, np.bool_), list[str]()
        for chunk in chunks:
            end = at + len(chunk.cells)
            if end > total:
                raise ValueError(f"more than the {total} images planned")
            images[at:end], seeds[at:end] = chunk.images, chunk.seeds
            index[at:end], unseen[at:end] = chunk.index, chunk.unseen
            cells += chunk.cells
            at = end
        if at != total:
            raise ValueError(f"{at} images instead of the {total} planned")
        return cls(header, images, cells, seeds, index, unseen)

    def to_parquet(self, path: Path | str) -> None:
        """Writes one Parquet file: a row an image, ``synthetic`` true on each, provenance inside.

        Raises:
            StorageError: the file cannot be written; an older file is kept.
        """
        schema, factors = self.header.schema(), list(self.header.factors)
        with (
            replace_when_complete(Path(path)) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for chunk in self._chunks():
                writer.write_batch(to_arrow(chunk, schema, factors))

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Reads ``to_parquet`` back.

        Raises:
            DataError: no such file, damaged, or not a batch.
        """
        try:
            with pq.ParquetFile(path) as file:
                header = Header.of(file.schema_arrow)
                rows = file.iter_batches(ROWS_PER_GROUP)
                return cls.collect(header, (from_arrow(r, header.size) for r in rows))
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

    def _chunks(self) -> Iterator[Chunk]:
        for start in range(0, len(self), ROWS_PER_GROUP):
            part = slice(start, start + ROWS_PER_GROUP)
            yield Chunk(
                self.images[part],
                self.cells[part],
                self.seeds[part],
                self.index[part],
                self.unseen[part],
            )
