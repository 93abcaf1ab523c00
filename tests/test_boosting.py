"""Laws of the baseline without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from downstream.arms.augmentation import classical_augmentation
from downstream.classifiers.boosting import COPIES, Boosting, slice_weights, tabulated
from fastgan_aug.errors import ConfigError, DataError
from tests.fitting import QUICK, bright_or_dark


def test_it_learns_follows_its_seed_and_gives_absent_classes_no_chance() -> None:
    fit, unseen = bright_or_dark(0), bright_or_dark(1)
    told = Boosting().fit(fit, 3, QUICK, 0).predict_proba(unseen.images)
    assert told.dtype == np.float32
    assert told.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (told[:, 2] == 0).all()
    assert (told.argmax(axis=1) == unseen.labels).mean() > 0.9
    assert np.array_equal(told, Boosting().fit(fit, 3, QUICK, 0).predict_proba(unseen.images))


def test_sampling_and_class_weights_become_weights_of_slices() -> None:
    fit = bright_or_dark(0)
    even = 1.0 / np.bincount(fit.labels)[fit.labels]
    weights = slice_weights(replace(fit, sampling=even))
    assert np.bincount(fit.labels, weights) == pytest.approx(np.full(2, len(fit.labels) / 2))
    by_class = np.asarray([1, 3], np.float32)
    weights = slice_weights(replace(fit, class_weights=by_class))
    assert weights / weights[fit.labels == 0][0] == pytest.approx(by_class[fit.labels])


def test_augmented_slices_are_copies_with_their_labels() -> None:
    fit = bright_or_dark(0)
    augment = classical_augmentation(np.zeros(len(fit.labels), np.bool_), 1)
    features, labels, weights = tabulated(replace(fit, augment=augment), 0)
    assert len(features) == COPIES * len(fit.labels)
    assert np.array_equal(labels, np.tile(fit.labels, COPIES))
    assert weights == pytest.approx(1)
    assert len(np.unique(features, axis=0)) == len(features)


def test_a_mixture_counts_for_both_labels_by_their_shares() -> None:
    fit = bright_or_dark(0)
    features, labels, weights = tabulated(replace(fit, mixup_alpha=0.2), 0)
    n = len(fit.labels)
    for k in range(COPIES):
        one, other = slice(2 * k * n, (2 * k + 1) * n), slice((2 * k + 1) * n, (2 * k + 2) * n)
        assert np.array_equal(features[one], features[other])
        assert weights[one] + weights[other] == pytest.approx(np.full(n, 2 * weights.mean()))
        assert not np.array_equal(labels[one], labels[other])


def test_what_it_cannot_is_refused() -> None:
    fit = bright_or_dark(0)
    with pytest.raises(ConfigError, match="focal loss"):
        Boosting().fit(replace(fit, focal_gamma=2.0), 2, QUICK, 0)
    with pytest.raises(ConfigError, match="pre-training"):
        Boosting().fit(replace(fit, pretraining=fit), 2, QUICK, 0)
    with pytest.raises(DataError, match="fewer than two classes"):
        Boosting().fit(replace(fit, labels=np.zeros_like(fit.labels)), 2, QUICK, 0)


def test_the_global_stream_is_left_alone() -> None:
    fit = bright_or_dark(0)
    before = torch.get_rng_state()
    augment = classical_augmentation(np.zeros(len(fit.labels), np.bool_), 1)
    Boosting().fit(replace(fit, augment=augment), 2, QUICK, 0)
    assert torch.equal(torch.get_rng_state(), before)
