"""The filter of generated slices: fitted on real training slices alone, kept in the checkpoint.

A slice is refused for one of three reasons, each with a threshold that real slices set:

near_copy   nearer to a training slice of its cell than slices of two patients ever are
confidence  a classifier that was fitted on real slices takes it for its own class less than it
            does nearly all real slices of patients it has not seen
distance    farther from the training slices of its cell than nearly all slices of other patients

Confidence comes from classifiers of the other patients, distances leave a slice's own patient out,
so that thresholds do not rest on what was fitted to the slice itself. Distances are taken in the
fixed view (`features.FixedView`), which learns nothing. Where real slices that pass would be less
varied than ``DIVERSITY`` of all, a cell's distance counts no more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT, REASONS
from fastgan_aug.errors import CheckpointError, DataError, LeakageError
from fastgan_aug.quality.likeness.classifier import (
    Classifier,
    FitSettings,
    SmallCNN,
    fit_classifier,
)
from fastgan_aug.quality.likeness.faithfulness import class_labels
from fastgan_aug.quality.likeness.features import F64, FixedView, Standard, fixed_view
from fastgan_aug.quality.likeness.prdc import distances

FORMAT = 1
ACCEPTED = 0  # other codes: 1 and the position in REASONS
REFUSED_REAL = 0.05  # of real slices, by confidence, and once more by distance
NEIGHBOURS = 3  # the distance to a cell is that to its third nearest slice
DIVERSITY = 0.9  # mean distance between real slices that pass, over that of all, at least
FEWEST = 8  # slices of two patients, from which on a cell has thresholds of its own
FOLDS = 3
SETTINGS = FitSettings(steps=200)
CHUNK = 64  # slices judged at once, always so many: a verdict cannot hang on what stands beside


@dataclass(frozen=True)
class SampleFilter:
    """Judges generated slices.

    Attributes:
        classifier: Of the last factor's values, fitted on the real training slices.
        view: The fixed view, standardised by them.
        classes: (cells,) class of each cell.
        features: (N, D) float64, the training slices in the view.
        cells: (N,) the cell of each.
        least_nearest: (cells,) below it a slice is a near copy.
        least_confidence: (cells,).
        most_distance: (cells,); infinite where distance does not count.
    """

    classifier: Classifier
    view: FixedView
    classes: NDArray[np.int64]
    features: F64
    cells: NDArray[np.int64]
    least_nearest: F64
    least_confidence: F64
    most_distance: F64

    def judge(self, images: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Whether slices are accepted.

        Args:
            images: (N, S, S) float32 in [0, 1].
            cells: (N,) position of each one's cell in the condition space.

        Returns:
            (N,) ``ACCEPTED``, or 1 and the position of the first reason in ``REASONS``.

        Raises:
            DataError: images of another size.
        """
        nearest, distance = self._distances(self.view(images), cells)
        confidence = self._confidence(images, cells)
        code = np.zeros(len(images), np.uint8)
        reasons = (
            nearest < self.least_nearest[cells],
            confidence < self.least_confidence[cells],
            distance > self.most_distance[cells],
        )
        for number in range(len(REASONS), 0, -1):  # the first reason has the last word
            code[reasons[number - 1]] = number
        return code

    def _confidence(self, images: NDArray[np.float32], cells: NDArray[np.int64]) -> F64:
        own = self.classes[cells]
        found = np.empty(len(images))
        for start in range(0, len(images), CHUNK):
            part = images[start : start + CHUNK]
            padded = np.concatenate([part, np.zeros((CHUNK - len(part), *part.shape[1:]), "f4")])
            chance = self.classifier.predict_proba(padded)[: len(part)]
            found[start : start + CHUNK] = chance[np.arange(len(part)), own[start : start + CHUNK]]
        return found

    def _distances(self, features: F64, cells: NDArray[np.int64]) -> tuple[F64, F64]:
        nearest, far = np.full(len(features), np.inf), np.full(len(features), 0.0)
        for cell in np.unique(cells):
            rows, among = cells == cell, self.features[self.cells == cell]
            if len(among):
                apart = np.sort(distances(features[rows], among), axis=1)
                nearest[rows] = apart[:, 0]
                far[rows] = apart[:, min(NEIGHBOURS, apart.shape[1]) - 1]
        return nearest, far

    # -- as a file -------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Writes one safetensors file; no picture and no identifier is in it."""
        from safetensors.torch import save_file

        arrays = {name: torch.from_numpy(np.asarray(getattr(self, name))) for name in _ARRAYS}
        arrays |= {"mean": torch.from_numpy(self.view.standard.mean)}
        arrays |= {"sd": torch.from_numpy(self.view.standard.sd)}
        state = self.classifier.network.state_dict()
        network = {f"network.{name}": t.contiguous() for name, t in state.items()}
        facts = {
            "format": FORMAT, "size": self.classifier.size, "width": SETTINGS.width,
            "classes": self.classifier.network.head.out_features,
            "mean": self.classifier.network.mean, "std": self.classifier.network.std,
        }  # fmt: skip
        save_file(arrays | network, path, metadata={"filter": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads ``save`` back.

        Raises:
            CheckpointError: damaged, or of another format.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})["filter"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["format"] != FORMAT:
                raise ValueError(f"format {facts['format']!r} instead of {FORMAT}")
            network = SmallCNN(
                facts["classes"], facts["size"], facts["width"], facts["mean"], facts["std"]
            )
            prefix = "network."
            network.load_state_dict(
                {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            )
            standard = Standard(tensors["mean"].numpy(), tensors["sd"].numpy())
            arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the filter {path} cannot be read: {error}", do="use another checkpoint"
            ) from error
        classifier = Classifier(network.eval(), facts["size"])
        return cls(classifier=classifier, view=FixedView(standard), **arrays)


_ARRAYS = ("classes", "features", "cells", "least_nearest", "least_confidence", "most_distance")


def fit_sample_filter(train: Dataset, *, factor: str | None = None, seed: int = 0) -> SampleFilter:
    """Fits the filter on the labelled real training slices.

    Args:
        train: Of the training patients alone. Without patients each slice counts as one.
        factor: Whose values the classifier tells apart; by default the last one.
        seed: Of the classifiers and of the folds.

    Raises:
        DataError: fewer than ``FEWEST`` labelled slices.
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
    labels, values = class_labels(train, factor), list(space.factor(factor).values)
    position = space.names.index(factor)
    classes = np.asarray([values.index(c.values[position]) for c in space.cells], np.int64)
    view = fixed_view(train)
    features = view(images)
    nearest, far = _apart(features, cells, owners)
    confidence = _held_out_confidence(images, labels, owners, len(values), seed)
    least_nearest, least_confidence, most_distance = (np.empty(len(space.cells)) for _ in range(3))
    for cell in range(len(space.cells)):
        own = cells == cell
        if own.sum() < FEWEST or len(np.unique(owners[own])) < 2:
            own = np.ones(len(cells), np.bool_)  # too few to tell: what all cells say
        least_nearest[cell] = nearest[own].min()
        least_confidence[cell] = np.quantile(confidence[own], REFUSED_REAL)
        most_distance[cell] = _most_distance(features[own], far[own])
    classifier = _fitted(images, labels, len(values), seed)
    return SampleFilter(
        classifier, view, classes, features, cells, least_nearest, least_confidence, most_distance
    )


def _most_distance(features: F64, far: F64) -> float:
    """The quantile of real distances, unless the slices that pass would lack variety."""
    known = far[np.isfinite(far)]
    if not len(known):
        return np.inf
    most = float(np.quantile(known, 1 - REFUSED_REAL))
    kept = features[far <= most]
    whole, left = _spread(features), _spread(kept)
    return most if left >= DIVERSITY * whole else np.inf


def _spread(features: F64) -> float:
    """Mean distance between two of (N, D); 0 for fewer than two."""
    n = len(features)
    return float(distances(features, features).sum() / (n * (n - 1))) if n > 1 else 0.0


def _apart(features: F64, cells: NDArray[np.int64], owners: NDArray[np.int64]) -> tuple[F64, F64]:
    """(N,) distance of each slice to the nearest, and the third nearest, of its cell's others."""
    nearest, far = np.full(len(features), np.inf), np.full(len(features), np.inf)
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        apart = distances(features[rows], features[rows])
        apart[owners[rows][:, None] == owners[rows][None]] = np.inf
        apart.sort(axis=1)
        nearest[rows] = apart[:, 0]
        far[rows] = apart[:, min(NEIGHBOURS, len(rows)) - 1]
    return nearest, far


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
        if held.all():  # one patient: nobody else to learn from
            return found
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
