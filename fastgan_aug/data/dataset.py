"""`Dataset`: one Parquet file, a row a slice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fastgan_aug.conditions import Cell, ConditionSpace
from fastgan_aug.data.schema import (
    ADJACENT_MM,
    BATCH_COLUMNS,
    LABELLED,
    METADATA_KEY,
    NEIGHBOUR,
    OWN_COLUMNS,
    DatasetMeta,
    image_type,
    images_from_arrow,
    images_to_arrow,
)
from fastgan_aug.errors import DataError, MissingPatientIds, UnknownFactorValue
from fastgan_aug.storage import replace_when_complete


@dataclass(frozen=True)
class Dataset:
    """Slices with their labels, patients and scans.

    Rows with role ``labelled`` have a value for every factor; rows with role ``neighbour`` have
    none and serve Eq. 6 only. Columns beyond the ones made by ``build`` (truth, masks) ride along.
    """

    table: pa.Table
    meta: DatasetMeta

    @classmethod
    def build(
        cls,
        meta: DatasetMeta,
        *,
        images: NDArray[np.float32],
        labels: Mapping[str, Sequence[str | None]],
        patient_id: Sequence[str | None],
        scan_id: Sequence[str],
        z: Sequence[float],
        scale: Sequence[float],
        unit: str = "counts",
        role: Sequence[str] | None = None,
        synthetic: bool | Sequence[bool] = False,
        extra: Mapping[str, pa.Array] | None = None,
    ) -> Self:
        """Builds and checks a data set.

        Args:
            meta: Facts of all rows.
            images: (N, S, S) float32 in [0, 1], normalised counts.
            labels: One sequence of values (None for neighbours) per factor.
            patient_id: Pseudonyms; required on every row.
            scan_id: Pseudonyms of scans, each of one patient.
            z: Position along the body axis, ascending towards the vertex: mm where
                ``meta.pixel_mm`` is known, else the slice index.
            scale: What ``image`` was divided by, in ``unit``.
            unit: Unit of ``scale``.
            role: ``labelled`` or ``neighbour``; by default labelled where every factor has a value.
            synthetic: Whether a row was generated.
            extra: Further columns.

        Raises:
            DataError: lengths differ, images are out of range or not finite, a role is wrong.
            MissingPatientIds: a patient id is missing or empty.
            UnknownFactorValue: a label is none of its factor's values.
        """
        n = len(images)
        if role is None:
            named = [[v is not None for v in labels[f]] for f in meta.space.names]
            labelled = np.all(named, axis=0)
            role = [LABELLED if flag else NEIGHBOUR for flag in labelled]
        marks = [synthetic] * n if isinstance(synthetic, bool) else list(synthetic)
        columns: dict[str, Any] = {"image": images_to_arrow(images)}
        columns |= {f: pa.array(list(labels[f]), pa.string()) for f in meta.space.names}
        columns |= {
            "patient_id": pa.array(list(patient_id), pa.string()),
            "scan_id": pa.array(list(scan_id), pa.string()),
            "z": pa.array(np.asarray(z, np.float32)),
            "role": pa.array(list(role), pa.string()),
            "scale": pa.array(np.asarray(scale, np.float64)),
            "unit": pa.array([unit] * n, pa.string()),
            "synthetic": pa.array(marks, pa.bool_()),
        }
        columns |= dict(extra or {})
        lengths = {name: len(column) for name, column in columns.items()}
        if set(lengths.values()) != {n}:
            raise DataError(
                f"the columns have different lengths: {lengths}", do="give one value per slice"
            )
        dataset = cls(pa.table(columns), meta)
        dataset.check()
        return dataset

    def check(self) -> None:
        """Verifies the rules of ``build``; called by ``build`` and ``read``."""
        _check_columns(self.table, self.meta)
        _check_patients(self)
        _check_labels(self)
        _check_images(self.images)

    # -- reading and writing ---------------------------------------------------------------

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Reads a Parquet file.

        Raises:
            DataError: no such file, not Parquet, or not a data set.
        """
        # A folder would be read as one table of all files in it; what Arrow says may name them.
        if not Path(path).is_file():
            raise _unreadable(path, "there is no such file")
        try:
            table = pq.ParquetFile(path).read()
        except OSError as error:
            raise _unreadable(path, error.strerror or "it is no Parquet file") from None
        except pa.ArrowException:
            raise _unreadable(path, "it is no Parquet file, or damaged") from None
        metadata = table.schema.metadata or {}
        meta = DatasetMeta.from_json(metadata.get(METADATA_KEY, b"{}").decode(errors="replace"))
        dataset = cls(table.replace_schema_metadata(None), meta)
        dataset.check()
        return dataset

    def write(self, path: Path | str) -> None:
        """Writes one Parquet file, beside and renamed.

        Raises:
            StorageError: the file cannot be written.
        """
        described = self.table.replace_schema_metadata({METADATA_KEY: self.meta.to_json()})
        with replace_when_complete(Path(path)) as temporary:
            pq.write_table(described, temporary, compression="zstd")

    @staticmethod
    def write_stream(path: Path, meta: DatasetMeta, tables: Iterable[pa.Table]) -> int:
        """Writes a data set part by part, in flat memory.

        Args:
            path: As for ``write``.
            meta: Facts of all rows.
            tables: Parts as ``build`` makes them, each a row group of the file; at least one.

        Returns:
            Rows written.

        Raises:
            StorageError: the file cannot be written.
        """
        rows = 0
        with replace_when_complete(path) as temporary, ExitStack() as stack:
            writer = None
            for table in tables:
                described = table.replace_schema_metadata({METADATA_KEY: meta.to_json()})
                if writer is None:
                    writer = stack.enter_context(
                        pq.ParquetWriter(temporary, described.schema, compression="zstd")
                    )
                writer.write_table(described)
                rows += len(table)
        return rows

    # -- columns -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """(N, S, S) float32 in [0, 1]."""
        return images_from_arrow(self.table["image"], self.meta.size)

    def column(self, name: str) -> NDArray[Any]:
        """A column as a numpy array; strings become objects, missing values None."""
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))

    @cached_property
    def cells(self) -> list[Cell | None]:
        """The cell of each row, None for neighbours."""
        columns = [self.table[f].to_pylist() for f in self.meta.space.names]
        return [None if None in v else Cell(v) for v in zip(*columns, strict=True)]

    @cached_property
    def cell_index(self) -> NDArray[np.int64]:
        """(N,) position of each row's cell in ``meta.space.cells``, -1 for neighbours."""
        index = self.meta.space.index
        return np.asarray([-1 if c is None else index(c) for c in self.cells], np.int64)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) whether the row is a labelled slice."""
        return np.asarray(self.column("role") == LABELLED)

    @property
    def patients(self) -> list[str]:
        """The patients' pseudonyms, sorted, each once."""
        return sorted(set(self.table["patient_id"].to_pylist()))

    @property
    def class_counts(self) -> dict[Cell, int]:
        """Labelled slices per cell, every cell of the space, empty ones with 0."""
        index = self.cell_index[self.labelled]
        counts = np.bincount(index, minlength=len(self.meta.space.cells))
        return {cell: int(n) for cell, n in zip(self.meta.space.cells, counts, strict=True)}

    @cached_property
    def digest(self) -> str:
        """Sha256 of content and metadata, whatever the file's encoding; 64 hex digits."""
        state = hashlib.sha256(self.meta.to_json().encode())
        for name in sorted(self.table.column_names):
            state.update(b"\0" + name.encode() + b"\0")
            state.update(_column_bytes(self.table[name]))
        return state.hexdigest()

    @cached_property
    def patient_digests(self) -> list[str]:
        """Sha256 of each pseudonym: lets a model say which patients it saw without naming one."""
        return [hashlib.sha256(p.encode()).hexdigest() for p in self.patients]

    # -- choosing rows -----------------------------------------------------------------------

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """The data set of these rows (positions, or a mask)."""
        positions = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return type(self)(self.table.take(pa.array(positions)).combine_chunks(), self.meta)

    def of_patients(self, patients: Sequence[str]) -> Self:
        """The rows of these patients, neighbours included."""
        return self.take(np.isin(self.column("patient_id").astype(str), list(patients)))

    def restrict(self, keep: Mapping[str, Sequence[str]]) -> Self:
        """Keeps labelled slices whose factors have these values, and all neighbours.

        Slices of other values become neighbours, since Eq. 6 may still draw on them.

        Raises:
            ConfigError: no such factor.
            UnknownFactorValue: the factor has no such value.
        """
        space, reduced = self.meta.space, self.meta.space.restrict(keep)
        kept = np.asarray([c is not None and c in reduced.cells for c in self.cells])
        table = self.table
        for name in space.names:
            old = table[name].to_pylist()
            new = pa.array([v if k else None for v, k in zip(old, kept, strict=True)], pa.string())
            table = table.set_column(table.column_names.index(name), name, new)
        roles = pa.array(np.where(kept, LABELLED, NEIGHBOUR).tolist(), pa.string())
        table = table.set_column(table.column_names.index("role"), "role", roles)
        meta = DatasetMeta(**{**self.meta.__dict__, "space": reduced})
        return type(self)(table, meta)

    def neighbours(self) -> list[NDArray[np.int64]]:
        """For each row, the adjacent rows below and above it in its own scan (none, one or two).

        Adjacent: no further apart than 1.5 times the smallest distance in the scan, nor than
        10 mm where z is in mm (``meta.pixel_mm`` is known), 1.5 where z is a slice index. Rows
        that share their z with another row of the scan have no neighbours and are none: which
        belongs to which cannot be told.
        """
        limit = 1.5 if self.meta.pixel_mm is None else ADJACENT_MM
        beside: list[list[int]] = [[] for _ in range(len(self))]
        scans, z = self.column("scan_id").astype(str), self.column("z").astype(np.float64)
        order = np.lexsort((z, scans))
        for rows in np.split(order, np.flatnonzero(scans[order][1:] != scans[order][:-1]) + 1):
            gaps = np.diff(z[rows])
            spacing = np.min(gaps[gaps > 0], initial=np.inf)
            shared = np.append(gaps == 0, False) | np.append(False, gaps == 0)
            adjacent = (gaps <= min(1.5 * spacing, limit)) & ~shared[1:] & ~shared[:-1]
            for i in np.flatnonzero(adjacent):
                beside[rows[i]].append(rows[i + 1])
                beside[rows[i + 1]].append(rows[i])
        return [np.asarray(found, np.int64) for found in beside]


