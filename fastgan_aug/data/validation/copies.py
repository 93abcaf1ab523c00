"""Validation: the same slice under two patients, scans or labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.near_duplicates import MOST_PAIRS, Copy, find_copies
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.data.validation.finding import ERROR, NOTE, WARNING, Finding, Severity, plural

_PAIRS_NAMED = 3
# What is said of each kind of copy: severity, code, what, advice.
_WORDS: Mapping[str, tuple[Severity, str, str, str]] = {
    "labels": (
        ERROR, "copy-two-labels", "of rows show the same slice under different labels",
        "find out which label is right, and remove the other row",
    ),
    "sides": (
        ERROR, "copy-on-both-sides", "of rows show the same slice in two data sets",
        "remove the copies from one of them: what is tested must not have been learnt",
    ),
    "patients": (
        ERROR, "copy-across-patients", "of rows show the same slice under two patients",
        "find out whose slice it is, and give one person one pseudonym: a split by patient "
        "would leak",
    ),
    "rows": (
        WARNING, "copy-without-patients", "of rows show the same slice",
        "remove the copies: a split would put one on each side",
    ),
    "scans": (
        WARNING, "copy-in-scans", "of rows show the same slice in two scans of a patient",
        "remove the copies: they count twice",
    ),
    "scan": (
        WARNING, "copy-in-scan", "of rows show the same slice in one scan",
        "remove the copies: they count twice",
    ),
}  # fmt: skip
_KINDS = ("labels", "sides", "patients", "scans", "scan")


@dataclass(frozen=True)
class _Rows:
    """The rows of all data sets, one after the other.

    Attributes:
        number: Which data set, from 1.
        row: Which row of it.
        patient: The patient, as a number; every row its own where there are no patients.
        scan: The scan of one data set, as a number; every row its own where there are no patients.
        cell: The label, empty for neighbours.
        several: Whether there are several data sets.
    """

    number: NDArray[np.int64]
    row: NDArray[np.int64]
    patient: NDArray[np.int64]
    scan: NDArray[np.int64]
    cell: list[str]
    several: bool

    @classmethod
    def of(cls, datasets: Sequence[Dataset]) -> _Rows:
        number = np.repeat(np.arange(1, len(datasets) + 1), [len(d) for d in datasets])
        owners = [_owners(d, i) for i, d in enumerate(datasets)]
        patient, scan = zip(*owners, strict=True)
        return cls(
            number=number,
            row=np.concatenate([np.arange(len(d)) for d in datasets]),
            patient=np.unique(np.concatenate(patient), return_inverse=True)[1],
            scan=np.unique(np.concatenate(scan), return_inverse=True)[1],
            cell=["" if c is None else str(c) for d in datasets for c in d.cells],
            several=len(datasets) > 1,
        )

    def name(self, index: int) -> str:
        """``row 3``, or ``row 3 of data set 2``."""
        of = f" of data set {self.number[index]}" if self.several else ""
        return f"row {self.row[index]}{of}"


def _owners(dataset: Dataset, number: int) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Names of each row's patient, the same in all data sets of one key, and of its scan."""
    meta = dataset.meta
    if meta.grouping != BY_PATIENT:
        alone = np.asarray([f"{number}/{row}" for row in range(len(dataset))], np.str_)
        return alone, alone
    patients = [f"{meta.pseudonym_key}/{patient}" for patient in dataset.column("patient_id")]
    scans = [f"{number}/{scan}" for scan in dataset.column("scan_id")]
    return np.asarray(patients, np.str_), np.asarray(scans, np.str_)


def check_copies(datasets: Sequence[Dataset]) -> Iterator[Finding]:
    """Copies across patients, across the scans of one patient, in a scan, and of two labels."""
    sizes = {dataset.meta.size for dataset in datasets}
    if len(sizes) > 1:
        yield Finding(
            ERROR, "sizes-differ", "the data sets",
            f"The slices have {' and '.join(map(str, sorted(sizes)))} pixels a side.",
            "import both with the same --size",
        )  # fmt: skip
        return
    rows = _Rows.of(datasets)
    parts = [dataset.images for dataset in datasets]
    images = np.concatenate(parts) if len(parts) > 1 else parts[0]
    copies = find_copies(images, rows.scan)
    by_patient = all(dataset.meta.grouping == BY_PATIENT for dataset in datasets)
    kinds: dict[str, list[Copy]] = {kind: [] for kind in _KINDS}
    for copy in copies:
        kinds[_kind(copy, rows)].append(copy)
    for kind, found in kinds.items():
        if found:
            yield _finding(kind, found, rows, by_patient)
    if len(copies) >= MOST_PAIRS:
        yield Finding(
            NOTE, "copies-unfinished", "all rows",
            f"More than {MOST_PAIRS:,} pairs look alike; not all were compared.",
            "remove the copies found, and validate again",
        )  # fmt: skip


def _kind(copy: Copy, rows: _Rows) -> str:
    one, other = copy.first, copy.second
    cells = {rows.cell[one], rows.cell[other]}
    if len(cells) > 1 and "" not in cells and not copy.mirrored:
        return "labels"
    if rows.number[one] != rows.number[other]:
        return "sides"
    if rows.patient[one] != rows.patient[other]:
        return "patients"
    return "scans" if rows.scan[one] != rows.scan[other] else "scan"


def _finding(kind: str, found: list[Copy], rows: _Rows, by_patient: bool) -> Finding:
    severity, code, what, advice = _WORDS[kind if by_patient or kind != "patients" else "rows"]
    pairs = f"{plural(len(found), 'pair')} {what}: {_how(found)}."
    return Finding(severity, code, _name(found, rows), pairs, advice)


def _how(found: list[Copy]) -> str:
    """``2 exactly, 1 nearly (rounded, scaled or shifted), 1 mirrored``."""
    mirrored = sum(copy.mirrored for copy in found)
    exact = sum(copy.exact for copy in found)
    near = len(found) - exact - mirrored
    parts = [(exact, "exactly"), (near, "nearly (rounded, scaled or shifted)")]
    parts.append((mirrored, "mirrored"))
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def _name(found: list[Copy], rows: _Rows) -> str:
    pairs = [f"{rows.name(c.first)} and {rows.name(c.second)}" for c in found[:_PAIRS_NAMED]]
    more = f"; {len(found) - _PAIRS_NAMED} more pairs" if len(found) > _PAIRS_NAMED else ""
    return "; ".join(pairs) + more
