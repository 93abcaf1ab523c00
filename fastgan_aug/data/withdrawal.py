"""A patient who withdraws: the data set without them."""

from __future__ import annotations

import numpy as np

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError


def without_patient(dataset: Dataset, pseudonym: str) -> Dataset:
    """The data set without any row of a patient; nothing of them is kept.

    Args:
        dataset: Which has the patient.
        pseudonym: Theirs, as in ``patient_id``.

    Raises:
        DataError: the data set has no such patient, or only this one.
    """
    theirs = dataset.column("patient_id").astype(str) == pseudonym
    if not theirs.any():
        # What was given is not shown: it may be a hospital number.
        raise DataError(
            "the data set has no patient of that pseudonym",
            allowed=f"one of its {len(dataset.patients)} pseudonyms, of key "
            f"{dataset.meta.pseudonym_key}",
            do="give the pseudonym that an import with that key gave the patient",
        )
    if theirs.all():
        raise DataError(
            f"{pseudonym} is the only patient: nothing would be left",
            do="delete the file",
        )
    return dataset.take(np.flatnonzero(~theirs))
