"""The scanner's physics: what no anatomy can change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_aug.config import Config, load_config
from fastgan_aug.data.phantom.osem import mix_across, post_filter, reconstruct
from fastgan_aug.data.phantom.population import PhantomConfig
from fastgan_aug.data.phantom.spect import (
    BUTTERWORTH,
    CHANG,
    GAUSSIAN,
    MODEL,
    NO_CORRECTION,
    SUBTRACT,
    Acquisition,
    Ellipses,
    Scanner,
    acquire,
    back_project,
    inside,
    project,
    system_matrix,
    transmission,
)
from fastgan_aug.errors import ConfigError

SMALL = Scanner(pixel_mm=8.0, views=24, subsets=6)
CLEAN = Scanner(
    views=60, scatter=(0.0, 0.0), scatter_error=0.0, collimator_mm=0.5, collimator_slope=0.0
)


def disc(size: int, pixel_mm: float, radius_mm: float) -> np.ndarray:
    line = (np.arange(size) - (size - 1) / 2) * pixel_mm
    return (np.hypot(line[:, None], line[None]) < radius_mm).astype(np.float32)


def circle(n: int, radius: float) -> Ellipses:
    return Ellipses(np.zeros((n, 2)), np.full((n, 2), radius))


def scanned(
    scanner: Scanner, emitted: np.ndarray, heads: Ellipses, counts: float, seed: int = 0
) -> Acquisition:
    """One slice a scan."""
    n = len(emitted)
    randoms = [np.random.default_rng([seed, i]) for i in range(n)]
    scatter = np.full(n, scanner.scatter[0])
    return acquire(scanner, emitted, heads, np.arange(n), np.full(n, counts), scatter, randoms)


# -- projection --------------------------------------------------------------------------------


@pytest.mark.parametrize("blurred", [True, False])
def test_every_photon_of_the_field_is_counted_once(blurred: bool):
    sums = system_matrix(Scanner(), 64, blurred=blurred).sum(2)
    middle = np.hypot(*np.nonzero(inside(64, 4.0))[::1] - np.float64(31.5)) < 22
    assert sums.max() <= 1 + 1e-4
    np.testing.assert_allclose(sums[:, middle], 1, atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 99))
def test_back_projection_is_the_transpose(seed: int):
    random = np.random.default_rng(seed)
    matrix = system_matrix(SMALL, 32, blurred=True)
    kept = transmission(SMALL, 32, circle(2, 12.0), 0.148)
    pixels = random.random((2, matrix.shape[1]), np.float32)
    bins = random.random((24, 2, 32), np.float32)
    one = float((project(matrix, kept, pixels) * bins).sum())
    other = float((pixels * back_project(matrix, kept, bins)).sum())
    assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.phantom
def test_attenuation_is_beers_law():
    """Water at 159 keV, 0.148 /cm [M, NIST]. Tolerance: 5 %."""
    scanner = Scanner()
    kept = transmission(scanner, 64, circle(1, 20.0), 0.148)
    ys, xs = np.nonzero(inside(64, 4.0))
    nearest = int(np.argmin(np.hypot(xs - 31.5, ys - 31.5)))
    # From the middle of an 8 cm head, 8 cm of water on every side (the pixel is 0.5 off).
    np.testing.assert_allclose(kept[:, 0, nearest], np.exp(-0.148 * 8), rtol=0.05)
    assert (transmission(scanner, 64, circle(1, 20.0), 0.0) == 1).all()
    outside = np.hypot(xs - 31.5, ys - 31.5) > 20
    assert (kept[:, 0, outside] == 1).all()


def test_rays_end_at_the_ellipse_on_either_side():
    scanner = replace(Scanner(), views=4, subsets=1)
    heads = Ellipses(np.asarray([[2.0, -1.0]]), np.asarray([[15.0, 22.0]]))
    kept = transmission(scanner, 64, heads, 0.148)
    ys, xs = np.nonzero(inside(64, 4.0))
    at = int(np.flatnonzero((xs == 36) & (ys == 28))[0])  # 4.5 right of, 3.5 above the middle
    across = 15 * np.sqrt(1 - ((-3.5 + 1) / 22) ** 2)
    along = 22 * np.sqrt(1 - ((4.5 - 2) / 15) ** 2)
    lengths = [along - (-3.5 + 1), across + (4.5 - 2), along + (-3.5 + 1), across - (4.5 - 2)]
    np.testing.assert_allclose(-np.log(kept[:, 0, at]) / (0.148 * 0.4), lengths, rtol=1e-4)


@pytest.mark.phantom
def test_counts_are_poisson_and_as_many_as_asked():
    """Variance over mean of unfiltered projections: 1. Tolerance: 0.02."""
    emitted = np.repeat(disc(64, 4.0, 80)[None], 60, 0)
    emitted /= emitted[0].sum()
    taken = scanned(Scanner(scatter=(0.15, 0.15)), emitted, circle(60, 24.0), 60_000)
    totals = taken.counts.sum((0, 2))
    assert totals.mean() == pytest.approx(60_000, rel=0.005)
    seen = taken.expected[:, 0] > 1
    ratio = taken.counts.var(1, ddof=1)[seen].mean() / taken.counts.mean(1)[seen].mean()
    assert ratio == pytest.approx(1, abs=0.02)  # variance over mean, unfiltered projections


@pytest.mark.phantom
def test_scatter_is_the_share_asked_for_and_broad():
    """10-20 % of scatter and penetration [K], as configured. Tolerance: 0.1 %."""
    emitted = disc(64, 4.0, 30)[None]
    emitted /= emitted.sum()
    scanner = Scanner(scatter=(0.2, 0.2), scatter_error=0.0)
    with_scatter = scanned(scanner, emitted, circle(1, 24.0), 50_000)
    stray = with_scatter.scatter.sum() / (with_scatter.expected - with_scatter.scatter).sum()
    assert stray == pytest.approx(0.2, rel=1e-3)
    assert (with_scatter.scatter > 0).mean() > 0.99  # everywhere, as penetration is


def test_one_scan_does_not_depend_on_those_beside_it():
    emitted = np.repeat(disc(64, 4.0, 80)[None], 2, 0)
    emitted /= emitted[0].sum()
    both = scanned(Scanner(), emitted, circle(2, 24.0), 60_000)
    alone = scanned(Scanner(), emitted[:1], circle(1, 24.0), 60_000)
    # Products of another shape may differ in the last bit, and so a count here or there.
    assert (both.counts[:, :1] != alone.counts).mean() < 1e-3


def test_within_a_scan_a_slice_of_half_the_activity_has_half_the_counts():
    emitted = np.repeat(disc(64, 4.0, 80)[None], 2, 0)
    emitted /= emitted[0].sum()
    emitted[1] *= 0.5
    random = np.random.default_rng(0)
    taken = acquire(
        Scanner(), emitted, circle(2, 24.0), np.zeros(2, np.int64), np.asarray([80_000.0]),
        np.asarray([0.15]), [random],
    )  # fmt: skip
    totals = taken.expected.sum((0, 2))
    assert totals[1] / totals[0] == pytest.approx(0.5, rel=1e-3)


# -- reconstruction ----------------------------------------------------------------------------


def activity(scanner: Scanner) -> np.ndarray:
    """A disc of 1 with a hot rod of 3 and a cold one of 0."""
    line = (np.arange(64) - 31.5) * scanner.pixel_mm
    body = disc(64, scanner.pixel_mm, 80)
    for x, y, value in ((30, 0, 3.0), (-30, 0, 0.0)):
        body[np.hypot(line[None] - x, line[:, None] - y) < 18] = value
    return body


@pytest.mark.phantom
def test_osem_recovers_a_known_activity():
    """Without noise and blur. Tolerance: 3 % of the body, 5 % of the hot rod, cold below 0.1."""
    body = activity(CLEAN)[None]
    taken = scanned(CLEAN, body / body.sum(), circle(1, 23.0), 1e9)
    found = reconstruct(replace(CLEAN, iterations=10), taken)[0]
    found *= body.sum() / found.sum()
    line = (np.arange(64) - 31.5) * 4.0
    far = np.hypot(line[None], line[:, None] - 45) < 15
    hot = np.hypot(line[None] - 30, line[:, None]) < 8
    cold = np.hypot(line[None] + 30, line[:, None]) < 8
    assert found[far].mean() == pytest.approx(1, abs=0.03)
    assert found[hot].mean() == pytest.approx(3, abs=0.15)
    assert found[cold].mean() < 0.1


@pytest.mark.phantom
def test_without_attenuation_correction_the_middle_is_cold():
    """Corrected flat within 3 % (Chang 10 %), uncorrected below 0.7 of the rim."""
    body = disc(64, 4.0, 80)[None]
    taken = scanned(CLEAN, body / body.sum(), circle(1, 20.0), 1e8)
    middle, rim = disc(64, 4.0, 20) > 0, (disc(64, 4.0, 70) - disc(64, 4.0, 55)) > 0

    def cupping(correction: str) -> float:
        image = reconstruct(replace(CLEAN, attenuation_correction=correction), taken)[0]
        return float(image[middle].mean() / image[rim].mean())

    assert cupping("matched") == pytest.approx(1, abs=0.03)
    assert cupping(CHANG) == pytest.approx(1, abs=0.10)
    assert cupping(NO_CORRECTION) < 0.7


@pytest.mark.parametrize("correction", [MODEL, SUBTRACT])
def test_scatter_correction_restores_contrast(correction: str):
    scanner = replace(CLEAN, scatter=(0.2, 0.2), iterations=8, scatter_correction=correction)
    body = activity(scanner)[None]
    taken = scanned(scanner, body / body.sum(), circle(1, 23.0), 1e8)
    line = (np.arange(64) - 31.5) * 4.0
    cold = np.hypot(line[None] + 30, line[:, None]) < 8
    warm = np.hypot(line[None], line[:, None] - 45) < 15

    def left(how: Scanner) -> float:
        image = reconstruct(how, taken)[0]
        return float(image[cold].mean() / image[warm].mean())

    assert left(scanner) < 0.6 * left(replace(scanner, scatter_correction=NO_CORRECTION))


def test_reconstructions_are_non_negative_and_finite_even_without_counts():
    taken = scanned(Scanner(), np.zeros((1, 64, 64), np.float32), circle(1, 20.0), 20_000)
    image = reconstruct(Scanner(), taken)
    assert np.isfinite(image).all()
    assert (image >= 0).all()


def fwhm(profile: np.ndarray, step: float) -> float:
    fine = np.interp(np.arange(0, len(profile), 0.01), np.arange(len(profile)), profile)
    return float((fine > fine.max() / 2).sum() * 0.01 * step)


@pytest.mark.phantom
@pytest.mark.parametrize(("distance", "expected"), [(100, 7.2), (130, 8.5), (150, 9.4)])
def test_collimator_blur(distance: float, expected: float):
    """Measured for low-energy high-resolution collimators at 10, 13 and 15 cm."""
    assert Scanner().blur_mm(distance) == pytest.approx(expected, abs=0.1)


@pytest.mark.phantom
@pytest.mark.parametrize("name", ["demo", "phantom-second-scanner"])
@pytest.mark.parametrize("column", [32, 42])
def test_final_resolution(name: str, column: int):
    """9-13 mm FWHM of a hot line in warm water (plausible for brain SPECT). Tolerance: 0.6 mm.

    OSEM is not linear: a line in air comes out narrower, a faint one on a warm ground wider.
    """
    phantom = load_config(name).phantom or PhantomConfig()
    scanner = replace(phantom.scanner, scatter_error=0.0)
    water = disc(64, scanner.pixel_mm, 80)[None]
    line = water.copy()
    line[0, 32, column] += 20
    heads = circle(1, 92 / scanner.pixel_mm)

    def image(body: np.ndarray) -> np.ndarray:
        taken = scanned(scanner, body / body.sum(), heads, 1e10)
        found = post_filter(scanner, reconstruct(scanner, taken))[0]
        return np.asarray(found * body.sum() / found.sum())

    spread = image(line) - image(water)
    widths = [fwhm(p, scanner.pixel_mm) for p in (spread[32], spread[:, column])]
    assert all(8.4 <= w <= 13.6 for w in widths), widths


# -- filters and settings ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BUTTERWORTH, GAUSSIAN])
def test_filters_keep_the_total_of_a_smooth_object(kind: str):
    scanner = Scanner(filter=kind)
    image = disc(64, 4.0, 60)[None]
    smooth = post_filter(scanner, image)
    # Butterworth rings; what falls below zero outside is cut off, a percent of the whole.
    assert smooth.sum() == pytest.approx(image.sum(), rel=0.015)
    assert smooth.min() >= 0


def test_butterworth_halves_the_power_at_its_cutoff():
    scanner = Scanner(cutoff_per_cm=0.5, order=4)
    wave = np.sin(2 * np.pi * 0.05 * 4.0 * np.arange(256) + 0.3)  # 0.5 cycles/cm
    image = np.broadcast_to(5 + wave, (1, 256, 256)).astype(np.float32)
    middle = post_filter(scanner, image)[0, 100:150, 100:150] - 5
    gain = np.sqrt((middle**2).mean() / (wave[100:150] ** 2).mean())
    assert gain == pytest.approx(1 / np.sqrt(2), rel=0.02)


def test_mixing_across_slices_keeps_what_is_the_same_and_correlates_noise():
    scanner = Scanner()
    noise = np.random.default_rng(0).random((40, 16, 16), np.float32)
    mixed = mix_across(scanner, noise)
    assert mixed.shape == (38, 16, 16)
    assert np.corrcoef(mixed[:-1].ravel(), mixed[1:].ravel())[0, 1] > 0.4
    np.testing.assert_allclose(mix_across(scanner, np.ones((3, 4, 4), np.float32)), 1, rtol=1e-6)


def test_ellipses_are_found_again():
    line = np.arange(64) - 31.5
    mask = ((line[None] - 2) / 15) ** 2 + ((line[:, None] + 3) / 20) ** 2 < 1
    found = Ellipses.around(np.stack((mask, np.zeros_like(mask))), 3.0)
    np.testing.assert_allclose(found.centre[0], (2, -3), atol=0.1)
    np.testing.assert_allclose(found.axes[0], (18, 23), atol=0.2)
    assert np.isfinite(found.axes).all()


@pytest.mark.parametrize(
    "values",
    [
        {"pixel_mm": 0.0},
        {"views": 0},
        {"views": 90, "subsets": 7},
        {"slice_counts": (10.0, 5.0)},
        {"slice_counts": (0.0, 5.0)},
        {"scatter": (0.2, 0.1)},
        {"scatter": (0.2, 1.0)},
        {"filter": "hann"},
        {"attenuation_correction": "ct"},
        {"scatter_correction": "tew"},
        {"mixed_across": 0.5},
        {"radius_mm": 1.0},
        {"views": 100_000, "subsets": 10},
        {"collimator_slope": float("inf")},
        {"slice_counts": (1e300, 1e301)},
        {"pixel_mm": float("nan")},
        {"tilt_deg": 90.0},
        {"attenuation_per_cm": -0.1},
    ],
)
def test_bad_protocols_are_refused_with_what_is_allowed(values: dict[str, object]):
    with pytest.raises(ValueError, match="allowed"):
        Scanner(**values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="scanner"):
        Config.of({"name": "x", "phantom": {"scanner": values}})


def test_a_protocol_comes_from_the_configuration():
    config = Config.of({"name": "x", "phantom": {"scanner": {"pixel_mm": 3.5, "views": 60}}})
    assert config.phantom == PhantomConfig(scanner=Scanner(pixel_mm=3.5, views=60))
