"""Two ways to see a slice as a vector: what a classifier learnt, and what was fixed beforehand.

A fitted view learns from the real training slices alone, and both are standardised by them:
nothing here has ever seen a synthetic slice. No view is downloaded, none expects colours.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError, LeakageError
from fastgan_aug.quality.clinical.counts import left_right_ratio, masks, mean_counts
from fastgan_aug.quality.clinical.spectrum import radial_power
from fastgan_aug.quality.likeness.classifier import Classifier, FitSettings, fit_classifier
from fastgan_aug.quality.likeness.faithfulness import class_labels

F64 = NDArray[np.float64]

# Standard deviations of the training set. What cannot be measured (a blank slice) lies this far
# out, so that a generator of blanks fails instead of crashing; and no single slice rules a mean.
FAR = 5.0
BANDS = 8
HIGHEST = 0.45  # cycles/pixel: Nyquist is 0.5
SECTORS = 8
_RINGS = 2
_CHUNK = 256  # slices measured at once
_LEAST = 1e-12  # power: below all noise
# Elements of the fixed vector that a little noise or blur leaves alone: the powers' upper half, on
# a logarithmic scale, moves by several standard deviations.
COARSE = np.r_[: 3 + BANDS // 2, 3 + BANDS : 3 + BANDS + SECTORS * _RINGS]


class FeatureView(Protocol):
    """Slices to vectors.

    Attributes:
        name: Short and stable; goes into ``Metric.view``.
        digest: Sha256 of everything that decides the vectors, 64 hex digits.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def digest(self) -> str: ...  # noqa: D102

    def __call__(self, images: NDArray[np.float32]) -> F64:
        """(N, S, S) float32 in [0, 1] to (N, D) float64, finite."""


@dataclass(frozen=True)
class Standard:
    """Mean and SD of the training set, per element.

    Attributes:
        mean: (D,).
        sd: (D,), 1 where the training set does not vary.
    """

    mean: F64
    sd: F64

    @classmethod
    def of(cls, raw: F64) -> Self:
        """Of (N, D) raw vectors; elements that are not finite are left out."""
        known = np.isfinite(raw)
        n = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, raw, 0).sum(axis=0) / n
        sd = np.sqrt((np.where(known, raw - mean, 0) ** 2).sum(axis=0) / n)
        return cls(mean, np.where(sd > 1e-9, sd, 1.0))

    def __call__(self, raw: F64) -> F64:
        """(N, D) to (N, D) in standard deviations from the mean, within +-``FAR``."""
        return np.clip(np.nan_to_num((raw - self.mean) / self.sd, nan=FAR), -FAR, FAR)

    def to_bytes(self) -> bytes:
        """For a digest."""
        return self.mean.tobytes() + self.sd.tobytes()


@dataclass(frozen=True)
class ClassifierView:
    """The penultimate layer of a frozen classifier, standardised."""

    classifier: Classifier
    standard: Standard
    name: str = "classifier"

    @property
    def digest(self) -> str:
        """Sha256 of the weights and the standardisation."""
        state = hashlib.sha256(self.name.encode())
        for name, tensor in sorted(self.classifier.network.state_dict().items()):
            state.update(name.encode() + np.ascontiguousarray(tensor.numpy()).tobytes())
        state.update(self.standard.to_bytes())
        return state.hexdigest()

    def __call__(self, images: NDArray[np.float32]) -> F64:
        """(N, S, S) to (N, 64).

        Raises:
            DataError: images of another size.
        """
        return self.standard(self.classifier.features(images).astype(np.float64))


@dataclass(frozen=True)
class FixedView:
    """Counts, asymmetry, spectrum and sector means: nothing is fitted but the standardisation."""

    standard: Standard
    name: str = "fixed"

    @property
    def digest(self) -> str:
        """Sha256 of the definition's constants and the standardisation."""
        what = f"{self.name} {BANDS} {HIGHEST} {SECTORS} {_RINGS} {FAR}".encode()
        return hashlib.sha256(what + self.standard.to_bytes()).hexdigest()

    def __call__(self, images: NDArray[np.float32]) -> F64:
        """(N, S, S) to (N, 27)."""
        return self.standard(fixed_vector(images))


