"""What travels on the wire: the JSON request, the Arrow stream of the answer, the problems.

Standard library, numpy and pyarrow alone: client and server share this file.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastgan_aug.balance import BalancePlan
from fastgan_aug.data.schema import BATCH_COLUMNS, OWN_COLUMNS, REASONS, REFUSALS
from fastgan_aug.errors import ConfigError, FastGANAugError
from fastgan_aug.target import SEPARATOR

FORMAT = 1
METADATA_KEY = b"fastgan_aug.batch"
VERSION_KEY = b"fastgan_aug.version"
MEDIA_TYPE = "application/vnd.apache.arrow.stream"
PROBLEM_TYPE = "application/problem+json"
CHUNK = 64
FILTER = "filter.safetensors"  # of a checkpoint
ATTEMPTS = 8  # images made for one place at most, where a filter refuses them


def sample_seed(request_seed: int, cell: str, index: int, attempt: int = 0) -> int:
    """The seed of image ``index`` of ``cell``: it alone, with the model version, makes the image.

    Where a filter refuses an image the next ``attempt`` takes its place, so that each place of an
    answer is decided by itself, whatever was asked beside it.

    Returns:
        The first eight bytes of the sha256 of ``seed|cell|index``, with ``|attempt`` after the
        first, a uint64.
    """
    text = f"{request_seed}|{cell}|{index}" + (f"|{attempt}" if attempt else "")
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big")


def positions(generate: Mapping[str, int], start: int, stop: int) -> Iterator[tuple[str, int]]:
    """The images ``start`` to ``stop`` of all that are planned: cell by cell, each by its index.

    A page, a shard or what is left after a broken connection is such a range, so that each image
    keeps its cell, index and seed.

    Yields:
        Cell and index within the cell, as ``sample_seed`` takes them.
    """
    before = 0
    for cell, n in generate.items():
        for index in range(max(start - before, 0), min(stop - before, n)):
            yield cell, index
        before += n


@dataclass(frozen=True)
class Provenance:
    """Where the images of a batch come from: from it alone each of them can be made again.

    Attributes:
        model: Name of the registered model.
        version: Its version.
        alias: What was asked for, for example ``champion``; a version's own number otherwise.
        run_id: The tracking run that trained it.
        checkpoint: Sha256 of the checkpoint.
        dataset: Digest of the data set it was trained on.
        config: Digest of the configuration it was trained by.
        code_version: The code that trained it.
        engine: What computed the images, for example ``torch-2.13.0-cpu-fp32``.
        seed: Of the request; ``sample_seed`` derives each image's.
        request_id: Of the request.
        synthetic: Always true.
        filter: Sha256 of the filter that judged the images; empty where none did.
        prior: Sha256 of the weights the model's training started from; empty from scratch.
    """

    model: str
    version: str
    alias: str
    run_id: str
    checkpoint: str
    dataset: str
    config: str
    code_version: str
    engine: str
    seed: int
    request_id: str
    synthetic: bool = True
    filter: str = ""
    prior: str = ""


@dataclass(frozen=True)
class Header:
    """What the schema's metadata says of all images of a batch.

    Attributes:
        size: Rows and columns of an image.
        factors: ``{factor: values}`` in the condition space's order.
        plan: How many images of which cell, and why any cell stays short.
        provenance: Where the images come from.
        page: First position and the one after the last of the images that are here (``positions``);
            None where all are.
    """

    size: int
    factors: Mapping[str, Sequence[str]]
    plan: BalancePlan
    provenance: Provenance
    page: tuple[int, int] | None = None

    @property
    def span(self) -> tuple[int, int]:
        """First position of the images that are here, and the one after the last."""
        return self.page or (0, self.plan.total_generate)

    def __str__(self) -> str:
        """What each key has, wants and gets, and who generates it."""
        origin = self.provenance
        return f"{self.plan}\nby {origin.model} version {origin.version}, seed {origin.seed}"

    def schema(self) -> pa.Schema:
        """The Arrow schema of stream and file, this header in its metadata.

        Raises:
            ConfigError: a factor has the name of a column of data sets or batches.
        """
        reserved = OWN_COLUMNS | BATCH_COLUMNS
        clash = sorted(reserved & set(self.factors))
        if clash:
            raise ConfigError(
                f"factors are named {clash}",
                allowed="any names but " + ", ".join(sorted(reserved)),
                do="rename the factor in the data set",
            )
        columns = [("image", pa.list_(pa.float32(), self.size**2)), ("cell", pa.string())]
        columns += [(name, pa.string()) for name in self.factors]
        columns += [("seed", pa.uint64()), ("index", pa.uint32())]
        columns += [("unseen", pa.bool_()), ("synthetic", pa.bool_())]
        if self.provenance.filter:
            columns += [(name, pa.uint8()) for name in REFUSALS]
        return pa.schema(columns, metadata={METADATA_KEY: self.to_json()})

    def to_json(self) -> str:
        """Canonical JSON, as stored in the schema metadata."""
        plain = {
            "format": FORMAT,
            "size": self.size,
            "factors": {name: list(values) for name, values in self.factors.items()},
            "plan": self.plan.to_dict(),
            "provenance": asdict(self.provenance),
            "page": self.page,
        }
        return json.dumps(plain)

    @classmethod
    def of(cls, schema: pa.Schema) -> Self:
        """Reads the header back from a schema.

        Raises:
            ValueError: the metadata is missing, or of another format.
        """
        return cls.from_json((schema.metadata or {}).get(METADATA_KEY, b"{}"))

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Reads ``to_json`` back.

        Raises:
            ValueError: no header of this format.
        """
        try:
            plain = json.loads(text)
            page = plain.get("page")
            if plain["format"] != FORMAT:
                raise ValueError(f"format {plain['format']!r} instead of {FORMAT}")
            return cls(
                int(plain["size"]),
                plain["factors"],
                BalancePlan.from_dict(plain["plan"]),
                Provenance(**plain["provenance"]),
                (int(page[0]), int(page[1])) if page else None,
            )
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"no header of a batch: {error!r}") from error


