"""Batches as Parquet files, written as they come; what a filter left unfilled is told beside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fastgan_aug.storage import replace_when_complete
from serving.protocol import Answer, Chunk, Outcome, add_outcome, to_arrow

ROWS_PER_GROUP = 1024
OUTCOME_KEY = "fastgan_aug.unfilled"


def write_parquet(answer: Answer, path: Path, left_out: Outcome | None = None) -> None:
    """Writes images into one Parquet file as they come, so that memory stays flat.

    Places that a filter left unfilled are no rows; the file's metadata tell of them.

    Args:
        answer: Header and images.
        path: Of the file.
        left_out: What a filter did to places that the answer does not hold any more.

    Raises:
        StorageError: the file cannot be written; an older file is kept.
    """
    header, unfilled = answer.header, left_out or {}
    schema, factors = header.schema(), list(header.factors)
    with (
        replace_when_complete(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for group in _row_groups(answer.chunks, unfilled):
            writer.write_batch(to_arrow(group, schema, factors))
        if unfilled:
            writer.add_key_value_metadata({OUTCOME_KEY: json.dumps(unfilled)})


def _row_groups(chunks: Iterable[Chunk], unfilled: Outcome) -> Iterator[Chunk]:
    """The filled places in groups of one size, the last one smaller; the others are counted."""
    held: list[Chunk] = []
    for chunk in chunks:
        filled = chunk.filled
        if not filled.all():
            add_outcome(unfilled, chunk[~filled])
            chunk = chunk[filled]
        while chunk.cells:
            room = ROWS_PER_GROUP - sum(len(part.cells) for part in held)
            held.append(chunk[:room])
            chunk = chunk[room:]
            if sum(len(part.cells) for part in held) == ROWS_PER_GROUP:
                yield _joined(held)
                held = []
    if held:
        yield _joined(held)


def _joined(parts: list[Chunk]) -> Chunk:
    refusals = [part.refusals for part in parts if part.refusals is not None]
    return Chunk(
        np.concatenate([part.images for part in parts]),
        [cell for part in parts for cell in part.cells],
        np.concatenate([part.seeds for part in parts]),
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.unseen for part in parts]),
        np.concatenate(refusals) if refusals else None,
    )


def merge_outcome(into: Outcome, other: Outcome) -> None:
    """Adds what a filter did to other places."""
    for cell, told in other.items():
        own = into.setdefault(cell, dict.fromkeys(told, 0))
        for name, n in told.items():
            own[name] += n


def read_outcome(metadata: Mapping[bytes, bytes] | None) -> Outcome:
    """What a filter did to the places that a Parquet file has no rows for; {} where none did.

    Raises:
        ValueError: the metadata are damaged.
    """
    told = json.loads((metadata or {}).get(OUTCOME_KEY.encode(), b"{}"))
    return {str(cell): {str(k): int(n) for k, n in row.items()} for cell, row in told.items()}
