"""Arms with slices from a source: synthetic ones, filtered ones, or an oracle's fresh real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from downstream.arms.arm import Prepare
from downstream.arms.filling import filled_to, request_counts
from downstream.material import Fit, Material, SyntheticBatch, SyntheticSource
from fastgan_aug.errors import DataError

Origin = Literal["synthetic", "filtered", "oracle"]


def added(origin: Origin, ratio: float | None = None) -> Prepare:
    """The real slices and others, the rarest classes first.

    Args:
        origin: Which of the material's sources the others come from.
        ratio: Of others to real slices in all; None fills every class up to the largest.
    """

    def prepare(material: Material, seed: int) -> Fit:
        counts = request_counts(material)
        more = _asked(source_of(material, origin), counts, filled_to(counts, ratio), material, seed)
        return real_and(material, more)

    return prepare


def alone(material: Material, seed: int) -> Fit:
    """No real slice: as many synthetic ones of every class as the largest has."""
    counts = request_counts(material)
    nothing = dict.fromkeys(counts, 0)
    return _asked(material.synthetic, nothing, filled_to(counts, None), material, seed)


def halved(origin: Origin) -> Prepare:
    """Filled up, but half of what is drawn of a class are its real slices, however few they are.

    Args:
        origin: Which of the material's sources the others come from.
    """
    fill = added(origin)

    def prepare(material: Material, seed: int) -> Fit:
        return half_real(fill(material, seed), len(material.classes))

    return prepare


def everywhere(origin: Origin) -> Prepare:
    """Half real, half from the source, in every class: what tells the two apart tells no class.

    Where the rare classes alone hold synthetic slices, a classifier may learn how synthetic slices
    look instead of what the class looks like.

    Args:
        origin: Which of the material's sources the others come from.
    """

    def prepare(material: Material, seed: int) -> Fit:
        counts = request_counts(material)
        most = max(counts.values())
        desired = {name: n + most for name, n in counts.items()}
        more = _asked(source_of(material, origin), counts, desired, material, seed)
        return half_real(real_and(material, more), len(material.classes))

    return prepare


def real_and(material: Material, more: Fit) -> Fit:
    """The real slices, then others, which all have a cell."""
    made = np.repeat([False, True], [len(material.labels), len(more.labels)])
    return Fit(
        np.concatenate([material.images, more.images]),
        np.concatenate([material.labels, more.labels]),
        made,
        cells=np.concatenate([material.cells, more.cells]),
    )


def half_real(fit: Fit, classes: int) -> Fit:
    """Every class drawn equally often, and half of it from its real slices, where it has others."""
    group = 2 * fit.labels + fit.synthetic
    size = np.bincount(group, minlength=2 * classes)
    kinds = np.maximum((size.reshape(-1, 2) > 0).sum(axis=1), 1)[fit.labels]
    return replace(fit, sampling=np.asarray(1.0 / (size[group] * kinds), np.float64))


def first(before: Prepare, after: Prepare) -> Prepare:
    """Pre-trained on one thing, then fitted on another.

    Args:
        before: Of the first part of the steps.
        after: Of the rest.
    """

    def prepare(material: Material, seed: int) -> Fit:
        return replace(after(material, seed), pretraining=before(material, seed))

    return prepare


def source_of(material: Material, origin: Origin) -> SyntheticSource:
    """One of the material's sources.

    Raises:
        DataError: it has none such.
    """
    found: SyntheticSource | None = getattr(material, origin)
    if found is None:
        needs = {
            "filtered": "a version that was trained with selection.filter = true",
            "oracle": "data of which as many fresh patients can be had as are asked for: a phantom",
        }
        raise DataError(
            f"there is no {origin} source",
            allowed=needs.get(origin, "a source of synthetic slices"),
            do="leave this arm out of downstream.arms",
        )
    return found


def _asked(
    source: SyntheticSource,
    present: Mapping[str, int],
    desired: Mapping[str, int],
    material: Material,
    seed: int,
) -> Fit:
    """What the source gives, labelled by its cells.

    Raises:
        DataError: the images do not fit the data.
        UnknownCell: a cell that the data do not have.
    """
    batch = source(present, desired, seed)
    images = _checked(batch, material)
    position = material.space.names.index(material.factor)
    parsed = [material.space.parse(str(name)) for name in batch.cells]
    cells = np.asarray([material.space.index(cell) for cell in parsed], np.int64)
    labels = np.asarray([material.classes.index(c.values[position]) for c in parsed], np.int64)
    return Fit(images, labels, np.ones(len(labels), np.bool_), cells=cells)


def _checked(batch: SyntheticBatch, material: Material) -> NDArray[np.float32]:
    images = np.asarray(batch.images, np.float32)
    shape = (len(batch.cells), *material.images.shape[1:])
    if images.shape != shape or not np.isfinite(images).all():
        raise DataError(
            f"the synthetic batch has shape {images.shape}, or values that are not finite",
            allowed=f"finite values of shape {shape}, one cell for each image",
            do="ask a model that was trained on slices of this size",
        )
    if images.size and (images.min() < 0 or images.max() > 1):
        raise DataError(
            f"the synthetic batch holds values from {images.min()} to {images.max()}",
            allowed="[0, 1], normalised counts",
        )
    return images
