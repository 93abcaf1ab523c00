from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_aug.data.importers.volumes import Volume, axes, check_voxels, radiological
from fastgan_aug.errors import DataError

AXES = np.asarray([[0, 0, 1], [0, 1, 0], [1, 0, 0]], float)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_turning_back_what_was_turned_gives_it_again(
    order: tuple[int, ...], signs: tuple[int, ...]
):
    volume = np.arange(24).reshape(2, 3, 4)
    turned = volume[:: signs[0], :: signs[1], :: signs[2]].transpose(order)
    steps = (AXES * np.asarray(signs)[:, None] * 3.0)[list(order)]
    np.testing.assert_array_equal(radiological(turned, steps), volume)


@given(st.floats(-29, 29))
def test_a_small_tilt_changes_nothing(degrees: float):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    tilted = AXES @ np.asarray([[1, 0, 0], [0, c, -s], [0, s, c]])
    assert axes(tilted) == ((0, 1, 2), (1, 1, 1))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e9])
def test_a_step_must_be_usable(value: float):
    steps = AXES.copy()
    steps[1, 1] = value
    with pytest.raises(DataError, match="spacing"):
        axes(steps)


def test_a_volume_turned_too_far_is_refused():
    c, s = np.cos(0.6), np.sin(0.6)
    with pytest.raises(DataError, match="34 degrees"):
        axes(AXES @ np.asarray([[c, -s, 0], [s, c, 0], [0, 0, 1]]))


@pytest.mark.parametrize(
    ("z", "adjacent"),
    [
        ([0, 3, 6, 9], [[1], [0, 2], [1, 3], [2]]),
        ([0, 3, 9, 12], [[1], [0], [3], [2]]),
        ([0, 12, 24], [[], [], []]),
        ([0], [[]]),
    ],
)
def test_neighbours_are_directly_beside(z: list[float], adjacent: list[list[int]]):
    volume = Volume(np.zeros((len(z), 2, 2)), np.asarray(z, float), (1, 1))
    assert [volume.adjacent(i) for i in range(len(z))] == adjacent


def test_sizes_are_bounded():
    check_voxels((512, 512, 512), 4)
    for shape, size in (
        ((512, 512, 513), 1),
        ((512, 512, 512), 8),
        ((0, 1, 1), 1),
        ((-1, 1, 1), 1),
    ):
        with pytest.raises(DataError):
            check_voxels(shape, size)
