"""Fits the filter of generated slices (`sample_filter`) on real training slices.

Its thresholds are what real slices show of themselves: confidence comes from classifiers of the
other patients, distances leave a slice's own patient out, so that they do not rest on what was
fitted to the slice itself.

The floor of diversity: a cell's real slices that pass have at least ``DIVERSITY`` of the mean
distance that all of them have. Where they would not, distance counts no more in that cell; if that
is not enough, neither does confidence. Near copies are always refused. The floor is one of real
slices, since a filter is the same whatever is asked for; ``benchmarks.sample_filter`` measures it
on generated ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.errors import DataError, LeakageError
from fastgan_aug.quality.likeness.classifier import Classifier, fit_classifier
from fastgan_aug.quality.likeness.faithfulness import class_labels
from fastgan_aug.quality.likeness.features import (
    COARSE,
    F64,
    FixedView,
    fixed_vector,
    fixed_view,
    mirrored,
)
from fastgan_aug.quality.likeness.prdc import distances
from fastgan_aug.quality.sample_filter import NEIGHBOURS, SETTINGS, SampleFilter

REFUSED_REAL = 0.05  # of real slices, by confidence, and once more by distance
DIVERSITY = 0.9  # mean distance between real slices that pass, over that of all, at least
EXACT = 1e-4  # standard deviations: a copy is one even where two patients' slices are the same
FEWEST = 8  # slices of two patients, from which on a cell has thresholds of its own
FOLDS = 3
ROWS = 256  # of a matrix of distances: memory stays flat


def fit_sample_filter(train: Dataset, *, factor: str | None = None, seed: int = 0) -> SampleFilter:
    """Fits the filter on the labelled real training slices.

    Args:
        train: Of the training patients alone. Without patients each slice counts as one.
        factor: Whose values the classifier tells apart; by default the last one.
        seed: Of the classifiers and of the folds.

    Raises:
        DataError: fewer than ``FEWEST`` labelled slices, or all of one patient.
        LeakageError: the data hold synthetic slices.
    """
    rows = train.labelled
    if bool(np.any(train.column("synthetic"))):
        raise LeakageError(
            "the filter would be fitted on synthetic slices", allowed="real training slices"
        )
    if int(rows.sum()) < FEWEST:
        raise DataError(
            f"{int(rows.sum())} labelled slices are too few for a filter",
            allowed=f"{FEWEST} or more", do="set selection.filter = false",
        )  # fmt: skip
    space = train.meta.space
    factor = factor or space.names[-1]
    images, cells = train.images[rows], train.cell_index[rows]
    owners = np.unique(train.column("patient_id")[rows].astype(str), return_inverse=True)[1]
    if train.meta.grouping != BY_PATIENT:
        owners = np.arange(len(images))
    if owners.max() == 0:
        raise DataError(
            "the labelled slices are of one patient: how alike two patients are is not known",
            allowed="slices of two patients or more", do="set selection.filter = false",
        )  # fmt: skip
    labels, values = class_labels(train, factor), list(space.factor(factor).values)
    position = space.names.index(factor)
    classes = np.asarray([values.index(c.values[position]) for c in space.cells], np.int64)
    view = fixed_view(train)
    features, nearest, far = _told_apart(view, images, cells, owners)
    confidence = _held_out_confidence(images, labels, owners, len(values), seed)
    least_nearest, least_confidence, most_distance = (np.empty(len(space.cells)) for _ in range(3))
    for cell in range(len(space.cells)):
        own = cells == cell
        if own.sum() < FEWEST or len(np.unique(owners[own])) < 2:
            own = np.ones(len(cells), np.bool_)  # too few to tell: what all cells say
        least_nearest[cell] = max(nearest[own].min(), EXACT)
        told = _thresholds(features[own], confidence[own], far[own])
        least_confidence[cell], most_distance[cell] = told
    classifier = _fitted(images, labels, len(values), seed)
    return SampleFilter(
        classifier, view, classes, features, cells, least_nearest, least_confidence, most_distance
    )


def _thresholds(features: F64, confidence: F64, far: F64) -> tuple[float, float]:
    """Quantiles of a cell's real slices, unless those that pass would lack variety.

    Args:
        features: (N, D).
        confidence: (N,).
        far: (N,) infinite where too few slices of other patients tell.

    Returns:
        The least confidence and the most distance.
    """
    known = far[np.isfinite(far)]
    least = float(np.quantile(confidence, REFUSED_REAL))
    most = float(np.quantile(known, 1 - REFUSED_REAL)) if len(known) else np.inf
    whole = _spread(features)
    for low, high in ((least, most), (least, np.inf)):
        kept = (confidence >= low) & ((far <= high) | np.isinf(far))
        if _spread(features[kept]) >= DIVERSITY * whole:
            return low, high
    return 0.0, np.inf


def _spread(features: F64) -> float:
    """Mean distance between two of (N, D); 0 for fewer than two."""
    n = len(features)
    total = sum(float(distances(features[part], features).sum()) for part in _parts(n))
    return total / (n * (n - 1)) if n > 1 else 0.0


def _told_apart(
    view: FixedView,
    images: NDArray[np.float32],
    cells: NDArray[np.int64],
    owners: NDArray[np.int64],
) -> tuple[F64, F64, F64]:
    """Real slices in the view, and how far they are from those of other patients.

    Returns:
        Features (N, D); (N,) coarse distance to the nearest slice of all, mirrored or not; (N,)
        distance to the third nearest of the cell, infinite where there are fewer.
    """
    raw = fixed_vector(images)
    features, turned = view.standard(raw), view.standard(mirrored(raw))
    nearest = np.full(len(features), np.inf)
    for vectors in (features, turned):
        found = _from_strangers(vectors[:, COARSE], features[:, COARSE], owners, 1)
        nearest = np.minimum(nearest, found)
    far = np.empty(len(features))
    for cell in np.unique(cells):
        own = cells == cell
        far[own] = _from_strangers(features[own], features[own], owners[own], NEIGHBOURS)
    return features, nearest, far


def _from_strangers(first: F64, second: F64, owners: NDArray[np.int64], k: int) -> F64:
    """(N,) distance of each row of one to the k-th nearest row of the other, of other owners."""
    found, place = np.empty(len(first)), min(k, len(second)) - 1
    for part in _parts(len(first)):
        apart = distances(first[part], second)
        apart[owners[part][:, None] == owners[None]] = np.inf
        found[part] = np.partition(apart, place, axis=1)[:, place]
    return found


def _parts(n: int) -> Iterator[slice]:
    return (slice(start, start + ROWS) for start in range(0, n, ROWS))


def _held_out_confidence(
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    owners: NDArray[np.int64],
    n_classes: int,
    seed: int,
) -> F64:
    """(N,) how sure a classifier of other patients is of each slice's own class."""
    order = np.random.default_rng(seed).permutation(owners.max() + 1)
    fold = order[owners] % min(FOLDS, len(order))
    found = np.zeros(len(images))
    for number in np.unique(fold):
        held = fold == number
        classifier = _fitted(images[~held], labels[~held], n_classes, seed)
        chances = classifier.predict_proba(images[held])
        found[held] = chances[np.arange(int(held.sum())), labels[held]]
    return found


def _fitted(
    images: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, seed: int
) -> Classifier:
    counts = np.bincount(labels, minlength=n_classes)
    return fit_classifier(
        images, labels, n_classes, SETTINGS, seed=seed, sampling=1.0 / counts[labels]
    )
