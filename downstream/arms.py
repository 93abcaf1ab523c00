"""The arms: each says what the classifier is fitted on, and how; nothing else differs.

A new arm is one function and one line in ``ARMS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from downstream.augmentation import classical_augmentation
from downstream.material import Fit, Material
from fastgan_aug.data.augment import flippable_cells
from fastgan_aug.errors import ConfigError, DataError
from serving.extras import require


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        name: As written in the report.
        prepare: (material, seed) to what is fitted.
        source: Where its further slices come from.
        ratio: Of synthetic to real slices, as text; None where it has none.
        augmented: Whether the classical augmentation is applied too.
    """

    name: str
    prepare: Callable[[Material, int], Fit] = field(repr=False)
    source: Literal["real", "synthetic", "oracle"] = "real"
    ratio: str | None = None
    augmented: bool = False


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


def focal(material: Material, seed: int) -> Fit:
    """The focal loss, gamma 2: what is easily recognised counts little (Lin et al. 2017, Eq. 4)."""
    return Fit(material.images, material.labels, focal_gamma=2.0)


def mixup(material: Material, seed: int) -> Fit:
    """Convex mixtures of two slices and of their labels, Beta(0.2, 0.2) (Zhang et al. 2018)."""
    return Fit(material.images, material.labels, mixup_alpha=0.2)


def plain_oversampling(material: Material, seed: int) -> Fit:
    """Every class drawn equally often."""
    return Fit(material.images, material.labels, sampling=_evenly(material.labels))


def augmentation(material: Material, seed: int) -> Fit:
    """The real slices, with shift, flip by the label rule, blur and noise."""
    return _augmented(Fit(material.images, material.labels), material)


def oversampling(material: Material, seed: int) -> Fit:
    """Every class drawn equally often, with shift, flip by the label rule, blur and noise."""
    return _augmented(plain_oversampling(material, seed), material)


def smote(material: Material, seed: int) -> Fit:
    """Every class filled with pixel-wise mixtures of neighbours (Chawla et al. 2002)."""
    return _interpolated(material, seed, "SMOTE")


def borderline_smote(material: Material, seed: int) -> Fit:
    """The same, of slices near the border of their class (Han, Wang and Mao 2005)."""
    return _interpolated(material, seed, "BorderlineSMOTE")


def _interpolated(material: Material, seed: int, name: str) -> Fit:
    require("imblearn", "imbalanced")
    from imblearn import over_sampling

    present = material.counts[material.counts > 0]
    if present.min() < 2:
        raise DataError(
            f"{name} needs two slices of every class; the rarest has {present.min()}",
            do="leave this arm out of downstream.arms",
        )
    neighbours = int(min(5, present.min() - 1))
    sampler = getattr(over_sampling, name)(k_neighbors=neighbours, random_state=seed)
    flat, labels = sampler.fit_resample(material.images.reshape(len(material.images), -1),
                                        material.labels)  # fmt: skip
    images = np.asarray(flat, np.float32).reshape(-1, *material.images.shape[1:])
    return Fit(images, np.asarray(labels, np.int64))


def with_synthetic(material: Material, seed: int) -> Fit:
    """The real slices and what the source fills the classes up with."""
    return added(material, seed)


def augmented_synthetic(material: Material, seed: int) -> Fit:
    """The same, and all of them with shift, flip by the label rule, blur and noise."""
    return _augmented(added(material, seed), material)


def synthetic_quarter(material: Material, seed: int) -> Fit:
    """A quarter as many synthetic as real slices, the rarest classes first."""
    return added(material, seed, ratio=0.25)


def synthetic_half(material: Material, seed: int) -> Fit:
    """Half as many synthetic as real slices, the rarest classes first."""
    return added(material, seed, ratio=0.5)


def synthetic_equal(material: Material, seed: int) -> Fit:
    """As many synthetic as real slices, the rarest classes first."""
    return added(material, seed, ratio=1.0)


def synthetic_alone(material: Material, seed: int) -> Fit:
    """No real slice: as many synthetic ones of every class as the majority has."""
    return added(material, seed, alone=True)


def synthetic_first(material: Material, seed: int) -> Fit:
    """Half of the steps on synthetic slices alone, the other half on the real ones."""
    first = added(material, seed, alone=True)
    then = plain_oversampling(material, seed)
    return replace(then, pretraining=first, n_synthetic=first.n_synthetic)


def filtered_synthetic(material: Material, seed: int) -> Fit:
    """The real slices and what the source fills up with, after the version's own filter."""
    if material.filtered is None:
        raise DataError(
            "there is no filtered source",
            allowed="a version that was trained with selection.filter = true",
            do="leave this arm out of downstream.arms",
        )
    return added(replace(material, synthetic=material.filtered), seed)


def with_oracle(material: Material, seed: int) -> Fit:
    """What the generator is measured by: fresh real slices of fresh patients fill up instead."""
    if material.oracle is None:
        raise DataError(
            "there is no oracle",
            allowed="data of which there are as many fresh patients as are asked for: a phantom",
            do="leave this arm out of downstream.arms",
        )
    return added(replace(material, synthetic=material.oracle), seed)


