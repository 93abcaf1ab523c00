"""Validation of several data sets together: nobody stands in two of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import check_comparable
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.data.validation.finding import ERROR, NOTE, Finding, plural
from fastgan_aug.errors import PseudonymKeysDiffer


def check_sides(datasets: Sequence[Dataset]) -> Iterator[Finding]:
    """Shared patients, and pseudonyms that cannot be compared."""
    for (i, one), (j, other) in itertools.combinations(enumerate(datasets, 1), 2):
        where = f"data sets {i} and {j}"
        if one.meta.space != other.meta.space:
            yield Finding(
                NOTE, "spaces-differ", where, "The factors or their values differ.",
                "import both with the same factors if they are sides of one split",
            )  # fmt: skip
        if one.meta.grouping != BY_PATIENT or other.meta.grouping != BY_PATIENT:
            continue
        try:
            check_comparable(one.meta.pseudonym_key, other.meta.pseudonym_key)
        except PseudonymKeysDiffer as error:
            yield Finding(ERROR, "keys-differ", where, f"{error.what}.", error.do)
            continue
        shared = set(one.patients) & set(other.patients)
        if shared:
            yield Finding(
                ERROR, "patient-on-both-sides", where,
                f"{plural(len(shared), 'patient')} in both.", "split by patient",
            )  # fmt: skip
