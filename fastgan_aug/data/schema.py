"""The schema of a data set's Parquet file: what its metadata says, and how images are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace, json_with_space
from fastgan_aug.errors import DataError

FORMAT = 2
METADATA_KEY = b"fastgan_aug"
LABELLED, NEIGHBOUR = "labelled", "neighbour"
RADIOLOGICAL, UNVERIFIED = "radiological", "unverified"
BY_PATIENT, UNGROUPED = "patient", "none"
UNKEYED = "unkeyed"
FICTION = "fiction"  # key id of patients who do not exist: phantoms and synthetic patients
# Slices in use are at most about 7 mm thick; what is further apart shows other anatomy (Eq. 6).
ADJACENT_MM = 10.0
# Columns of data sets and of generated batches; no factor may have such a name.
OWN_COLUMNS = frozenset(
    ("image", "patient_id", "scan_id", "z", "role", "scale", "unit", "synthetic")
)
# Why the filter refuses a generated slice, in the order it asks (quality.sample_filter).
REASONS = ("near_copy", "confidence", "distance")
REFUSALS = tuple(f"refused_{reason}" for reason in REASONS)
BATCH_COLUMNS = frozenset(("cell", "seed", "index", "unseen", *REFUSALS))


@dataclass(frozen=True)
class DatasetMeta:
    """What the file's schema metadata says of all its rows.

    Attributes:
        space: Factors and cells.
        size: Rows and columns of a slice, pixels.
        source: Where the slices come from, in words, without identifiers.
        pixel_mm: Pixel edge in mm, or None where unknown. It also tells the unit of the rows' z:
            mm where it is known, the slice index where not (``Dataset.neighbours``).
        normalisation: How counts became [0, 1]; the row's ``scale`` undoes it.
        laterality: ``radiological`` (row 0 anterior, column 0 the patient's right) or
            ``unverified``.
        grouping: ``patient``, or ``none`` for data without patients, on which nothing is claimed.
        pseudonym_key: Id of the key that made the pseudonyms (``pseudonyms.PseudonymKey.id``);
            ``fiction`` where the patients do not exist, ``unkeyed`` where ids are as given.
        extra: Further facts of the source (phantom version, seed, protocol), JSON values.
    """

    space: ConditionSpace
    size: int
    source: str
    pixel_mm: float | None = None
    normalisation: str = "slice maximum"
    laterality: str = RADIOLOGICAL
    grouping: str = BY_PATIENT
    pseudonym_key: str = UNKEYED
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Canonical JSON, as stored in the schema metadata."""
        plain = asdict(self) | {"space": self.space.to_dict(), "extra": dict(self.extra)}
        plain |= {"format": FORMAT, "cells": [str(c) for c in self.space.cells]}
        return json_with_space(plain)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads ``to_json`` back.

        Raises:
            DataError: not a data set of this format.
        """
        try:
            plain = json.loads(text)
            if plain.pop("format") != FORMAT:
                raise ValueError("another format version")
            del plain["cells"]
            return cls(**plain | {"space": ConditionSpace.of(plain["space"])})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the schema metadata is not a data set's: {error}",
                allowed=f"data set format {FORMAT}",
                do="make the file with `fastgan-aug data import` or `data phantom`",
            ) from error


def image_type(size: int) -> pa.DataType:
    """Arrow type of the image column: ``size * size`` float32, row by row."""
    return pa.list_(pa.float32(), size * size)


def images_to_arrow(images: NDArray[np.float32]) -> pa.Array:
    """(N, S, S) float32 to a fixed-size-list column, without a copy where contiguous."""
    flat = np.ascontiguousarray(images, np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), images.shape[1] * images.shape[2])


def images_from_arrow(column: pa.ChunkedArray, size: int) -> NDArray[np.float32]:
    """Fixed-size-list column to (N, S, S) float32."""
    chunks = [c.flatten().to_numpy(zero_copy_only=False) for c in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
    return flat.astype(np.float32, copy=False).reshape(-1, size, size)