def oracle_and_augmentation(material: Material, seed: int) -> Fit:
    """The same, and all of them with shift, flip by the label rule, blur and noise."""
    return _augmented(with_oracle(material, seed), material)


def _evenly(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / np.bincount(labels)[labels])


def _augmented(fit: Fit, material: Material) -> Fit:
    """With the classical augmentation; a synthetic slice is flipped as its cell may be."""
    cells = material.cells if fit.cells is None else fit.cells
    flippable = flippable_cells(material.space, material.rules)[cells]
    return replace(fit, augment=classical_augmentation(flippable, material.rules.shift))


ARMS = (
    Arm("real", real),
    Arm("class weights", class_weights),
    Arm("oversampling + classical augmentation", oversampling, augmented=True),
    Arm("real + synthetic", with_synthetic, "synthetic", "fill"),
)
"""What is compared unless `downstream.arms` names others."""
FURTHER_ARMS = (
    Arm("focal loss", focal),
    Arm("mixup", mixup),
    Arm("oversampling", plain_oversampling),
    Arm("classical augmentation", augmentation, augmented=True),
    Arm("SMOTE", smote),
    Arm("borderline SMOTE", borderline_smote),
    Arm("real + synthetic 0.25", synthetic_quarter, "synthetic", "0.25"),
    Arm("real + synthetic 0.5", synthetic_half, "synthetic", "0.5"),
    Arm("real + synthetic 1", synthetic_equal, "synthetic", "1"),
    Arm(
        "real + synthetic + classical augmentation", augmented_synthetic, "synthetic", "fill", True
    ),
    Arm("real + filtered synthetic", filtered_synthetic, "synthetic", "fill"),
    Arm("synthetic, then real", synthetic_first, "synthetic"),
    Arm("synthetic alone", synthetic_alone, "synthetic"),
    Arm("oracle", with_oracle, "oracle", "fill"),
    Arm(
        "oracle + classical augmentation", oracle_and_augmentation, "oracle", "fill", augmented=True
    ),
)


def arms_named(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of these names, ``ARMS`` where there are none.

    Raises:
        ConfigError: an unknown name, one that stands there twice, or no arm without synthetic
            slices to compare with.
    """
    known = {arm.name: arm for arm in (*ARMS, *FURTHER_ARMS)}
    unknown = sorted(set(names) - set(known))
    if unknown or len(set(names)) < len(names):
        raise ConfigError(
            f"downstream.arms names {unknown or 'an arm twice'}",
            allowed=", ".join(known), do="correct the configuration",
        )  # fmt: skip
    chosen = tuple(known[name] for name in names) or ARMS
    if all(arm.source != "real" for arm in chosen):
        raise ConfigError(
            "downstream.arms has no arm without synthetic slices",
            allowed="one or more, which the others are compared with",
            do='add "real" or "oversampling + classical augmentation"',
        )
    return chosen


def added(material: Material, seed: int, *, ratio: float | None = None, alone: bool = False) -> Fit:
    """The real slices and synthetic ones.

    Args:
        material: Both.
        seed: Of the synthetic ones.
        ratio: Synthetic over real slices in all; None fills every class up to the majority.
        alone: Leaves the real slices out and fills every class from nothing.

    Raises:
        DataError: the source's images do not fit the data.
        UnknownCell: the source gives a cell the data does not have.
    """
    counts = request_counts(material)
    have = dict.fromkeys(counts, 0) if alone else counts
    batch = material.synthetic(have, filled_to(counts, ratio), seed)
    images, names = np.asarray(batch.images, np.float32), [str(c) for c in batch.cells]
    _check_batch(images, names, material)
    position = material.space.names.index(material.factor)
    parsed = [material.space.parse(name) for name in names]
    cells = np.asarray([material.space.index(cell) for cell in parsed], np.int64)
    labels = np.asarray([material.classes.index(c.values[position]) for c in parsed], np.int64)
    if alone:
        return Fit(images, labels, n_synthetic=len(images), cells=cells)
    return Fit(
        np.concatenate([material.images, images]),
        np.concatenate([material.labels, labels]),
        n_synthetic=len(images),
        cells=np.concatenate([material.cells, cells]),
    )


def filled_to(counts: Mapping[str, int], ratio: float | None) -> dict[str, int]:
    """Desired count of each class: filled like water, the rarest first.

    Args:
        counts: Present ones.
        ratio: Added over present slices in all; None fills all to the largest count.

    Returns:
        As many of each as of any other, but for those that had more and, by one, the last.
    """
    if ratio is None:
        return dict.fromkeys(counts, max(counts.values()))
    wanted, left = dict(counts), round(ratio * sum(counts.values()))
    while left > 0:
        least = min(wanted.values())
        lowest = [name for name, n in wanted.items() if n == least]
        above = min((n for n in wanted.values() if n > least), default=least + left)
        step = min(max(left // len(lowest), 1), above - least)
        for name in lowest[: left // step]:
            wanted[name] += step
            left -= step
    return wanted


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