def _unreadable(path: Path | str, why: str) -> DataError:
    return DataError(
        f"{path} cannot be read: {why}",
        allowed="a Parquet file made by this project",
        do="make one with `fastgan-aug data phantom` or `fastgan-aug data import`",
    )


def _column_bytes(column: pa.ChunkedArray) -> bytes:
    if pa.types.is_fixed_size_list(column.type):
        return b"".join(c.flatten().to_numpy(zero_copy_only=False).tobytes() for c in column.chunks)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return bytes(column.to_numpy().tobytes())
    return json.dumps(column.to_pylist()).encode()


def _check_columns(table: pa.Table, meta: DatasetMeta) -> None:
    taken = set(meta.space.names) & (OWN_COLUMNS | BATCH_COLUMNS)
    if taken:
        raise DataError(
            f"factors are named {sorted(taken)}",
            allowed="any name but " + ", ".join(sorted(OWN_COLUMNS | BATCH_COLUMNS)),
            do="rename the label columns",
        )
    missing = (OWN_COLUMNS | set(meta.space.names)) - set(table.column_names)
    if missing:
        raise DataError(
            f"the columns {sorted(missing)} are missing",
            allowed=", ".join(sorted(OWN_COLUMNS)) + " and one column per factor",
            do="import the images again with `fastgan-aug data import`",
        )
    if table["image"].type != image_type(meta.size):
        raise DataError(
            f"the image column is {table['image'].type}",
            allowed=f"{meta.size} x {meta.size} float32",
            do="import the images again with `fastgan-aug data import`",
        )


