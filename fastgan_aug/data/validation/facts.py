"""Validation: what metadata and columns say: sides, groups, counts, positions, synthetic rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT, RADIOLOGICAL, UNKEYED
from fastgan_aug.data.validation.finding import ERROR, NOTE, WARNING, Finding, name_rows, plural

GIVEN_SPLIT = "given_split"  # column of data that came with a split of its own


def check_facts(dataset: Dataset) -> Iterator[Finding]:
    """Laterality, grouping, bit depth, scale, positions, synthetic rows, a given split."""
    yield from _meta(dataset)
    yield from _scale(dataset)
    yield from _positions(dataset)
    yield from _synthetic(dataset)
    if GIVEN_SPLIT in dataset.table.column_names and dataset.meta.grouping == BY_PATIENT:
        yield from _given_split(dataset)


def _meta(dataset: Dataset) -> Iterator[Finding]:
    meta = dataset.meta
    if meta.laterality != RADIOLOGICAL:
        yield Finding(
            WARNING, "laterality-unverified", "all rows",
            "Nobody has said which side of the picture is the patient's right: left/right ratios "
            "compare the halves of the picture.",
            "find out, turn the images if need be, and import with --laterality radiological",
        )  # fmt: skip
    if meta.grouping != BY_PATIENT:
        yield Finding(
            WARNING, "no-patients", "all rows",
            "The rows have no patients: slices of one person may stand on both sides of a split, "
            "and nothing can be claimed.",
            "import with a column of patient pseudonyms",
        )  # fmt: skip
    elif meta.pseudonym_key == UNKEYED:
        yield Finding(
            NOTE, "ids-as-given", "all rows", "Patient and scan ids are as the source gave them.",
            "make sure that they are no names or hospital numbers before the file travels",
        )  # fmt: skip
    if eight_bit := int(meta.extra.get("eight_bit", 0)):
        yield Finding(
            WARNING, "eight-bit", "the source", f"{plural(eight_bit, 'image')} came with 8 bits: "
            "mean counts are coarse (1/255).", "import the original counts where you can",
        )  # fmt: skip


def _scale(dataset: Dataset) -> Iterator[Finding]:
    scale = dataset.column("scale").astype(np.float64)
    bad = ~(np.isfinite(scale) & (scale > 0))
    if bad.any():
        yield Finding(
            WARNING, "scale-invalid", name_rows(np.flatnonzero(bad)),
            f"{plural(int(bad.sum()), 'scale')} not positive or not finite: counts are lost.",
            "import the slices again, with their counts",
        )  # fmt: skip
    elif len(scale) > 1 and (scale == 1).all():
        yield Finding(
            NOTE, "scale-lost", "all rows",
            "Every scale is 1: the slices were normalised before they came, their counts are lost.",
            "import the original counts where you can",
        )  # fmt: skip
    if len(set(dataset.table["unit"].to_pylist())) > 1:
        yield Finding(
            NOTE, "units-differ", "all rows", "The rows' scales have different units.",
            "compare counts within one unit only",
        )  # fmt: skip


def _positions(dataset: Dataset) -> Iterator[Finding]:
    rows = np.flatnonzero(dataset.labelled)
    beside = dataset.neighbours()
    alone = [int(row) for row in rows if not len(beside[row])]
    if len(rows) and len(alone) == len(rows):
        yield Finding(
            WARNING, "no-neighbours", "all rows", "No labelled slice has a neighbour in its scan: "
            "the weighted mean of neighbours (Eq. 6) does nothing.",
            "import z (mm, or slice indices one apart) and the slices in between",
        )  # fmt: skip
    elif alone:
        yield Finding(
            NOTE, "some-without-neighbour", name_rows(alone),
            f"{len(alone)} of {plural(len(rows), 'labelled slice')} without a neighbour in "
            "the scan: Eq. 6 leaves them as they are.",
            "import the slices above and below them too",
        )  # fmt: skip
    yield from _one_place_two_labels(dataset)


def _one_place_two_labels(dataset: Dataset) -> Iterator[Finding]:
    places: dict[tuple[str, float], list[int]] = defaultdict(list)
    scans, z, cells = dataset.column("scan_id"), dataset.column("z"), dataset.cell_index
    if len(set(z.tolist())) < 2:
        return  # positions are not known
    for row in np.flatnonzero(dataset.labelled):
        places[scans[row], float(z[row])].append(int(row))
    twice = [rows for rows in places.values() if len({int(cells[r]) for r in rows}) > 1]
    shared = [row for rows in twice for row in rows]
    if twice:
        yield Finding(
            WARNING, "place-two-labels", name_rows(shared),
            f"{plural(len(twice), 'place')} (a scan and a z) with slices of different labels.",
            "give repeated scans a scan id of their own, or correct the labels",
        )  # fmt: skip


def _synthetic(dataset: Dataset) -> Iterator[Finding]:
    marked = np.flatnonzero(dataset.column("synthetic"))
    if len(marked):
        yield Finding(
            WARNING, "synthetic-rows", name_rows(marked),
            f"{len(marked)} of {plural(len(dataset), 'row')} synthetic: a fit on them learns from "
            "a generator, and no test may hold them.",
            "leave them out of data that is meant to be real",
        )  # fmt: skip


def _given_split(dataset: Dataset) -> Iterator[Finding]:
    sides: dict[str, set[str]] = defaultdict(set)
    patients, given = dataset.column("patient_id"), dataset.column(GIVEN_SPLIT)
    for patient, side in zip(patients, given, strict=True):
        sides[patient].add(str(side))
    both = [patient for patient, names in sides.items() if len(names) > 1]
    if both:
        rows = np.flatnonzero(np.isin(patients.astype(str), both))
        yield Finding(
            ERROR, "patient-on-both-sides", name_rows(rows),
            f"{plural(len(both), 'patient')} on more than one side of the given split.",
            "split by patient",
        )  # fmt: skip
