"""The filter of generated slices: fitted on real training slices alone, kept in the checkpoint.

A slice is refused for one of three reasons, each with a threshold that real slices set:

near_copy   nearer to a training slice, of whatever cell, mirrored or not, than a slice of its cell
            ever is to one of another patient; told from what noise and blur leave alone
confidence  a classifier that was fitted on real slices takes it for its own class less than it
            does nearly all real slices of patients it has not seen
distance    farther from the training slices of its cell than nearly all slices of other patients

Distances are taken in the fixed view (`features.FixedView`), which learns nothing; how the
thresholds are found, and which of them a cell does without for variety's sake: `filter_fitting`.

A verdict hangs on the slice and its cell alone, whatever is judged beside it and by how many
threads: vectors are made one by one, chances in double precision.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from fastgan_aug.data.schema import REASONS
from fastgan_aug.errors import CheckpointError, DataError
from fastgan_aug.quality.likeness.classifier import Classifier, FitSettings, SmallCNN
from fastgan_aug.quality.likeness.features import (
    COARSE,
    F64,
    FixedView,
    Standard,
    fixed_vector,
    mirrored,
)

FORMAT = 2
ACCEPTED = 0  # other codes: 1 and the position in REASONS
NEIGHBOURS = 3  # the distance to a cell is that to its third nearest slice
SETTINGS = FitSettings(steps=120)  # as sure as with 200 of what is wrong, and half the time
CHUNK = 64  # slices that the classifier sees at once, always so many


@dataclass(frozen=True)
class SampleFilter:
    """Judges generated slices.

    Attributes:
        classifier: Of one factor's values, fitted on the real training slices.
        view: The fixed view, standardised by them.
        classes: (cells,) class of each cell.
        features: (N, D) float64, the training slices in the view.
        cells: (N,) the cell of each.
        least_nearest: (cells,) below it a slice is a near copy.
        least_confidence: (cells,); 0 where confidence does not count.
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
        size = self.classifier.size
        if images.ndim != 3 or images.shape[1:] != (size, size):
            raise DataError(f"images are {images.shape}", allowed=f"(N, {size}, {size})")
        nearest, distance = self._distances(images, cells)
        code = np.zeros(len(images), np.uint8)
        reasons = (
            nearest < self.least_nearest[cells],
            self._confidence(images, cells) < self.least_confidence[cells],
            distance > self.most_distance[cells],
        )
        for number in range(len(REASONS), 0, -1):  # the first reason has the last word
            code[reasons[number - 1]] = number
        return code

    def _distances(self, images: NDArray[np.float32], cells: NDArray[np.int64]) -> tuple[F64, F64]:
        """(N,) coarse distance to the nearest of all slices, distance to the third of the cell."""
        nearest, far = np.empty(len(images)), np.zeros(len(images))
        coarse = np.ascontiguousarray(self.features[:, COARSE])
        of_cell = {cell: self.features[self.cells == cell] for cell in np.unique(cells)}
        for i, cell in enumerate(cells):
            raw = fixed_vector(images[i : i + 1])
            own, turned = self.view.standard(raw), self.view.standard(mirrored(raw))
            nearest[i] = min(_from(vector[0, COARSE], coarse).min() for vector in (own, turned))
            if len(among := of_cell[cell]):
                place = min(NEIGHBOURS, len(among)) - 1
                far[i] = np.partition(_from(own[0], among), place)[place]
        return nearest, far

    def _confidence(self, images: NDArray[np.float32], cells: NDArray[np.int64]) -> F64:
        own, found = self.classes[cells], np.empty(len(images))
        with torch.inference_mode():
            for start in range(0, len(images), CHUNK):
                part = images[start : start + CHUNK]
                padded = np.zeros((CHUNK, 1, *part.shape[1:]))
                padded[: len(part), 0] = part
                chance = self._exact(torch.from_numpy(padded)).softmax(dim=1).numpy()
                rows = np.arange(len(part))
                found[start + rows] = chance[rows, own[start + rows]]
        return found

    @cached_property
    def _exact(self) -> SmallCNN:
        """In double precision: in single precision chances hang on the number of threads."""
        return copy.deepcopy(self.classifier.network).double()

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


def _from(vector: F64, others: F64) -> F64:
    """(D,), (N, D) to (N,) distances, without a matrix product: each is the same in any company."""
    return np.asarray(np.sqrt(((others - vector) ** 2).sum(axis=1)))
