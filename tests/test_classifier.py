"""Laws of the one classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.errors import DataError, LeakageError
from fastgan_aug.quality.likeness.classifier import (
    Classifier,
    FitSettings,
    fit_classifier,
    fit_network,
    small_cnn,
)
from fastgan_aug.quality.likeness.faithfulness import faithfulness

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


def bars(size: int = 32, n: int = 96, seed: int = 0) -> Labelled:
    """Noise with a bar on one side, on the other, or on both."""
    random = np.random.default_rng(seed)
    images = random.random((n, size, size), np.float32) * 0.4
    labels = np.arange(n, dtype=np.int64) % 3
    wide = size // 8
    for image, label in zip(images, labels, strict=True):
        top = random.integers(size // 4, size // 2)
        if label in (0, 2):
            image[top : top + size // 4, wide : 2 * wide] += 0.5
        if label in (1, 2):
            image[top : top + size // 4, -2 * wide : -wide] += 0.5
    return images, labels


def fit(data: Labelled, steps: int = 40, seed: int = 1, **more: Any) -> Classifier:
    return fit_classifier(*data, 3, FitSettings(steps, 32, width=4), seed=seed, **more)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_learns_the_side_and_generalises(size: int) -> None:
    classifier = fit(bars(size), steps=80)
    images, labels = bars(size, seed=1)
    assert (classifier.predict(images) == labels).mean() > 0.9


def test_same_seed_same_weights_whatever_the_global_stream() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = fit(bars())
    assert torch.equal(before, torch.random.get_rng_state()), "the global stream is left alone"
    torch.rand(3)
    second, other = fit(bars()), fit(bars(), seed=2)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    images = bars(seed=3)[0]
    assert not np.array_equal(first.predict_proba(images), other.predict_proba(images))


def test_probabilities_and_features() -> None:
    classifier, images = fit(bars()), bars(n=300)[0]
    chances = classifier.predict_proba(images)
    assert chances.dtype == np.float32
    assert chances.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-5)
    assert classifier.features(images).shape == (300, 64)
    assert chances[:7] == pytest.approx(classifier.predict_proba(images[:7]), abs=1e-5)


def test_a_class_never_sampled_is_never_learnt() -> None:
    data = bars()
    classifier = fit(data, sampling=(data[1] != 2).astype(np.float64))
    assert set(classifier.predict(data[0])) <= {0, 1}


def test_a_class_without_weight_is_never_learnt() -> None:
    data, weights = bars(), np.asarray([1, 1, 0], np.float32)
    settings = FitSettings(40, 32, width=4)
    network = fit_network(small_cnn, *data, 3, settings, seed=1, class_weights=weights)
    classifier = Classifier(network, data[0].shape[1])
    assert set(classifier.predict(data[0])) <= {0, 1}


def test_shuffled_labels_give_chance() -> None:
    images, labels = bars(n=90)
    shuffled = np.random.default_rng(0).permutation(labels)
    fresh, truth = bars(n=300, seed=9)
    accuracy = (fit((images, shuffled)).predict(fresh) == truth).mean()
    assert 0.1 < accuracy < 0.6


def test_bad_input_gives_its_typed_error() -> None:
    images, labels = bars()
    for wrong in (
        (images[0], labels),
        (images, labels[:-1]),
        (images[:0], labels[:0]),
        (images, labels + 1),
        (images[:, :8, :8], labels),
    ):
        with pytest.raises(DataError):
            fit(wrong)
    with pytest.raises(DataError, match="sampling"):
        fit((images, labels), sampling=np.ones(3))
    with pytest.raises(DataError, match="shape"):
        fit((images, labels), steps=1).predict(bars(64)[0])


def test_real_slices_taken_for_synthetic_are_recognised(toy: Dataset) -> None:
    train, test = split_by_patient(toy, 0.3, seed=0)
    rows = test.labelled
    cells = [str(c) for c in test.cells if c is not None]
    settings = FitSettings(80, width=8)
    found = faithfulness(train, test.images[rows], cells, "shape", settings, real_test=test)
    assert found.synthetic == found.real
    assert found.synthetic > 2 * found.chance
    assert found.chance == 1 / 4
    # Right about the pictures, it is wrong about labels moved on by one class.
    names = [str(c) for c in train.meta.space.cells]
    wrong = [names[(names.index(c) + 1) % len(names)] for c in cells]
    moved = faithfulness(train, test.images[rows], wrong, "shape", settings)
    assert moved.synthetic < found.synthetic / 2
    with pytest.raises(LeakageError):
        faithfulness(train, test.images[rows], cells, "shape", settings, real_test=train)
