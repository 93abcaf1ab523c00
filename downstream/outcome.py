"""What one fit predicted, and what was true: all that a judgement needs, one small file each.

Patients stand here as codes, never as pseudonyms; rows are in the order of the fold's slices.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError
from fastgan_aug.storage import replace_when_complete

FACTS = "facts"
OUTCOME, TRUTH = "outcome", "truth"
TOLERANCE = 1e-3  # of the sum of a row's float32 probabilities


@dataclass(frozen=True, eq=False)
class Outcome:
    """One arm's classifier, fitted once on a fold's training part.

    Attributes:
        fold: Number of the fold.
        classifier: Name of the classifier.
        arm: Name of the arm.
        seed: Of the fit.
        n_real: Real slices it was fitted on.
        n_synthetic: Synthetic ones.
        seconds: Time of the fit with its predictions.
        validation: (Nv, C) float32 probabilities of the validation slices; Nv may be 0.
        test: (Nt, C) float32 probabilities of the test slices.
        n_missing: Synthetic slices that were asked for and did not come.

    Raises:
        DataError: a table of probabilities is none, or the two differ in classes.
    """

    fold: int
    classifier: str
    arm: str
    seed: int
    n_real: int
    n_synthetic: int
    seconds: float
    validation: NDArray[np.float32]
    test: NDArray[np.float32]
    n_missing: int = 0

    def __post_init__(self) -> None:
        for name, table in (("validation", self.validation), ("test", self.test)):
            _check_chances(f"{name} of {self.arm!r}, fold {self.fold}, seed {self.seed}", table)
        if self.validation.shape[1] != self.test.shape[1]:
            raise DataError(
                f"{self.arm!r} has {self.validation.shape[1]} classes in the validation and "
                f"{self.test.shape[1]} in the test",
                allowed="the same classes in both",
            )

    def write(self, path: Path) -> None:
        """Writes one ``.npz``.

        Raises:
            StorageError: it cannot be written.
        """
        facts = {
            "fold": self.fold,
            "classifier": self.classifier,
            "arm": self.arm,
            "seed": self.seed,
            "n_real": self.n_real,
            "n_synthetic": self.n_synthetic,
            "n_missing": self.n_missing,
            "seconds": self.seconds,
        }
        _write(path, OUTCOME, facts, {"validation": self.validation, "test": self.test})

    @classmethod
    def read(cls, path: Path) -> Outcome:
        """What ``write`` wrote.

        Raises:
            DataError: the file is missing, damaged or something else.
        """
        facts, arrays = _read(path, OUTCOME, ("validation", "test"))
        try:
            return cls(**facts | {k: v.astype(np.float32) for k, v in arrays.items()})
        except TypeError as error:
            raise _unreadable(path, error) from error


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels and patients of a fold's validation and test slices.

    Attributes:
        fold: Number of the fold.
        validation_labels: (Nv,) int64 classes.
        test_labels: (Nt,) int64 classes.
        validation_patients: (Nv,) int64 codes.
        test_patients: (Nt,) int64 codes; equal where one patient's.

    Raises:
        DataError: labels and patients are not one each a slice, or a label is negative.
    """

    fold: int
    validation_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    validation_patients: NDArray[np.int64]
    test_patients: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            labels, patients = getattr(self, f"{name}_labels"), getattr(self, f"{name}_patients")
            if labels.ndim != 1 or labels.shape != patients.shape or (labels < 0).any():
                raise DataError(
                    f"the {name} of fold {self.fold} has labels of shape {labels.shape} and "
                    f"patients of shape {patients.shape}",
                    allowed="a class from 0 on and a patient for each slice",
                )

    def write(self, path: Path) -> None:
        """Writes one ``.npz``.

        Raises:
            StorageError: it cannot be written.
        """
        arrays = {
            "validation_labels": self.validation_labels,
            "test_labels": self.test_labels,
            "validation_patients": self.validation_patients,
            "test_patients": self.test_patients,
        }
        _write(path, TRUTH, {"fold": self.fold}, arrays)

    @classmethod
    def read(cls, path: Path) -> Truth:
        """What ``write`` wrote.

        Raises:
            DataError: the file is missing, damaged or something else.
        """
        names = ("validation_labels", "test_labels", "validation_patients", "test_patients")
        facts, arrays = _read(path, TRUTH, names)
        try:
            return cls(**facts | {k: v.astype(np.int64) for k, v in arrays.items()})
        except TypeError as error:
            raise _unreadable(path, error) from error


def _check_chances(what: str, table: NDArray[np.float32]) -> None:
    if table.ndim == 2 and table.shape[1] > 0 and np.isfinite(table).all():
        in_range = bool(((table >= -TOLERANCE) & (table <= 1 + TOLERANCE)).all())
        if in_range and bool((np.abs(table.sum(axis=1) - 1) <= TOLERANCE).all()):
            return
    raise DataError(
        f"the {what} is no table of probabilities (shape {table.shape})",
        allowed="(slices, classes), finite, each row in [0, 1] with the sum 1",
        do="let the classifier's predict_proba give probabilities",
    )


def _write(
    path: Path, kind: str, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    told = json.dumps({"kind": kind} | dict(facts))
    packed = {FACTS: np.frombuffer(told.encode(), np.uint8), **arrays}
    with replace_when_complete(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **packed)


def _read(
    path: Path, kind: str, names: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with np.load(path, allow_pickle=False) as packed:
            facts = dict(json.loads(packed[FACTS].tobytes()))
            arrays = {name: np.asarray(packed[name]) for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    if facts.pop("kind", None) != kind:
        raise _unreadable(path, ValueError(f"it is no {kind}"))
    return facts, arrays


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path.name} cannot be read: {error}",
        allowed="a file that a run of this version wrote",
        do="remove it; the run makes it again",
    )