def fit_classifier_view(
    real_train: Dataset, settings: FitSettings, *, factor: str | None = None, seed: int = 0
) -> ClassifierView:
    """Fits the classifier on the real training slices, every class drawn equally often.

    Args:
        real_train: Labelled real slices of the training patients.
        settings: Of the fit.
        factor: Whose values are the classes; by default every cell that has slices is one, so
            that the features tell apart all that the generator is told to tell apart.
        seed: Of the fit.

    Raises:
        DataError: no labelled slice.
        LeakageError: the data hold synthetic slices.
    """
    images = _training_images(real_train)
    classes = (
        real_train.cell_index[real_train.labelled]
        if factor is None
        else class_labels(real_train, factor)
    )
    labels = np.asarray(np.unique(classes, return_inverse=True)[1], np.int64)
    classifier = fit_classifier(
        images,
        labels,
        int(labels.max()) + 1,
        settings,
        seed=seed,
        sampling=1.0 / np.bincount(labels)[labels],
    )
    raw = classifier.features(images).astype(np.float64)
    return ClassifierView(classifier, Standard.of(raw))


def fixed_view(real_train: Dataset) -> FixedView:
    """The fixed vector, standardised by the real training slices.

    Raises:
        DataError: no labelled slice.
        LeakageError: the data hold synthetic slices.
    """
    return FixedView(Standard.of(fixed_vector(_training_images(real_train))))


def _training_images(real_train: Dataset) -> NDArray[np.float32]:
    rows = real_train.labelled
    if not rows.any():
        raise DataError("the training data have no labelled slice", do="add labelled slices")
    if bool(np.any(real_train.column("synthetic"))):
        raise LeakageError(
            "the features would be fitted on synthetic slices",
            allowed="real training slices",
            do="leave the rows with synthetic = true out",
        )
    return real_train.images[rows]


def fixed_vector(images: NDArray[np.float32]) -> F64:
    """Log MC, log LR, |log LR|, 8 log radial powers, 16 sector means over MC; not standardised.

    Args:
        images: (N, S, S) in [0, 1], normalised counts.

    Returns:
        (N, 27); NaN where a slice has no such value.

    Raises:
        DataError: the images are not (N, S, S).
    """
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"the images have shape {images.shape}", allowed="(N, S, S)")
    parts = [_fixed_chunk(images[i : i + _CHUNK]) for i in range(0, len(images), _CHUNK)]
    return np.concatenate(parts) if parts else np.empty((0, 3 + BANDS + SECTORS * _RINGS))


def _fixed_chunk(images: NDArray[np.float32]) -> F64:
    asymmetry = np.log(left_right_ratio(images))
    counts = mean_counts(images)
    frequencies = np.geomspace(2 / images.shape[-1], HIGHEST, BANDS)
    power = np.log(radial_power(images, 1.0, frequencies.tolist()) + _LEAST)
    sectors = sector_means(images) / counts[:, None]
    return np.column_stack([np.log(counts), asymmetry, np.abs(asymmetry), power, sectors])


