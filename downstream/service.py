"""Sources of slices: a running service, a checkpoint that answers like one, fresh real slices.

And, before there is any of these, zeros that stand in for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from downstream.material import Material, SyntheticBatch, SyntheticSource
from fastgan_aug.balance import plan
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.errors import DataError, LeakageError
from serving.request import FILTER


class BatchAsker(Protocol):
    """A `serving.client.Client`, or a checkpoint that answers like one."""

    def request_balanced_batch(
        self,
        counts: Mapping[str, int],
        target: Mapping[str, int],
        *,
        model: str,
        seed: int,
        filter: str | None,
    ) -> SyntheticBatch:
        """The images that fill ``counts`` up to ``target``."""


def service_source(client: BatchAsker, model: str, *, filtered: bool = False) -> SyntheticSource:
    """Adds slices by asking the service.

    Args:
        client: A client, or a checkpoint that answers like one, open for as long as the source
            is used.
        model: A version's number rather than an alias, which may move between two requests.
        filtered: Whether the version's filter judges them.
    """

    def source(counts: Mapping[str, int], target: Mapping[str, int], seed: int) -> SyntheticBatch:
        return client.request_balanced_batch(
            counts, target, model=model, seed=seed, filter=FILTER if filtered else None
        )

    return source


@dataclass(frozen=True)
class Batch:
    """What a source gives that asks no service.

    Attributes:
        images: (N, S, S) float32 in [0, 1].
        cells: (N,) the cell of each.
    """

    images: NDArray[np.float32]
    cells: list[str]


def oracle_source(fresh: Dataset, train: Dataset) -> SyntheticSource:
    """Fresh real slices of patients who are nowhere else, of the cells a generator would make.

    Args:
        fresh: Their slices, enough of each cell.
        train: The training part, whose counts share a value's slices among its cells, as a
            generator's would.

    Raises:
        LeakageError: a patient of it is in the training part.
    """
    space, trained = train.meta.space, {str(c): n for c, n in train.class_counts.items()}
    names = [str(cell) for cell in space.cells]
    rows_of = {name: np.flatnonzero(fresh.cell_index == i) for i, name in enumerate(names)}
    if set(fresh.patients) & set(train.patients):
        raise LeakageError("the oracle's patients are in the training part", do="draw fresh ones")

    def source(present: Mapping[str, int], desired: Mapping[str, int], seed: int) -> SyntheticBatch:
        agreed = plan(present, dict(desired), cells=names, training_counts=trained)
        random = np.random.default_rng([seed, len(fresh)])
        chosen: list[NDArray[np.int64]] = []
        for name, wanted in agreed.generate.items():
            if len(rows_of[name]) < wanted:
                raise DataError(
                    f"the oracle has {len(rows_of[name])} slices of {name}, and {wanted} are asked",
                    do="draw a larger pool",
                )
            chosen.append(random.choice(rows_of[name], wanted, replace=False))
        rows = np.concatenate([np.zeros(0, np.int64), *chosen])
        cells = [names[i] for i in fresh.cell_index[rows]]
        return Batch(fresh.images[rows], cells)

    return source


def zeros_source(material: Material) -> SyntheticSource:
    """Zeros of the cells that a generator would make: what arms are tried with before there is one.

    Args:
        material: Its real slices share a value's slices among its cells, as a generator's would.
    """
    names = [str(cell) for cell in material.space.cells]
    counts = np.bincount(material.cells, minlength=len(names)).tolist()
    trained = dict(zip(names, counts, strict=True))

    def source(present: Mapping[str, int], desired: Mapping[str, int], seed: int) -> SyntheticBatch:
        agreed = plan(present, dict(desired), cells=names, training_counts=trained)
        cells = [name for name, n in agreed.generate.items() for _ in range(n)]
        return Batch(np.zeros((len(cells), *material.images.shape[1:]), np.float32), cells)

    return source


def trained_patients(facts: Mapping[str, Any], train: Dataset) -> SeenPatients:
    """The patients a model saw, as far as the service's facts prove it.

    The service never names patients: a model trained on data of this digest saw these patients.

    Args:
        facts: ``Client.model``.
        train: The training part of the split.

    Raises:
        LeakageError: the model was trained on other data, so its patients are unknown.
    """
    if facts.get("dataset") == train.digest:
        return SeenPatients.of(train)
    raise LeakageError(
        "the patients the model saw are unknown: it was trained on other data than the training "
        "part of this split",
        allowed="a model of this training part, or one whose checkpoint MLflow can show",
        do="give MLflow with --tracking-uri, or the model's own data and configuration",
    )