def _check_patients(dataset: Dataset) -> None:
    ids = dataset.table["patient_id"].to_pylist()
    missing = [i for i, p in enumerate(ids) if not p]
    if missing:
        raise MissingPatientIds(
            f"{len(missing)} of {len(ids)} rows have no patient id (first: row {missing[0]})",
            allowed="a pseudonym on every row",
            do="add the patient_id column: splits by patient are what every claim rests on",
        )
    owner: dict[str, str] = {}
    for scan, patient in zip(dataset.table["scan_id"].to_pylist(), ids, strict=True):
        if owner.setdefault(scan, patient) != patient:
            raise DataError(
                "one scan id belongs to two patients",
                allowed="each scan has one patient",
                do="make scan ids unique, for example patient_id plus a number",
            )


def _check_labels(dataset: Dataset) -> None:
    space = dataset.meta.space
    for factor in space.factors:
        found = set(dataset.table[factor.name].to_pylist()) - {None}
        if unknown := found - set(factor.values):
            raise _unknown_value(factor.name, sorted(unknown), space)
    roles = dataset.column("role")
    has_cell = dataset.cell_index >= 0
    if not set(roles) <= {LABELLED, NEIGHBOUR} or np.any((roles == LABELLED) != has_cell):
        raise DataError(
            "roles and labels disagree",
            allowed=f"{LABELLED!r} with a value for every factor, {NEIGHBOUR!r} with none",
            do="leave the role out: it follows from the labels",
        )


def _unknown_value(name: str, unknown: list[str], space: ConditionSpace) -> UnknownFactorValue:
    return UnknownFactorValue(
        f"{name} has the unknown values {unknown}",
        allowed=", ".join(space.factor(name).values),
        do=f"correct the {name} column, or declare the values",
    )


def _check_images(images: NDArray[np.float32]) -> None:
    if not np.isfinite(images).all() or (images.size and (images.min() < 0 or images.max() > 1)):
        good = np.isfinite(images) & (images >= 0) & (images <= 1)
        bad = np.flatnonzero(~good.all(axis=(1, 2)))
        raise DataError(
            f"{len(bad)} slices hold values that are not finite or outside [0, 1] "
            f"(first: row {bad[0]})",
            allowed="float32 in [0, 1]",
            do="divide each slice by its own maximum and keep that maximum as its scale",
        )
