"""What is judged, and which slices of it each comparison sees."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastgan_aug.code_version import code_version
from fastgan_aug.config import QualityConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT, OWN_COLUMNS
from fastgan_aug.data.split import check_disjoint
from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import FitSettings
from fastgan_aug.quality.likeness.features import FeatureView, fit_classifier_view, fixed_view
from fastgan_aug.quality.metric import NO_SLICES
from fastgan_aug.quality.report import Table

# A cell of the hold-out is compared with from so many slices and patients on.
ENOUGH_SLICES, ENOUGH_PATIENTS = 10, 4
HOLD_OUT, TRAINING = "hold-out", "training"
NO_STRANGERS = "no real slice of a patient who was not trained on"
"""Why a cell could not be judged where only strangers' slices can tell."""


def wanted_counts(train: Dataset, holdout: Dataset, reference: Dataset | None) -> dict[str, int]:
    """``{cell: synthetic slices}`` that the comparisons need, for each cell that was trained on."""
    sides = [side.class_counts for side in (train, holdout, reference) if side is not None]
    return {
        str(c): max(side.get(c, 0) for side in sides) for c, n in train.class_counts.items() if n
    }


@dataclass(frozen=True)
class Compared:
    """One cell's comparison, as many synthetic slices as real ones.

    Attributes:
        cell: The cell, written ``COR/bilateral``.
        side: ``hold-out``, or ``training`` where the hold-out has too few.
        real: Rows of the real slices in that data set.
        made: Rows of the synthetic ones.
    """

    cell: str
    side: str
    real: NDArray[np.int64]
    made: NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """What is judged, and what of it each comparison sees.

    Attributes:
        train: Real slices that the generator learnt from.
        holdout: Of other patients.
        images: (M, S, S) float32 in [0, 1], synthetic.
        cells: (M,) the cell of each.
        settings: The ``quality`` section.
    """

    train: Dataset
    holdout: Dataset
    images: NDArray[np.float32]
    cells: NDArray[np.str_]
    settings: QualityConfig

    def check(self, reference: Dataset | None) -> None:
        """Says at once what could not be compared.

        Raises:
            DataError: no patients, no slices, or sizes or spaces that differ.
            LeakageError: a patient stands on two sides, or a synthetic slice among real ones.
            UnknownCell: a synthetic cell is none of the data's.
        """
        meta = self.train.meta
        for other in (self.holdout, reference):
            if other is None:
                continue
            check_disjoint(self.train, other)
            if (other.meta.space, other.meta.size) != (meta.space, meta.size):
                raise DataError(
                    "the data sets differ in their cells or their size",
                    allowed=f"{meta.space.to_dict()}, {meta.size} pixels",
                    do="give data of one kind",
                )
            if {meta.grouping, other.meta.grouping} != {BY_PATIENT}:
                raise DataError(
                    "the data have no patients: nobody can tell whom the generator saw",
                    do="import the images with their patients",
                )
        if self.images.shape != (len(self.cells), meta.size, meta.size):
            raise DataError(
                f"the synthetic images have shape {self.images.shape}",
                allowed=f"({len(self.cells)}, {meta.size}, {meta.size}), one image per cell name",
            )
        if not np.isfinite(self.images).all():
            raise DataError("a synthetic slice is not finite", do="train again")
        for name in set(self.cells.tolist()):
            meta.space.parse(name)
        if not len(self.real):
            raise DataError(
                "no cell has both real and synthetic slices", do="make slices of the data's cells"
            )

    # -- what is compared ------------------------------------------------------------------

    @cached_property
    def chosen(self) -> list[Compared]:
        """Per cell with slices on both sides; the same choice for the same seed."""
        random = np.random.default_rng(self.settings.seed)
        found = []
        for index, cell in enumerate(self.train.meta.space.cells):
            rows = np.flatnonzero(self.holdout.cell_index == index)
            owners = set(self.holdout.column("patient_id")[rows])
            enough = len(rows) >= ENOUGH_SLICES and len(owners) >= ENOUGH_PATIENTS
            if not enough:
                rows = np.flatnonzero(self.train.cell_index == index)
            made = np.flatnonzero(self.cells == str(cell))
            n = min(len(rows), len(made))
            if n:
                rows = np.sort(random.permutation(rows)[:n])
                side = HOLD_OUT if enough else TRAINING
                found.append(Compared(str(cell), side, rows, made[:n]))
        return found

    @cached_property
    def asked(self) -> list[str]:
        """The cells that must be judged: trained on, or compared."""
        cells = {str(c) for c, n in self.train.class_counts.items() if n}
        cells |= {each.cell for each in self.chosen}
        return [str(cell) for cell in self.train.meta.space.cells if str(cell) in cells]

    def absent(self, real: Dataset | None = None) -> dict[str, str]:
        """``{cell: why}`` of those that have no synthetic slice, or no real one in that data."""
        made = set(self.cells.tolist())
        found = {cell: NO_SLICES for cell in self.asked if cell not in made}
        if real is not None:
            there = {str(cell) for cell, n in real.class_counts.items() if n}
            found |= {cell: NO_STRANGERS for cell in self.asked if cell not in there}
        return found

    @cached_property
    def real(self) -> Dataset:
        """The real slices that synthetic ones are held against."""
        columns = [c for c in self.train.table.column_names if c in _plain_columns(self.train)]
        parts = [self.side(each.side).take(each.real).table.select(columns) for each in self.chosen]
        if not parts:
            return self.train.take(np.zeros(0, np.int64))
        return Dataset(pa.concat_tables(parts).combine_chunks(), self.train.meta)

    @cached_property
    def made(self) -> NDArray[np.int64]:
        """Rows of as many synthetic slices, cell by cell in the order of ``real``."""
        return np.concatenate([each.made for each in self.chosen])

    @cached_property
    def like_training(self) -> NDArray[np.int64]:
        """Rows of as many synthetic slices of each cell as there are training slices."""
        wanted = {str(c): n for c, n in self.train.class_counts.items()}
        return np.concatenate([np.flatnonzero(self.cells == c)[:n] for c, n in wanted.items()])

    def side(self, name: str) -> Dataset:
        """The data set of that side."""
        return self.holdout if name == HOLD_OUT else self.train

    def cell_table(self) -> Table:
        """What each cell was compared with."""
        trained = {str(c): n for c, n in self.train.class_counts.items()}
        return [
            {
                "cell": each.cell,
                "n": len(each.made),
                "real": each.side,
                "patients": len(set(self.side(each.side).column("patient_id")[each.real])),
                "trained_on": trained[each.cell],
            }
            for each in self.chosen
        ]

    @cached_property
    def views(self) -> list[FeatureView]:
        """Fixed first, then the classifier's, where it is fitted."""
        found: list[FeatureView] = [fixed_view(self.train)]
        if self.settings.classifier:
            fit = FitSettings.of(self.settings)
            found.append(fit_classifier_view(self.train, fit, seed=self.settings.seed))
        return found

    def patterns(self, cells: NDArray[np.str_]) -> NDArray[np.str_] | None:
        """Each cell's last value, written ``*/bilateral``; None where that is the cell itself."""
        if len(self.train.meta.space.factors) < 2:
            return None
        return np.asarray(["*/" + cell.rpartition("/")[2] for cell in cells.tolist()], np.str_)

    def provenance(self) -> dict[str, Any]:
        """What the report rests on, by digests and counts alone."""
        pixels = np.ascontiguousarray(self.images).tobytes() + "\n".join(self.cells).encode()
        return {
            "train": self.train.digest,
            "holdout": self.holdout.digest,
            "synthetic": hashlib.sha256(pixels).hexdigest(),
            "settings": self.settings.model_dump(mode="json"),
            "views": {view.name: view.digest for view in self.views},
            "patients": {"train": _owners(self.train), "holdout": _owners(self.holdout)},
            "slices": {
                "train": int(self.train.labelled.sum()),
                "holdout": int(self.holdout.labelled.sum()),
                "compared": len(self.made),
                "synthetic": len(self.cells),
            },
            "code_version": code_version(),
        }


def _owners(dataset: Dataset) -> int:
    return len(set(dataset.column("patient_id")[dataset.labelled]))


def _plain_columns(dataset: Dataset) -> frozenset[str]:
    """The columns that every data set of the space has: truth may be on one side only."""
    return OWN_COLUMNS | set(dataset.meta.space.names)
