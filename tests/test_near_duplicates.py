from __future__ import annotations

import time

import numpy as np
import pytest

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.near_duplicates import MOST_PAIRS, NEAR, Copy, distances, find_copies


def shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Moved, with zeros where nothing is known."""
    size = images.shape[-1]
    out = np.zeros_like(images)
    rows, columns = (
        slice(max(down, 0), size + min(down, 0)),
        slice(max(right, 0), size + min(right, 0)),
    )
    from_rows, from_columns = (
        slice(max(-down, 0), size - max(down, 0)),
        slice(max(-right, 0), size - max(right, 0)),
    )
    out[:, rows, columns] = images[:, from_rows, from_columns]
    return out


def eight_bits(images: np.ndarray) -> np.ndarray:
    return (np.round(images * 255) / 255).astype(np.float32)


CHANGES = {
    "equal": lambda x: x,
    "half": lambda x: x * np.float32(0.5),
    "eight bits": eight_bits,
    "one pixel": lambda x: eight_bits(shifted(x, 1, -1)),
    "two pixels": lambda x: eight_bits(shifted(x, -2, 2)),
    "half its range": lambda x: eight_bits(x * np.float32(0.5)),
    "mirrored": lambda x: x[:, :, ::-1],
    "all of it": lambda x: eight_bits(shifted(x * np.float32(0.5), 0, 1))[:, :, ::-1],
}


@pytest.fixture(scope="module", params=["toy", "small_phantom"])
def slices(request: pytest.FixtureRequest) -> np.ndarray:
    dataset: Dataset = request.getfixturevalue(request.param)
    return dataset.images[dataset.labelled]


def test_slices_of_a_data_set_are_no_copies(slices: np.ndarray):
    assert find_copies(slices, np.arange(len(slices))) == []


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found_and_nothing_else(slices: np.ndarray, change: str):
    n, rows = len(slices), np.arange(0, len(slices), 3)
    planted = np.concatenate([slices, np.ascontiguousarray(CHANGES[change](slices[rows]))])
    found = find_copies(planted, np.arange(len(planted)))
    assert {(c.first, c.second) for c in found} == {(int(r), n + i) for i, r in enumerate(rows)}
    assert max(c.distance for c in found) < NEAR / 2
    if change in ("mirrored", "all of it"):
        assert all(c.mirrored for c in found)
    else:
        assert not any(c.mirrored for c in found)
        assert all(c.exact == (change == "equal") for c in found)


def test_within_a_series_only_exact_and_mirrored_copies_count(small_phantom: Dataset):
    image = small_phantom.images[small_phantom.labelled][0]
    alike = shifted(image[None], 1, 0)[0]
    images = np.stack([image, alike, image[:, ::-1], image])
    found = find_copies(images, np.zeros(4, np.int64))
    assert Copy(0, 3, 0.0, exact=True) in found
    assert {(c.first, c.second) for c in found if c.mirrored} == {(0, 2), (1, 2)}
    assert len(found) == 3
    assert len(find_copies(images, np.arange(4))) == 4


def test_the_distance_is_symmetric_and_zero_for_itself(slices: np.ndarray):
    one, other = slices[:6], slices[6:12]
    assert distances(one, one * 2) == pytest.approx(0, abs=1e-3)
    assert distances(one, other) == pytest.approx(distances(other, one), rel=1e-6)
    assert (distances(one, other) > NEAR).all()


def test_blank_slices_are_no_copies_and_few_slices_no_trouble():
    assert find_copies(np.zeros((5, 16, 16), np.float32), np.arange(5)) == []
    assert find_copies(np.zeros((0, 16, 16), np.float32), np.arange(0)) == []
    assert find_copies(np.ones((2, 4, 4), np.float32), np.arange(2)) == [
        Copy(0, 1, 0.0, exact=True)
    ]


def test_very_many_copies_take_bounded_time(slices: np.ndarray):
    scales = np.linspace(0.5, 1, 500, dtype=np.float32)[:, None, None]
    start = time.monotonic()
    assert len(find_copies(slices[:1] * scales, np.arange(500))) == MOST_PAIRS
    assert time.monotonic() - start < 20
