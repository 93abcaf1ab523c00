"""The arms: each says what the classifier is fitted on, and how; nothing else differs.

A new arm is one function and one line in ``ARMS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.augment import AugmentConfig, flippable_cells
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import Augment
from fastgan_aug.quality.likeness.faithfulness import class_labels


class SyntheticBatch(Protocol):
    """What a source of synthetic slices gives; ``serving.client``'s ``BalancedBatch`` is one."""

    @property
    def images(self) -> NDArray[np.float32]:
        """(N, S, S) float32 in [0, 1]."""

    @property
    def cells(self) -> Sequence[str]:
        """(N,) the cell of each image."""


SyntheticSource = Callable[[Mapping[str, int], Mapping[str, int], int], SyntheticBatch]
"""(present count per value of the balanced factor, or per cell; DESIRED count of each, real and
synthetic together; seed) to what is to be added."""


@dataclass(frozen=True)
class Material:
    """The real training slices and the source of synthetic ones.

    Attributes:
        images: (N, S, S) float32 in [0, 1].
        labels: (N,) position of each slice's value in ``classes``.
        cells: (N,) position of each slice's cell in ``space.cells``.
        classes: Values of the predicted factor.
        factor: Its name.
        space: Factors and cells.
        rules: Shift and flip rule of the classical augmentation.
        synthetic: Source of synthetic slices.
        filtered: The same, through the generator's filter.
        oracle: Fresh real slices instead.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    cells: NDArray[np.int64]
    classes: tuple[str, ...]
    factor: str
    space: ConditionSpace
    rules: AugmentConfig
    synthetic: SyntheticSource | None = None
    filtered: SyntheticSource | None = None
    oracle: SyntheticSource | None = None

    @classmethod
    def of(
        cls,
        train: Dataset,
        factor: str,
        rules: AugmentConfig,
        synthetic: SyntheticSource | None = None,
        filtered: SyntheticSource | None = None,
        oracle: SyntheticSource | None = None,
    ) -> Material:
        """The labelled slices of ``train``."""
        rows = train.labelled
        labels = class_labels(train, factor)
        cells, space = train.cell_index[rows], train.meta.space
        values = space.factor(factor).values
        images = train.images[rows]
        return cls(images, labels, cells, values, factor, space, rules, synthetic, filtered, oracle)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(classes,) slices of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))


@dataclass(frozen=True)
class Fit:
    """What one fit of the classifier takes, beside steps and learning rate.

    Attributes:
        images: (N, S, S) float32 in [0, 1].
        labels: (N,) classes.
        n_synthetic: How many of the slices are synthetic.
        class_weights: (classes,) weights in the loss.
        sampling: (N,) probabilities of being drawn.
        augment: Applied to each batch.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    n_synthetic: int = 0
    class_weights: NDArray[np.float32] | None = None
    sampling: NDArray[np.float64] | None = None
    augment: Augment | None = None


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: As written in the report.
        prepare: (material, seed) to what is fitted.
        synthetic: Whether it uses synthetic slices.
    """

    name: str
    prepare: Callable[[Material, int], Fit] = field(repr=False)
    synthetic: bool = False


def real(material: Material, seed: int) -> Fit:
    """The real slices as they are."""
    return Fit(material.images, material.labels)


def class_weights(material: Material, seed: int) -> Fit:
    """The loss weighted by N / (classes present x slices of the class)."""
    counts = material.counts
    present = counts > 0
    weights = len(material.labels) / (present.sum() * np.maximum(counts, 1))
    weights = np.where(present, weights, 0).astype(np.float32)
    return Fit(material.images, material.labels, class_weights=weights)


def oversampling(material: Material, seed: int) -> Fit:
    """Every class drawn equally often, with shift, flip by the label rule, blur and noise."""
    chances = 1.0 / material.counts[material.labels]
    flippable = flippable_cells(material.space, material.rules)[material.cells]
    augment = classical_augmentation(flippable, material.rules.shift)
    return Fit(material.images, material.labels, sampling=chances, augment=augment)


def with_synthetic(material: Material, seed: int) -> Fit:
    """The real slices and what the source fills the classes up with.

    Raises:
        DataError: the source's images do not fit the data.
        UnknownCell: the source gives a cell the data does not have.
    """
    if material.synthetic is None:
        raise DataError("there is no source of synthetic slices", do="choose other arms")
    present = request_counts(material)
    desired = dict.fromkeys(present, max(present.values()))
    batch = material.synthetic(present, desired, seed)
    images, cells = np.asarray(batch.images, np.float32), [str(c) for c in batch.cells]
    _check_batch(images, cells, material)
    position = material.space.names.index(material.factor)
    labels = [material.classes.index(material.space.parse(c).values[position]) for c in cells]
    return Fit(
        np.concatenate([material.images, images]),
        np.concatenate([material.labels, np.asarray(labels, np.int64)]),
        n_synthetic=len(images),
    )


ARMS = (
    Arm("real", real),
    Arm("class weights", class_weights),
    Arm("oversampling + classical augmentation", oversampling),
    Arm("real + synthetic", with_synthetic, synthetic=True),
)


def request_counts(material: Material) -> dict[str, int]:
    """Present counts to be filled up: by the predicted factor's values, without empty ones.

    By cell where a value's name belongs to several factors, since it would be ambiguous.
    """
    owners = [v for f in material.space.factors for v in f.values]
    if all(owners.count(value) == 1 for value in material.classes):
        named = zip(material.classes, material.counts, strict=True)
    else:
        cells = [str(c) for c in material.space.cells]
        named = zip(cells, np.bincount(material.cells, minlength=len(cells)), strict=True)
    return {name: int(n) for name, n in named if n > 0}


def _check_batch(images: NDArray[np.float32], cells: list[str], material: Material) -> None:
    shape = (len(cells), *material.images.shape[1:])
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


def classical_augmentation(flippable: NDArray[np.bool_], shift: int) -> Augment:
    """Shift, flip by the label rule, Gaussian blur, Gaussian noise.

    Shifts go up to ``shift`` pixels along both axes, filled with zero counts. Blur has a sigma of
    0 to S / 64 pixels, noise one of 0 to 0.05 of the maximum count, each slice its own.

    Args:
        flippable: (N,) whether a slice of the training data keeps its label when mirrored.
        shift: Largest shift, pixels.
    """
    may_flip = torch.from_numpy(np.ascontiguousarray(flippable))

    def augment(images: Tensor, rows: Tensor, random: torch.Generator) -> Tensor:
        size, edge = len(images), images.shape[-1]
        u = torch.rand(5, size, 1, 1, 1, generator=random)
        mirrored = (u[0] < 0.5) & may_flip[rows][:, None, None, None]
        moved = torch.where(mirrored, images.flip(-1), images)
        for axis, draw in ((2, u[1]), (3, u[2])):
            moved = _shifted(moved, (draw * (2 * shift + 1)).long().squeeze() - shift, axis)
        blurred = _blurred(moved, u[3].squeeze() * edge / 64)
        noise = torch.randn(images.shape, generator=random) * (0.05 * u[4])
        return (blurred + noise).clamp(0, 1)

    return augment


def _shifted(images: Tensor, by: Tensor, axis: int) -> Tensor:
    """Moves each of (B, 1, S, S) by its own number of pixels, filled with 0."""
    size = images.shape[axis]
    source = torch.arange(size)[None] - by[:, None]
    shape = [len(images), 1, 1, 1]
    shape[axis] = size
    index = source.clamp(0, size - 1).view(shape).expand_as(images)
    return images.gather(axis, index) * ((source >= 0) & (source < size)).view(shape)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of each of (B, 1, S, S) with its own sigma, pixels; constants stay constant."""
    radius = max(1, int(3 * float(sigma.max())))
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    for axis in (2, 3):
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = torch.nn.functional.pad(images, pad, mode="replicate")
        parts = padded.unfold(axis, 2 * radius + 1, 1)
        images = torch.einsum("bchwk,bk->bchw", parts, kernel)
    return images
