"""Any number of images into a folder of Parquet shards: resumable, the same images everywhere.

    _plan.json              the header of all images; a folder belongs to one plan
    part-00000.parquet      SHARD images, a range of positions in the plan, provenance inside
    _manifest.json          written last: the folder is complete

The folder lies here or in an object store. A shard that is there is whole, and a run that was ended
goes on with those that are missing. Names with ``_`` are passed over by readers of Parquet folders.
Who runs the shards, processes or a cluster, is given by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fastgan_aug.errors import DataError, StorageError
from fastgan_aug.storage import replace_when_complete
from serving.out_folder import OutFolder
from serving.parquet import merge_outcome, read_outcome, write_parquet
from serving.protocol import Answer, Header, Outcome

SHARD = 2048  # images; of 64 x 64 pixels 32 MiB before compression
PLAN, MANIFEST, PART = "_plan.json", "_manifest.json", "part-{:05d}.parquet"
LARGEST_NUMBER = 99_999
READERS = 16  # shards whose ends are read at a time: in an object store each is a wait
Row = dict[str, Any]
# Runs a `ShardWriter` on each row and gives its answers, in any order.
Engine = Callable[["ShardWriter", Sequence[Row]], Iterable[Row]]


@dataclass(frozen=True)
class ShardWriter:
    """Makes one shard after another; sent to the process that does it.

    Attributes:
        checkpoint: Folder that every worker can read.
        folder: Where the shards go, a path or a URI; every worker can write there.
        header: Of all images, as JSON.
        threads: torch threads of a worker.
    """

    checkpoint: str
    folder: str
    header: str
    threads: int = 1

    def open(self) -> Callable[[Row], Row]:
        """Loads the checkpoint, once for all the shards that a worker makes."""
        from fastgan_aug.gan.synthesizer import Synthesizer
        from serving.generating import chunks, filter_of
        from serving.models import LoadedModel

        header, folder = Header.from_json(self.header), OutFolder.of(self.folder)
        origin = header.provenance
        synthesizer = Synthesizer.load(Path(self.checkpoint), threads=self.threads)
        if synthesizer.meta.digest != origin.checkpoint or synthesizer.engine != origin.engine:
            raise DataError(
                f"a worker has checkpoint {synthesizer.meta.digest[:12]} on {synthesizer.engine}",
                allowed=f"those of the plan: {origin.checkpoint[:12]} on {origin.engine}",
                do="use the same checkpoint and the same torch on every machine",
            )
        model = LoadedModel(
            synthesizer, origin.model, origin.version, origin.alias, origin.run_id,
            filter_of(Path(self.checkpoint), synthesizer),
        )  # fmt: skip

        def write(row: Row) -> Row:
            part = replace(header, page=(row["start"], row["stop"]))
            made = chunks(model, header.plan, origin.seed, part.span, filtered=bool(origin.filter))
            folder.put(PART.format(row["number"]), partial(write_parquet, Answer(part, made)))
            return row

        return write

    def __call__(self, row: Row) -> Row:
        """Makes one shard.

        Args:
            row: ``number``, ``start`` and ``stop``: positions in the plan.
        """
        return self.open()(row)


def sample_into(
    out: Path | str, header: Header, checkpoint: Path, engine: Engine, threads: int = 1
) -> Iterator[int]:
    """Generates what a plan says into a folder; goes on where an earlier run ended.

    Args:
        out: New, empty, or of the same plan; a folder, or the URI of one in an object store.
        header: Of all images.
        checkpoint: Who generates.
        engine: Who runs the shards.
        threads: torch threads of a worker.

    Yields:
        Images that are there: first those of earlier runs, then after each shard.

    Raises:
        ConfigError: the URI cannot be understood.
        DataError: the folder holds another plan, or something else.
        StorageError: a shard cannot be written; those that are there stay.
    """
    folder = OutFolder.of(out)
    there = check_folder(folder)
    header = _taken(folder, there, header)
    rows = shards(header)
    waiting = [row for row in rows if PART.format(row["number"]) not in there]
    done = header.plan.total_generate - _images(waiting)
    yield done
    writer = ShardWriter(str(checkpoint), folder.name, header.to_json(), threads)
    for row in engine(writer, waiting) if waiting else ():
        done += _images([row])
        yield done
    _complete(folder, header, rows)


def check_folder(folder: OutFolder) -> set[str]:
    """Verifies that images may go into a folder.

    Returns:
        The names of what is there.

    Raises:
        DataError: it is a file, or holds something else than a sample.
        StorageError: it cannot be listed.
    """
    there = folder.names()
    if PLAN not in there and any(not name.startswith("_") for name in there):
        raise DataError(
            f"{folder} holds something else than a sample",
            allowed="a new or empty folder, or one that was begun by the same request",
            do="choose another --out",
        )
    return there


def shards(header: Header) -> list[Row]:
    """The rows that `ShardWriter` takes: ranges of ``SHARD`` positions."""
    total = header.plan.total_generate
    if total > SHARD * (LARGEST_NUMBER + 1):
        raise DataError(
            f"{total} images are planned",
            allowed=f"at most {SHARD * (LARGEST_NUMBER + 1)} in one folder",
            do="share them among several folders with different seeds",
        )
    starts = range(0, total, SHARD)
    return [
        {"number": i, "start": start, "stop": min(start + SHARD, total)}
        for i, start in enumerate(starts)
    ]


def _images(rows: Iterable[Mapping[str, int]]) -> int:
    return sum(row["stop"] - row["start"] for row in rows)


def _taken(folder: OutFolder, there: set[str], header: Header) -> Header:
    """The header to go on with: the folder's own, if it was begun with the same plan."""
    if PLAN not in there:
        folder.put(PLAN, partial(_write_text, text=header.to_json()))
        return header
    try:
        begun = Header.from_json(folder.read(PLAN, lambda stream: stream.read().decode()))
    except ValueError as error:
        raise DataError(
            f"{PLAN} of {folder} cannot be read: {error}", do="choose another --out"
        ) from error
    if _same(begun) != _same(header):
        raise DataError(
            f"{folder} was begun by another request: {begun.plan.total_generate} images of "
            f"version {begun.provenance.version}, seed {begun.provenance.seed}",
            allowed="the same counts, target, seed, checkpoint and engine",
            do="repeat that request, or choose another --out",
        )
    for name in there:
        if name.startswith("part-") and ".tmp-" in name:  # of a run that was killed
            folder.remove(name)
    return begun


def _write_text(path: Path, text: str) -> None:
    with replace_when_complete(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _same(header: Header) -> Header:
    return replace(header, provenance=replace(header.provenance, request_id="", alias=""))


def _complete(folder: OutFolder, header: Header, rows: Sequence[Row]) -> None:
    def told(name: str) -> tuple[int, Outcome]:
        ending = folder.read(name, pq.read_metadata)
        return ending.num_rows, read_outcome(ending.metadata)

    names = [PART.format(row["number"]) for row in rows]
    images, outcome = 0, Outcome()
    with ThreadPoolExecutor(READERS) as readers:
        for found, unfilled in readers.map(told, names):
            images += found
            merge_outcome(outcome, unfilled)
    if images + sum(cell["unfilled"] for cell in outcome.values()) != header.plan.total_generate:
        raise StorageError(
            f"{folder} holds {images} images instead of {header.plan.total_generate}",
            do="remove the shards that another program changed, and run the command again",
        )
    manifest = {"images": images, "shards": names} | ({"filter": outcome} if outcome else {})
    folder.put(MANIFEST, partial(_write_text, text=json.dumps(manifest, indent=1)))
