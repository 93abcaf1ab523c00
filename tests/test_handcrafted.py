"""Laws of the features that nobody learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downstream.classifiers.handcrafted import BLOCKS, N_FEATURES, handcrafted

SIDES = slice(BLOCKS**2, BLOCKS**2 + BLOCKS**2 // 2)


@settings(deadline=None, max_examples=20)
@given(st.integers(16, 70), st.integers(0, 3))
def test_they_are_finite_for_any_size_and_number(size: int, n: int) -> None:
    images = np.random.default_rng(size).random((n, size, size), np.float32)
    found = handcrafted(images)
    assert found.shape == (n, N_FEATURES)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("size", [16, 33, 64])
def test_sides_are_compared_and_a_mirrored_slice_differs_alike(size: int) -> None:
    images = np.random.default_rng(0).random((5, size, size), np.float32)
    even = (images + images[:, :, ::-1]) / 2
    assert handcrafted(even)[:, SIDES] == pytest.approx(0, abs=1e-6)
    assert handcrafted(images)[:, SIDES].max() > 0.01
    mirrored = handcrafted(np.ascontiguousarray(images[:, :, ::-1]))
    assert mirrored[:, SIDES] == pytest.approx(handcrafted(images)[:, SIDES], abs=1e-6)


def test_a_constant_slice_is_described_as_one() -> None:
    found = handcrafted(np.full((1, 64, 64), 0.25, np.float32))[0]
    blocks, rest = found[: BLOCKS**2], found[BLOCKS**2 :]
    assert blocks == pytest.approx(0.25)
    assert found[-6:] == pytest.approx(0.25)
    spread = rest[BLOCKS**2 // 2 : BLOCKS**2 // 2 + (BLOCKS // 2) ** 2]
    assert spread == pytest.approx(0, abs=1e-6)


def test_a_slice_is_described_whatever_stands_beside_it() -> None:
    images = np.random.default_rng(0).random((600, 16, 16), np.float32)
    assert np.array_equal(handcrafted(images)[550:], handcrafted(images[550:]))
