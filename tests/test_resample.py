from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_aug.data.importers.resample import (
    area_mean,
    cut_share,
    fit_field,
    normalise,
    square_pixel,
)
from fastgan_aug.errors import UnreadableImage


@given(st.integers(4, 20), st.integers(2, 24))
def test_resampling_keeps_the_mean_and_a_constant(source: int, size: int):
    image = np.random.default_rng(source).random((source, source))
    resampled = area_mean(image, size)
    assert resampled.shape == (size, size)
    np.testing.assert_allclose(resampled.mean(), image.mean())
    np.testing.assert_allclose(area_mean(np.ones((source, source)), size), 1)


def test_resampling_by_a_whole_factor_is_the_block_mean():
    image = np.random.default_rng(0).random((8, 8))
    np.testing.assert_allclose(area_mean(image, 4), image.reshape(4, 2, 4, 2).mean((1, 3)))
    assert area_mean(image, 8) is image


@given(
    st.integers(3, 20), st.integers(3, 20), st.floats(0.5, 5), st.floats(0.5, 5), st.integers(2, 24)
)
def test_a_field_that_holds_all_keeps_counts_and_centre(
    rows: int, columns: int, dy: float, dx: float, size: int
):
    image = np.random.default_rng(rows).random((rows, columns))
    pixel = square_pixel(image.shape, (dy, dx), size)
    resampled = fit_field(image, (dy, dx), size, pixel)
    np.testing.assert_allclose(resampled.sum() * pixel**2, image.sum() * dy * dx)
    mirrored = fit_field(image[::-1, ::-1], (dy, dx), size, pixel)
    np.testing.assert_allclose(mirrored, resampled[::-1, ::-1], atol=1e-9)
    assert cut_share(image, resampled, (dy, dx), pixel) < 1e-9


def test_a_disc_stays_round_whatever_the_pixels():
    y, x = np.mgrid[:64, :32]
    disc = (np.hypot((y - 31.5) * 1.0, (x - 15.5) * 2.0) < 20).astype(float)
    resampled = fit_field(disc, (1.0, 2.0), 64, 1.0)
    assert resampled.sum(0).nonzero()[0].size == resampled.sum(1).nonzero()[0].size == 40


def test_decimal_spacings_leave_a_fitting_image_as_it_is():
    image = np.random.default_rng(0).random((64, 64))
    for spacing in (3.3, 3.9, 4.795, 2.0 / 3):
        pixel = square_pixel((64, 64), (spacing, spacing), 64)
        assert fit_field(image, (spacing, spacing), 64, pixel) is image
        assert fit_field(image, (spacing, spacing), 64, spacing) is image


def test_a_smaller_field_crops_the_margin_and_tells_what_it_cuts():
    image = np.zeros((16, 16))
    image[4:12, 4:12] = 1
    inner = fit_field(image, (1, 1), 8, 1.0)
    assert (inner == 1).all()
    assert cut_share(image, inner, (1, 1), 1.0) == 0
    narrower = fit_field(image, (1, 1), 4, 1.0)
    assert cut_share(image, narrower, (1, 1), 1.0) == 0.75


def test_the_scale_undoes_the_normalisation():
    counts = np.random.default_rng(0).random((8, 8)) * 777
    image, scale, clipped = normalise(counts)
    assert image.dtype == np.float32
    assert image.max() == 1
    assert not clipped
    np.testing.assert_allclose(image * scale, counts, rtol=1e-6)


def test_tiny_negatives_are_zero_and_others_refused():
    counts = np.full((4, 4), 100.0)
    counts[0, 0] = -0.05
    image, _, clipped = normalise(counts)
    assert clipped
    assert image[0, 0] == 0
    for bad in (-1.0, np.nan, np.inf):
        counts[0, 0] = bad
        with pytest.raises(UnreadableImage):
            normalise(counts)
    with pytest.raises(UnreadableImage):
        normalise(np.full((4, 4), -1.0))