def sector_means(images: NDArray[np.float32]) -> F64:
    """Means over 8 sectors, each in an inner and an outer half, about the mask's centre.

    The radius is scaled by the mask's own extent along rows and columns, and the halves part at
    the mask's median radius: about equally many pixels each, whatever the size of the object. An
    edge between sectors runs along the middle column, so no sector mixes the sides.

    Args:
        images: (N, S, S) counts.

    Returns:
        (N, 16) inner sectors first; NaN where a sector holds no pixel of the mask.
    """
    mask = masks(images)
    area = np.maximum(mask.sum(axis=(1, 2)), 1)
    grid = np.arange(images.shape[-1], dtype=np.float64)
    offsets = []
    for axis in (1, 2):
        profile = mask.sum(axis=3 - axis)
        offset = grid - (profile @ grid / area)[:, None]
        spread = np.sqrt((profile * offset**2).sum(axis=1) / area)
        offsets.append(offset / np.maximum(spread, 1e-9)[:, None])
    down, right = offsets[0][:, :, None], offsets[1][:, None, :]
    radius = np.hypot(down, right)
    middle = np.asarray(
        [np.median(r[m]) if m.any() else 0.0 for r, m in zip(radius, mask, strict=True)]
    )
    turn = np.arctan2(down, right) / (2 * np.pi) % 1.0
    sector = np.minimum((turn * SECTORS).astype(np.int64), SECTORS - 1)
    label = sector + SECTORS * (radius > middle[:, None, None])
    return _means_by_label(images, label, mask, SECTORS * _RINGS)


def mirrored(vectors: F64) -> F64:
    """What ``fixed_vector`` gives of the slices' mirror images, but for pixels on an edge.

    Args:
        vectors: (N, 27), not standardised.
    """
    turned = vectors.copy()
    turned[:, 1] *= -1
    sector = np.arange(SECTORS)
    other = (SECTORS // 2 - 1 - sector) % SECTORS  # an angle a becomes pi - a
    for ring in range(_RINGS):
        first = 3 + BANDS + ring * SECTORS
        turned[:, first + sector] = vectors[:, first + other]
    return turned


def _means_by_label(
    images: NDArray[np.float32], label: NDArray[np.int64], mask: NDArray[np.bool_], n: int
) -> F64:
    """(N, n) mean of each slice's pixels of each label inside the mask."""
    rows = np.broadcast_to(np.arange(len(images))[:, None, None], images.shape)
    index = (rows * n + label)[mask]
    counts = np.bincount(index, minlength=len(images) * n)
    sums = np.bincount(index, images[mask], minlength=len(images) * n)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return np.asarray(means.reshape(len(images), n))


@dataclass(frozen=True)
class Sample:
    """Slices as vectors, with what they are of.

    Attributes:
        features: (N, D) float64.
        cells: (N,) the cell of each, written ``COR/bilateral``.
        owners: (N,) whose slice it is: the patient's pseudonym; a generated slice owns itself.
    """

    features: F64
    cells: NDArray[np.str_]
    owners: NDArray[np.str_]

    @classmethod
    def of(cls, features: F64, cells: Sequence[str], owners: Sequence[str] | None = None) -> Self:
        """Checks and builds.

        Args:
            features: (N, D) finite.
            cells: (N,).
            owners: (N,); by default each slice has its own, as generated slices do.

        Raises:
            DataError: the lengths differ, or a feature is not finite.
        """
        n = len(features)
        names = [str(i) for i in range(n)] if owners is None else list(map(str, owners))
        if features.ndim != 2 or len(cells) != n or len(names) != n:
            raise DataError(
                f"features {features.shape}, {len(cells)} cells, {len(names)} owners",
                allowed="(N, D) features and one cell and owner for each row",
            )
        if not np.isfinite(features).all():
            raise DataError("a feature is not finite", allowed="finite features")
        return cls(
            np.ascontiguousarray(features, np.float64),
            np.asarray(list(map(str, cells)), np.str_),
            np.asarray(names, np.str_),
        )

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """The sample of these rows."""
        return type(self)(self.features[rows], self.cells[rows], self.owners[rows])


def real_sample(view: FeatureView, dataset: Dataset) -> Sample:
    """The labelled slices of a data set through a view."""
    rows = dataset.labelled
    cells = [str(c) for c in itertools.compress(dataset.cells, rows)]
    owners = dataset.column("patient_id")[rows].astype(str)
    return Sample.of(view(dataset.images[rows]), cells, list(owners))