@dataclass(frozen=True)
class Chunk:
    """At most ``CHUNK`` images on their way.

    Attributes:
        images: (n, S, S) float32 in [0, 1].
        cells: The cell of each.
        seeds: (n,) uint64, the seed of each.
        index: (n,) uint32, its number within its cell.
        unseen: (n,) whether the model never saw a training image of its cell.
        refusals: (n, len(REASONS)) uint8, how many images a filter refused before this one, by
            reason; None without a filter. After ``ATTEMPTS`` of them the place stays unfilled, and
            the last one that was refused stands there.
    """

    images: NDArray[np.float32]
    cells: list[str]
    seeds: NDArray[np.uint64]
    index: NDArray[np.uint32]
    unseen: NDArray[np.bool_]
    refusals: NDArray[np.uint8] | None = None

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> Chunk:
        """Some of the images; without a copy for a slice."""
        rows = np.arange(len(self.cells))[part]
        return Chunk(
            self.images[part], [self.cells[i] for i in rows], self.seeds[part], self.index[part],
            self.unseen[part], None if self.refusals is None else self.refusals[part],
        )  # fmt: skip

    @property
    def attempts(self) -> NDArray[np.int64]:
        """(n,) number of the attempt that each image is, from 0."""
        if self.refusals is None:
            return np.zeros(len(self.cells), np.int64)
        return np.asarray(np.minimum(self.refusals.sum(axis=1, dtype=np.int64), ATTEMPTS - 1))

    @property
    def filled(self) -> NDArray[np.bool_]:
        """(n,) whether the place has an image that was accepted."""
        if self.refusals is None:
            return np.ones(len(self.cells), np.bool_)
        return np.asarray(self.refusals.sum(axis=1, dtype=np.int64) < ATTEMPTS)


Outcome = dict[str, dict[str, int]]
"""Per cell what a filter did: requested, generated, accepted, unfilled, and refused by reason."""


def add_outcome(outcome: Outcome, chunk: Chunk) -> None:
    """Counts a chunk's places in; nothing where no filter judged them."""
    if chunk.refusals is None:
        return
    names, filled = np.asarray(chunk.cells), chunk.filled
    for cell in dict.fromkeys(chunk.cells):
        own = names == cell
        told = outcome.setdefault(cell, dict.fromkeys(OUTCOME, 0))
        refused = chunk.refusals[own].sum(axis=0, dtype=np.int64).tolist()
        accepted = int(filled[own].sum())
        found = (int(own.sum()), accepted + sum(refused), accepted, int((~filled[own]).sum()))
        for name, n in zip(OUTCOME, (*found, *refused), strict=True):
            told[name] += n


OUTCOME = ("requested", "generated", "accepted", "unfilled", *REASONS)


@dataclass(frozen=True)
class Answer:
    """What answers a request: known at once, and the images as they are made.

    Attributes:
        header: Plan and provenance.
        chunks: The images, once.
    """

    header: Header
    chunks: Iterator[Chunk]


