"""Laws of the feature views."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from heads import LEFT, heads

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError, LeakageError
from fastgan_aug.quality.likeness.classifier import FitSettings
from fastgan_aug.quality.likeness.features import (
    BANDS,
    COARSE,
    FAR,
    FixedView,
    Sample,
    Standard,
    fit_classifier_view,
    fixed_vector,
    fixed_view,
    mirrored,
    real_sample,
    sector_means,
)

QUICK = FitSettings(40, 16, width=4)


@pytest.mark.parametrize("size", [32, 64])
def test_the_fixed_vector_is_standard_on_its_training_set(size: int) -> None:
    images = heads(200, 0, size=size)
    view = FixedView(Standard.of(fixed_vector(images)))
    found = view(images)
    assert found.shape == (200, 27)
    assert found.mean(axis=0) == pytest.approx(0, abs=0.05)
    assert found.std(axis=0) == pytest.approx(1, abs=0.05)
    assert view(images[:3]) == pytest.approx(found[:3])  # whatever stands beside it


def test_mirroring_turns_the_asymmetry_round() -> None:
    images = heads(20, 1, side=LEFT)
    one, other = fixed_vector(images), fixed_vector(images[:, :, ::-1])
    assert one[:, [0, 2]] == pytest.approx(other[:, [0, 2]])
    assert one[:, 1] == pytest.approx(-other[:, 1])
    assert one[:, 3:11] == pytest.approx(other[:, 3:11], rel=1e-4)
    assert np.array_equal(mirrored(mirrored(one)), one)
    # Pixels on an edge between sectors go to the other one.
    assert np.abs(mirrored(one) - other).max() < 0.05


def test_noise_leaves_the_coarse_elements_alone() -> None:
    images = heads(100, 2)
    noise = np.random.default_rng(0).normal(0, 0.01, images.shape).astype(np.float32)
    view = FixedView(Standard.of(fixed_vector(images)))
    moved = np.abs(view(np.clip(images + noise, 0, 1)) - view(images)).mean(axis=0)
    others = np.setdiff1d(np.arange(27), COARSE)
    assert len(others) == BANDS // 2
    assert moved[COARSE].mean() < moved[others].mean() / 2


def test_sectors_are_where_they_should_be() -> None:
    y, x = np.mgrid[:64, :64] - 31.5
    disc = np.where(np.hypot(x, y) < 25, 0.5, 0).astype(np.float32)
    assert sector_means(disc[None]) == pytest.approx(0.5)
    # Lower right: right of the middle column, below the middle row.
    quarter = np.where((x > 0) & (y > 0), disc * 2, disc).astype(np.float32)
    means = sector_means(quarter[None])[0].reshape(2, 8)
    assert means[:, :2] == pytest.approx(1.0)
    assert means[:, 2:] == pytest.approx(0.5)
    rim = np.where(np.hypot(x, y) > 18, disc * 2, disc).astype(np.float32)
    inner, outer = sector_means(rim[None])[0].reshape(2, 8)
    assert inner == pytest.approx(0.5, abs=0.02)
    assert outer == pytest.approx(1.0, abs=0.05)


def test_blank_slices_lie_far_out_and_break_nothing() -> None:
    images = heads(40, 2)
    view = FixedView(Standard.of(fixed_vector(images)))
    found = view(np.concatenate([images[:1], np.zeros_like(images[:1])]))
    assert np.isfinite(found).all()
    assert np.abs(found[1]).max() == FAR
    assert view(images[:0]).shape == (0, 27)
    with pytest.raises(DataError):
        fixed_vector(np.zeros((2, 8, 9), np.float32))


def test_an_element_that_never_varies_does_no_harm() -> None:
    standard = Standard.of(np.array([[1.0, 3.0], [1.0, 5.0], [1.0, np.nan]]))
    assert standard.sd.tolist() == [1.0, 1.0]
    assert standard(np.array([[1.0, 4.0], [2.0, np.nan]])).tolist() == [[0, 0], [1, FAR]]


def test_the_classifier_view_is_decided_by_its_seed(toy: Dataset) -> None:
    one, same = (fit_classifier_view(toy, QUICK, seed=0) for _ in range(2))
    other = fit_classifier_view(toy, QUICK, seed=1)
    images = toy.images[:9]
    assert len(one.digest) == 64
    assert one.digest == same.digest != other.digest
    np.testing.assert_array_equal(one(images), same(images))
    assert one(images).dtype == np.float64
    assert one(images).shape == (9, 64)


def test_classes_are_the_cells_or_one_factors_values(toy: Dataset) -> None:
    # One factor: the same classes either way, so the same fit.
    cells, factor = (fit_classifier_view(toy, QUICK, factor=f) for f in (None, "shape"))
    assert cells.digest == factor.digest


def test_the_fixed_views_digest_follows_its_training_set(toy: Dataset) -> None:
    half = toy.take(np.arange(len(toy)) % 2 == 0)
    assert fixed_view(toy).digest == fixed_view(toy).digest != fixed_view(half).digest


def test_no_view_is_fitted_on_synthetic_slices(toy: Dataset) -> None:
    marks = np.zeros(len(toy), np.bool_)
    marks[3] = True
    position = toy.table.column_names.index("synthetic")
    mixed = Dataset(toy.table.set_column(position, "synthetic", pa.array(marks)), toy.meta)
    for fit in (fixed_view, partial(fit_classifier_view, settings=QUICK)):
        with pytest.raises(LeakageError):
            fit(mixed)
        with pytest.raises(DataError):
            fit(toy.take(~toy.labelled))


def test_a_sample_holds_the_labelled_slices(toy: Dataset) -> None:
    sample = real_sample(fixed_view(toy), toy)
    assert len(sample) == toy.labelled.sum()
    assert set(sample.owners) <= set(toy.patients)
    assert set(sample.cells) == {"disc", "ring", "bar", "cross"}
    assert len(sample.take(sample.cells == "disc")) == 60


@pytest.mark.parametrize(("features", "cells", "owners"), [
    (np.zeros((2, 3)), ["a"], None), (np.zeros(2), ["a", "a"], None),
    (np.zeros((2, 3)), ["a", "a"], ["p"]), (np.full((1, 3), np.nan), ["a"], None),
])  # fmt: skip
def test_bad_samples(features: np.ndarray, cells: list[str], owners: list[str] | None) -> None:
    with pytest.raises(DataError):
        Sample.of(features, cells, owners)
