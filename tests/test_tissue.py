from __future__ import annotations

import numpy as np
import pytest

from fastgan_aug.quality.clinical.tissue import core_of, extents, grey_over_white, head_width_mm


def head(size: int = 64, across: float = 20, along: float = 26, core: float = 0.4) -> np.ndarray:
    """An ellipse of 1 with a dark core of half its size."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    radius = np.hypot(x / across, y / along)
    return np.where(radius < 0.5, core, radius < 1).astype(np.float32)


def test_the_ratio_is_that_of_rim_and_core():
    images = np.stack([head(core=c) for c in (0.35, 0.4, 0.5, 0.8)])
    assert grey_over_white(images) == pytest.approx(1 / np.array([0.35, 0.4, 0.5, 0.8]), rel=1e-5)
    assert grey_over_white(images * 0.5) == pytest.approx(grey_over_white(images), rel=1e-5)


def test_it_survives_counting_noise():
    random = np.random.default_rng(0)
    noisy = random.poisson(head() * 100, (20, 64, 64)).astype(np.float32)
    # p90 of the rim is about 1.1 and p10 of the core about 0.32: noise widens the ratio.
    assert np.median(grey_over_white(noisy / noisy.max(axis=(1, 2), keepdims=True))) == (
        pytest.approx(2.5 * 1.13 / 0.8, rel=0.1)
    )


def test_extent_is_the_masks_own():
    images = np.stack([head(), head(across=15), np.zeros((64, 64), np.float32)])
    assert extents(images).tolist() == [[52, 40], [52, 30], [0, 0]]
    width = head_width_mm(images, 3.75)
    assert width[:2].tolist() == [150.0, 112.5]
    assert np.isnan(width[2])


def test_blank_and_empty_cores_are_nan():
    hollow = head(core=0.0)
    assert np.isnan(grey_over_white(np.stack([hollow, hollow * 0]))).all()
    assert not core_of(np.zeros((8, 8), np.bool_)).any()
    assert grey_over_white(np.zeros((0, 8, 8), np.float32)).shape == (0,)


def test_the_core_is_inside_and_the_border_of_the_picture_is_an_edge():
    whole = core_of(np.ones((32, 32), np.bool_))
    assert whole[15, 15]
    assert not whole[[0, 15], [15, 0]].any()
