"""Validation: slices and patients of each cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.data.validation.finding import ERROR, NOTE, WARNING, Finding, plural

# The smallest cell of the published training set has 44 slices. Below about ten, a generator can
# only repeat what it saw, and a test share of a fifth holds one or two slices: no figure is left.
THIN_SLICES = 10
# Folds never exceed the patients of the rarest class, and five folds are what a paired comparison
# needs: with fewer patients the downstream verdict is capped.
FEW_PATIENTS = 5
# A cell in which one patient gives more than this share of the slices shows that patient.
HEAVY_SHARE = 0.5


def check_cells(dataset: Dataset) -> Iterator[Finding]:
    """Empty and thin cells, classes of few patients, patients who outweigh a cell."""
    if not dataset.labelled.any():
        yield Finding(
            ERROR, "no-labels", "all rows", "No slice has a label: there is nothing to fit.",
            "label some slices, or import the data with its label columns",
        )  # fmt: skip
        return
    yield from _empty(dataset)
    patients = dataset.column("patient_id").astype(str)
    owners = {
        str(cell): patients[dataset.cell_index == index]
        for index, cell in enumerate(dataset.meta.space.cells)
    }
    present = {cell: of for cell, of in owners.items() if len(of)}
    yield from _thin(present)
    if dataset.meta.grouping == BY_PATIENT:
        yield from _lone_patients(present)
        yield from _classes(dataset, patients)


def _empty(dataset: Dataset) -> Iterator[Finding]:
    empty = [str(cell) for cell, count in dataset.class_counts.items() if not count]
    if empty:
        yield Finding(
            NOTE, "cell-empty", ", ".join(empty),
            f"No slice: a generator never sees {'this cell' if len(empty) == 1 else 'these cells'}"
            " and refuses to fill it unless asked for unseen cells by name.",
            "add such slices if the cell exists; ignore this if it does not",
        )  # fmt: skip


def _thin(owners: Mapping[str, NDArray[np.str_]]) -> Iterator[Finding]:
    for cell, patients in owners.items():
        if len(patients) < THIN_SLICES:
            yield Finding(
                WARNING, "cell-thin", cell,
                f"{plural(len(patients), 'slice')} in {cell}: too few to learn from.",
                f"ask for {THIN_SLICES} slices or more, from {FEW_PATIENTS} patients or more; "
                "or leave the value out (data.keep)",
            )  # fmt: skip


def _lone_patients(owners: Mapping[str, NDArray[np.str_]]) -> Iterator[Finding]:
    """Cells of one patient alone, and cells most of which is one patient's."""
    alone, heavy = [], []
    for cell, patients in owners.items():
        per_patient = np.unique(patients, return_counts=True)[1]
        if len(per_patient) == 1:
            alone.append(cell)
        elif per_patient.max() > HEAVY_SHARE * len(patients) and len(patients) >= THIN_SLICES:
            heavy.append(cell)
    if alone:
        yield Finding(
            WARNING, "cell-one-patient", ", ".join(alone),
            f"All slices of {plural(len(alone), 'cell')} are of one patient: no split can have "
            "them on both sides.", "ask for slices of more patients",
        )  # fmt: skip
    if heavy:
        yield Finding(
            NOTE, "patient-heavy", ", ".join(heavy),
            f"One patient gives more than half of the slices of {plural(len(heavy), 'cell')}: "
            "what is learnt may be that patient.",
            "ask for slices of more patients, or thin out this one's",
        )  # fmt: skip


def _classes(dataset: Dataset, patients: NDArray[np.str_]) -> Iterator[Finding]:
    """Values of a factor that few patients have."""
    for factor in dataset.meta.space.factors:
        column = dataset.column(factor.name)
        counts = {value: len(set(patients[column == value])) for value in factor.values}
        few = {value: count for value, count in counts.items() if 0 < count < FEW_PATIENTS}
        if few:
            named = ", ".join(f"{value} {count}" for value, count in few.items())
            yield Finding(
                WARNING, "class-few-patients", factor.name,
                f"Few patients with these values: {named}. No downstream verdict about "
                f"{factor.name} beyond NO EVIDENCE can rest on so few.",
                f"ask for {FEW_PATIENTS} patients or more of each value",
            )  # fmt: skip
