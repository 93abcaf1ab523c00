from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.spectrum import dispersion_spectrum, radial_power


def blob(size: int, sigma: float, row: float | None = None) -> np.ndarray:
    """A Gaussian of that width in pixels."""
    middle = (size - 1) / 2
    y, x = np.mgrid[:size, :size] - middle
    return np.exp(-((x**2) + (y - (row or 0)) ** 2) / (2 * sigma**2)).astype(np.float32)


@pytest.mark.parametrize(("size", "pixel"), [(64, 3.75), (63, 4.0), (32, 1.0)])
def test_a_gaussian_has_its_gaussian_spectrum(size: int, pixel: float):
    sigma, bin_ = 2.0, 1 / (size * pixel)
    frequencies = [0.0, 3 * bin_, 6.5 * bin_]
    got = radial_power(blob(size, sigma)[None], pixel, frequencies)[0]
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(size, pixel)]))
    exact = np.exp(-((2 * np.pi * sigma * pixel * radius) ** 2))
    for value, frequency in zip(got, frequencies, strict=True):
        ring = np.abs(radius - frequency) <= 0.5001 * bin_
        assert value == pytest.approx(exact[ring].mean(), rel=1e-3)
    # Near the analytic value at f itself: the annulus is narrow.
    assert got[1] == pytest.approx(np.exp(-((2 * np.pi * sigma * pixel * 3 * bin_) ** 2)), rel=0.1)


def test_place_scale_and_direction_do_not_matter():
    image, frequencies = blob(64, 3.0), [0.02, 0.05]
    variants = np.stack([image, image * 0.25, np.roll(image, 5, axis=1), image.T])
    power = radial_power(variants, 3.75, frequencies)
    assert power == pytest.approx(np.broadcast_to(power[0], power.shape), rel=1e-4)


def test_one_wave_stands_at_its_own_frequency():
    wave = (1 + 0.5 * np.sin(2 * np.pi * 8 * np.arange(64) / 64)).astype(np.float32)
    power = radial_power(np.broadcast_to(wave, (1, 64, 64)), 1.0, [6 / 64, 8 / 64, 10 / 64])[0]
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(64)]))
    members = np.sum(np.abs(radius - 8 / 64) <= 0.5001 / 64)
    assert power[1] == pytest.approx(2 * 0.25**2 / members, rel=1e-4)
    assert power[[0, 2]] == pytest.approx(0, abs=1e-10)


def test_blank_slices_and_frequencies_beyond_nyquist_are_nan():
    power = radial_power(
        np.stack([np.zeros((8, 8)), np.ones((8, 8))]).astype("f4"), 2, [0, 0.25, 1]
    )
    assert np.isnan(power[0]).all()
    assert power[1, 0] == 1
    assert power[1, 1] == pytest.approx(0, abs=1e-12)
    assert np.isnan(power[1, 2])
    assert radial_power(np.zeros((0, 8, 8), np.float32), 1, [0.1]).shape == (0, 1)


@pytest.mark.parametrize(("shape", "pixel", "frequency"),
                         [((8, 8), 1, 0.1), ((1, 8, 9), 1, 0.1), ((1, 8, 8), 0, 0.1),
                          ((1, 8, 8), float("nan"), 0.1), ((1, 8, 8), 1, -0.1)])  # fmt: skip
def test_bad_input(shape: tuple[int, ...], pixel: float, frequency: float):
    with pytest.raises(DataError):
        radial_power(np.ones(shape, np.float32), pixel, [frequency])


def test_dispersion_sums_to_the_variance_and_of_itself_is_one():
    images = np.random.default_rng(0).uniform(0, 1, (30, 33, 33)).astype(np.float32)
    for one in (images, images[:, :32, :32]):
        found = dispersion_spectrum(one, one)
        assert found.ratio == pytest.approx((1.0,) * 5)
        variance = one.astype(np.float64).var(axis=0, ddof=1).mean()
        assert sum(found.real) == pytest.approx(variance, rel=1e-5)


def test_dispersion_tells_at_which_scale_diversity_is_missing():
    random = np.random.default_rng(1)
    real, made = (random.normal(0.5, 0.1, (200, 32, 32)).astype(np.float32) for _ in range(2))
    blurred = dispersion_spectrum(ndimage.gaussian_filter(made, (0, 1, 1)), real).ratio
    assert blurred[0] == pytest.approx(1, abs=0.15)
    assert list(blurred) == sorted(blurred, reverse=True)
    assert blurred[-1] < 0.05
    # White noise has the same power everywhere; a shifted mean image is no diversity.
    assert dispersion_spectrum(made + 0.3, real).ratio == pytest.approx((1.0,) * 5, abs=0.15)
    half = real.mean(axis=0) + (made - made.mean(axis=0)) / 2
    assert dispersion_spectrum(half, real).ratio == pytest.approx((0.25,) * 5, abs=0.05)


def test_dispersion_of_poor_input():
    one, flat = np.random.default_rng(2).random((1, 8, 8), np.float32), np.ones((4, 8, 8), "f4")
    assert np.isnan(dispersion_spectrum(one, flat).ratio).all()
    assert np.isnan(dispersion_spectrum(flat, flat).ratio).all()
    with pytest.raises(DataError):
        dispersion_spectrum(flat, np.ones((4, 9, 9), "f4"))
