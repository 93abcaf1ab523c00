"""Class faithfulness: does a classifier that knows real slices recognise the synthetic ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.split import check_disjoint
from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import FitSettings, fit_classifier


@dataclass(frozen=True)
class Faithfulness:
    """Accuracy of a real-trained classifier; means over classes, so the mix does not matter.

    Attributes:
        factor: What was predicted.
        synthetic: Mean recall on the synthetic slices, in [0, 1].
        real: The same on real slices of other patients: what can be expected at best. None
            where there are no such slices.
        chance: One over the number of classes the classifier chooses from.
        synthetic_recall: Per class present among the synthetic slices.
        real_recall: Per class present among the real test slices.
    """

    factor: str
    synthetic: float
    real: float | None
    chance: float
    synthetic_recall: Mapping[str, float]
    real_recall: Mapping[str, float]


def faithfulness(
    real_train: Dataset,
    synthetic_images: NDArray[np.float32],
    synthetic_cells: Sequence[str],
    factor: str,
    settings: FitSettings,
    *,
    real_test: Dataset | None = None,
    seed: int = 0,
) -> Faithfulness:
    """Fits the classifier on real slices, every class drawn equally often, and tries it.

    Args:
        real_train: Real slices of the training patients.
        synthetic_images: (M, S, S) float32 in [0, 1].
        synthetic_cells: (M,) the cell of each.
        factor: The factor to predict.
        settings: Of the fit.
        real_test: Real slices of other patients.
        seed: Of the fit.

    Raises:
        DataError: a side has no labelled slice, or the sizes differ.
        LeakageError: training and test data share patients, or the test data is synthetic.
        UnknownCell: a synthetic cell is none of the real data's.
    """
    if real_test is not None:
        check_disjoint(real_train, real_test)
    space = real_train.meta.space
    values, position = space.factor(factor).values, space.names.index(factor)
    images, labels = _labelled(real_train, factor)
    classifier = fit_classifier(
        images,
        labels,
        len(values),
        settings,
        seed=seed,
        sampling=1.0 / np.bincount(labels, minlength=len(values))[labels],
    )

    def recall(pictures: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, float]:
        right = classifier.predict(pictures) == truth
        return {values[k]: float(right[truth == k].mean()) for k in np.unique(truth)}

    names = [space.parse(cell).values[position] for cell in synthetic_cells]
    truth = np.asarray([values.index(name) for name in names], np.int64)
    on_synthetic = recall(synthetic_images, truth)
    on_real = recall(*_labelled(real_test, factor)) if real_test is not None else {}
    return Faithfulness(
        factor=factor,
        synthetic=float(np.mean(list(on_synthetic.values()))),
        real=float(np.mean(list(on_real.values()))) if on_real else None,
        chance=1 / len(np.unique(labels)),
        synthetic_recall=on_synthetic,
        real_recall=on_real,
    )


def _labelled(dataset: Dataset, factor: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The labelled slices and their classes."""
    rows = dataset.labelled
    if not rows.any():
        raise DataError("the data have no labelled slice", do="add labelled slices")
    return dataset.images[rows], class_labels(dataset, factor)


def class_labels(dataset: Dataset, factor: str) -> NDArray[np.int64]:
    """(labelled rows,) position of each labelled slice's value in the factor's values."""
    values = list(dataset.meta.space.factor(factor).values)
    column = dataset.column(factor)[dataset.labelled]
    return np.asarray([values.index(value) for value in column], np.int64)