def to_arrow(chunk: Chunk, schema: pa.Schema, factors: Sequence[str]) -> pa.RecordBatch:
    """One record batch of ``schema``; the images are not copied where contiguous."""
    flat = pa.array(np.ascontiguousarray(chunk.images, np.float32).reshape(-1))
    values = [cell.split(SEPARATOR) for cell in chunk.cells]
    columns: list[Any] = [pa.FixedSizeListArray.from_arrays(flat, type=schema.field("image").type)]
    columns.append(pa.array(chunk.cells, pa.string()))
    columns += [pa.array([v[i] for v in values], pa.string()) for i in range(len(factors))]
    columns += [pa.array(chunk.seeds, pa.uint64()), pa.array(chunk.index, pa.uint32())]
    columns += [pa.array(chunk.unseen), pa.array([True] * len(chunk.cells), pa.bool_())]
    if chunk.refusals is not None:
        columns += [pa.array(np.ascontiguousarray(row), pa.uint8()) for row in chunk.refusals.T]
    return pa.record_batch(columns, schema=schema)


def from_arrow(batch: pa.RecordBatch, size: int) -> Chunk:
    """Reads ``to_arrow`` back; the images are a view on the batch.

    Raises:
        ValueError: lengths or offsets that contradict each other, a missing value, an image out of
            [0, 1], or a row not marked synthetic.
    """
    batch.validate(full=True)  # what pyarrow trusts: a damaged one can end the process
    if any(column.null_count for column in batch.columns) or not all(
        batch["synthetic"].to_pylist()
    ):
        raise ValueError("a value is missing, or a row is not marked synthetic")
    images = batch["image"].flatten().to_numpy(zero_copy_only=False).reshape(-1, size, size)
    # NaN is neither: it comes out of both.
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError("an image has values outside [0, 1]")
    return Chunk(
        images,
        batch["cell"].to_pylist(),
        batch["seed"].to_numpy(),
        batch["index"].to_numpy(),
        batch["unseen"].to_numpy(zero_copy_only=False),
        _refusals(batch),
    )


def _refusals(batch: pa.RecordBatch) -> NDArray[np.uint8] | None:
    if REFUSALS[0] not in batch.schema.names:
        return None
    refusals = np.column_stack([batch[name].to_numpy() for name in REFUSALS])
    if refusals.size and refusals.sum(axis=1, dtype=np.int64).max() > ATTEMPTS:
        raise ValueError(f"a place was tried more than {ATTEMPTS} times")
    return refusals


def encode(header: Header, chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """The Arrow IPC stream of a batch, piece by piece: schema and first chunk, each other, the end.

    Never more than one chunk is held, so that a large answer never sits in memory. Each record
    batch names the model's version in metadata of its own.
    """
    schema, factors, sink = header.schema(), list(header.factors), io.BytesIO()
    named = {VERSION_KEY: header.provenance.version.encode()}
    with pa.ipc.new_stream(sink, schema) as writer:
        for chunk in chunks:
            writer.write_batch(to_arrow(chunk, schema, factors), custom_metadata=named)
            yield _drained(sink)
    yield _drained(sink)


def _drained(sink: io.BytesIO) -> bytes:
    piece = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return piece


def decode(stream: Any) -> tuple[Header, Iterator[Chunk]]:
    """Reads ``encode`` back while it arrives.

    Args:
        stream: A binary file open for reading.

    Raises:
        ValueError: no stream of this format (pyarrow's errors are ValueErrors too), also while
            iterating.
    """
    reader = pa.ipc.open_stream(stream)
    header = Header.of(reader.schema)
    if not reader.schema.equals(header.schema()):
        raise ValueError("the columns are not those of a batch")
    return header, (from_arrow(batch, header.size) for batch in reader)


# -- problems ------------------------------------------------------------------------------------


def problem(error: FastGANAugError) -> dict[str, Any]:
    """The members of an RFC 9457 problem; ``code`` is stable."""
    return {
        "type": error.code,
        "code": error.code,
        "title": (type(error).__doc__ or "").strip().splitlines()[0],
        "status": error.http_status,
        "detail": error.what,
        "allowed": error.allowed,
        "do": error.do,
    }


def error_of(members: Mapping[str, Any]) -> FastGANAugError:
    """The typed error that a problem tells of; the base class for a code of a newer server."""
    kind = error_classes().get(str(members.get("code")), FastGANAugError)
    what, allowed, do = (str(members.get(key) or "") for key in ("detail", "allowed", "do"))
    return kind(what or "the service refused without saying why", allowed=allowed, do=do)


def error_classes() -> dict[str, type[FastGANAugError]]:
    """The error tree by code."""
    found: dict[str, type[FastGANAugError]] = {}
    waiting: list[type[FastGANAugError]] = [FastGANAugError]
    while waiting:
        kind = waiting.pop()
        found.setdefault(kind.code, kind)
        waiting += kind.__subclasses__()
    return found
