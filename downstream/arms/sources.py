"""Arms with slices from a source: synthetic ones, filtered ones, or an oracle's fresh real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from downstream.arms.arm import Prepare
from downstream.arms.filling import filled_to, group_counts, request_for
from downstream.arms.reweighting import real
from downstream.material import Fit, Material, SyntheticBatch, SyntheticSource
from fastgan_aug.errors import DataError

Origin = Literal["synthetic", "filtered", "oracle"]


def added(origin: Origin, ratio: float | None = None) -> Prepare:
    """The real slices and others, the rarest groups first.

    Args:
        origin: Which of the material's sources the others come from.
        ratio: Of others to real slices in all; None fills every group up to the largest.
    """

    def prepare(material: Material, seed: int) -> Fit:
        return joined(Fit.of_real(material), _filling(material, origin, ratio, seed))

    return prepare


def alone(material: Material, seed: int) -> Fit:
    """No real slice: as many synthetic ones of every group as the largest has."""
    counts = group_counts(material)
    fit = _asked(material.synthetic, filled_to(counts, None), material, seed)
    if not len(fit.labels):
        raise DataError(
            f"the source gave none of the {fit.missing} synthetic slices that an arm is fitted on",
            do="leave this arm out of downstream.arms, or ask why the source gives none",
        )
    return fit


def halved(origin: Origin) -> Prepare:
    """Filled up, but half of what is drawn of a group are its real slices, however few they are.

    Args:
        origin: Which of the material's sources the others come from.
    """

    def prepare(material: Material, seed: int) -> Fit:
        return in_equal_shares(
            material, Fit.of_real(material), _filling(material, origin, None, seed)
        )

    return prepare


def everywhere(origin: Origin, own: Prepare = real) -> Prepare:
    """In every group half from the source: what tells the two halves apart tells no class.

    Where the rare groups alone hold synthetic slices, a classifier may learn how synthetic slices
    look instead of what the class looks like.

    Args:
        origin: Which of the material's sources the one half comes from.
        own: Prepares the other: the real slices.
    """

    def prepare(material: Material, seed: int) -> Fit:
        counts = group_counts(material)
        as_many = dict.fromkeys(counts, max(counts.values()))
        more = _asked(source_of(material, origin), as_many, material, seed)
        return in_equal_shares(material, own(material, seed), more)

    return prepare


def joined(one: Fit, other: Fit) -> Fit:
    """The slices of both; they have cells where both have."""
    return Fit(
        np.concatenate([one.images, other.images]),
        np.concatenate([one.labels, other.labels]),
        np.concatenate([one.synthetic, other.synthetic]),
        cells=None
        if one.cells is None or other.cells is None
        else np.concatenate([one.cells, other.cells]),
        missing=one.missing + other.missing,
    )


def in_equal_shares(material: Material, one: Fit, other: Fit) -> Fit:
    """Every group drawn equally often, and half of it from either, where both have slices of it.

    Within its share a slice is drawn as often as its ``sampling`` says.

    Args:
        material: Knows the groups.
        one: Slices with cells.
        other: Further ones with cells.
    """
    both = joined(one, other)
    assert both.cells is not None
    chances = np.concatenate([
        np.ones(len(fit.labels)) if fit.sampling is None else fit.sampling for fit in (one, other)
    ])  # fmt: skip
    group = material.group_of_cell[both.cells]
    share = 2 * group + np.repeat([0, 1], [len(one.labels), len(other.labels)])
    total = np.bincount(share, chances, minlength=2 * len(material.groups))
    shares = np.maximum((total.reshape(-1, 2) > 0).sum(axis=1), 1)[group]
    return replace(both, sampling=np.asarray(chances / (total[share] * shares), np.float64))


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


def _filling(material: Material, origin: Origin, ratio: float | None, seed: int) -> Fit:
    """What fills the rarest groups, see ``added``."""
    counts = group_counts(material)
    missing = {name: n - counts[name] for name, n in filled_to(counts, ratio).items()}
    return _asked(source_of(material, origin), missing, material, seed)


def _asked(source: SyntheticSource, more: Mapping[str, int], material: Material, seed: int) -> Fit:
    """So many slices of each group from the source, labelled by their cells.

    Raises:
        DataError: the images do not fit the data.
        UnknownCell: a cell that the data do not have.
    """
    present, desired = request_for(material, more)
    batch = source(present, desired, seed)
    images = _checked(batch, material)
    position = material.space.names.index(material.factor)
    parsed = [material.space.parse(str(name)) for name in batch.cells]
    cells = np.asarray([material.space.index(cell) for cell in parsed], np.int64)
    labels = np.asarray([material.classes.index(c.values[position]) for c in parsed], np.int64)
    missing = sum(desired.values()) - sum(present.values()) - len(labels)
    return Fit(images, labels, np.ones(len(labels), np.bool_), cells=cells, missing=missing)


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
