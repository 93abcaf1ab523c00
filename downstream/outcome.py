"""What one fit predicted, and what was true: small files, codes instead of pseudonyms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from downstream.fold import Fold
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import StorageError
from fastgan_aug.quality.likeness.faithfulness import class_labels
from fastgan_aug.storage import replace_when_complete

FACTS = "facts"


@dataclass(frozen=True)
class Outcome:
    """What one arm, classifier and seed predicted in one fold.

    Attributes:
        fold: Number of the fold.
        classifier: Its name.
        arm: Its name.
        seed: Of the fit.
        n_real: Real slices that were fitted.
        n_synthetic: Synthetic ones (or the oracle's).
        seconds: Of the fit, its synthetic slices and its predictions.
        validation: (Nv, C) float32 probabilities.
        test: (Nt, C) float32 probabilities.
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

    def write(self, path: Path) -> None:
        """One file, complete or not there.

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
            "seconds": self.seconds,
        }
        _write(path, facts, {"validation": self.validation, "test": self.test})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file of ``write``.

        Raises:
            StorageError: it is missing or damaged.
        """
        return cls(**_read(path))


@dataclass(frozen=True)
class Truth:
    """What the predictions of a fold are held against.

    Attributes:
        fold: Number of the fold.
        validation_labels: (Nv,) int64.
        test_labels: (Nt,) int64.
        validation_patients: (Nv,) int64 codes.
        test_patients: (Nt,) int64 codes.
    """

    fold: int
    validation_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    validation_patients: NDArray[np.int64]
    test_patients: NDArray[np.int64]

    @classmethod
    def of(cls, fold: Fold, factor: str) -> Self:
        """The labels and patients of a fold's labelled slices."""
        return cls(
            fold.number,
            class_labels(fold.validation, factor),
            class_labels(fold.test, factor),
            _codes(fold.validation),
            _codes(fold.test),
        )

    def write(self, path: Path) -> None:
        """One file, complete or not there.

        Raises:
            StorageError: it cannot be written.
        """
        arrays = {name: values for name, values in vars(self).items() if name != "fold"}
        _write(path, {"fold": self.fold}, arrays)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file of ``write``.

        Raises:
            StorageError: it is missing or damaged.
        """
        return cls(**_read(path))


def _codes(dataset: Dataset) -> NDArray[np.int64]:
    owners = dataset.column("patient_id")[dataset.labelled].astype(str)
    return np.asarray(np.unique(owners, return_inverse=True)[1], np.int64)


def _write(path: Path, facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps(facts, allow_nan=False).encode(), np.uint8)
    with replace_when_complete(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **{FACTS: text}, **arrays)


def _read(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as values:
            arrays = {name: values[name] for name in values.files}
        facts = json.loads(arrays.pop(FACTS).tobytes())
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(f"{path} cannot be read: {error}", do="remove it") from error
    return dict(facts) | arrays
