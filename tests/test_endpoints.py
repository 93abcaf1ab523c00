"""Laws of the endpoints of single slices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from heads import heads
from scipy import ndimage

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.counts import left_right_ratio, mean_counts
from fastgan_aug.quality.clinical.endpoints import (
    SENSITIVITY,
    loss_below,
    measure_dataset,
    measure_endpoints,
    measure_synthetic,
)


def planted(images: np.ndarray, loss: float, area: float = 0.5) -> np.ndarray:
    """``loss`` of the counts gone in a disc on the patient's left."""
    size = images.shape[-1]
    y, x = np.mgrid[:size, :size]
    middle = (size - 1) / 2
    disc = np.hypot(x - middle - 0.16 * size, y - middle) < area * 0.25 * size
    return (images * (1 - loss * disc)).astype(np.float32)


def test_endpoints_are_the_shared_definitions():
    images = heads(40, 0)
    found = measure_endpoints(images)
    assert found.mc == pytest.approx(mean_counts(images), rel=1e-6)
    assert found.log_lr == pytest.approx(np.log(left_right_ratio(images)), rel=1e-6, abs=1e-9)
    assert np.array_equal(found.abs_log_lr, np.abs(found.log_lr))
    assert np.array_equal(found.take(np.arange(3)).severity, found.severity[:3])


def test_a_mirrored_slice_differs_in_the_sign_of_log_lr_alone():
    images = heads(30, 1)
    one, other = measure_endpoints(images), measure_endpoints(images[..., ::-1])
    assert other.log_lr == pytest.approx(-one.log_lr, abs=1e-6)
    for name in ("mc", "abs_log_lr", "sd", "severity", "extent"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=2e-3)


@pytest.mark.parametrize("size", [32, 64])
def test_a_deeper_defect_is_severer_and_a_wider_one_more_extended(size: int):
    healthy = heads(20, 2, size=size, lesion=0)
    sides = [measure_endpoints(planted(healthy, loss)) for loss in (0.0, 0.3, 0.6)]
    for shallow, deep in itertools.pairwise(sides):
        assert (deep.severity > shallow.severity).all()
        assert (deep.log_lr < shallow.log_lr).all()
    wide = measure_endpoints(planted(healthy, 0.6, 0.7))
    assert wide.extent.mean() > sides[2].extent.mean() > sides[0].extent.mean() + 0.05
    assert sides[0].severity.mean() < 0.2


@pytest.mark.parametrize("threshold", SENSITIVITY)
def test_planted_losses_are_measured_in_full(threshold: float):
    """Half a head 5 to 20 % darker: log LR moves by log(1 - loss), within a tenth of it."""
    healthy = heads(60, 3, size=64, lesion=0)
    before = measure_endpoints(healthy, threshold).log_lr
    left = np.clip(np.arange(64) - 31.5 + 0.5, 0, 1)  # shared where the axis cuts a pixel
    for loss in (0.05, 0.1, 0.2):
        after = measure_endpoints((healthy * (1 - loss * left)).astype(np.float32), threshold)
        moved = (after.log_lr - before).mean()
        assert moved == pytest.approx(np.log(1 - loss), rel=0.1)


def test_a_loss_on_both_sides_shows_below_the_normal_mean_alone():
    healthy = heads(80, 4, lesion=0)
    normal = healthy.mean(axis=0, dtype=np.float64)
    one_side = planted(healthy, 0.5)
    both = planted(one_side[..., ::-1], 0.5)
    deep, wide = loss_below(both, normal)
    own_deep, own_wide = loss_below(healthy, normal)
    assert deep.mean() > own_deep.mean() + 0.15
    assert wide.mean() > own_wide.mean() + 0.1
    assert measure_endpoints(both).extent.mean() < measure_endpoints(one_side).extent.mean() / 2
    with pytest.raises(DataError, match="expected slice"):
        loss_below(healthy, normal[:-1])


def test_scale_does_not_matter_but_for_the_counts():
    images = heads(10, 5)
    one, half = measure_endpoints(images), measure_endpoints(images * np.float32(0.5))
    assert half.mc == pytest.approx(one.mc / 2, rel=1e-5)
    for name in ("log_lr", "severity", "extent"):
        assert getattr(half, name) == pytest.approx(getattr(one, name), rel=1e-4, abs=1e-6)


def test_chunks_do_not_show():
    images = heads(700, 6, size=16)
    whole = measure_endpoints(images)
    assert whole.severity[600:] == pytest.approx(measure_endpoints(images[600:]).severity)


def test_blank_slices_are_nan_and_no_slices_give_nothing():
    blank = measure_endpoints(np.zeros((2, 16, 16), np.float32))
    for name in ("mc", "log_lr", "abs_log_lr", "sd", "severity", "extent"):
        assert np.isnan(getattr(blank, name)).all()
    assert len(measure_endpoints(np.zeros((0, 16, 16), np.float32)).mc) == 0
    assert np.isfinite(measure_endpoints(np.ones((1, 16, 16), np.float32)).mc).all()


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="shape"):
        measure_endpoints(np.zeros((16, 16), np.float32))
    with pytest.raises(DataError, match="threshold"):
        measure_endpoints(np.zeros((1, 16, 16), np.float32), 1.0)
    with pytest.raises(DataError, match="2 cells"):
        measure_synthetic(np.zeros((1, 16, 16), np.float32), ["a", "b"])


def test_any_data_set_is_measured_slice_by_slice(toy: Dataset):
    found = measure_dataset(toy)
    assert len(found) == int(toy.labelled.sum())
    assert set(found.cells) <= set(map(str, toy.meta.space.cells))
    assert set(found.patients) <= set(toy.patients)
    made = measure_synthetic(toy.images[:5], ["disc"] * 5)
    assert len(set(made.patients)) == 5
    assert not set(made.patients) & set(found.patients)


def test_temporal_poles_do_not_make_asymmetry(small_phantom: Dataset):
    """A part beside the main one that is bright enough on one side only."""
    images = heads(20, 7, size=64, lesion=0)
    y, x = np.mgrid[:64, :64]
    for side, height in ((-1, 0.34), (1, 0.26)):  # one just above the threshold, one below
        spot = np.hypot(x - 31.5 - side * 11, y - 5) < 4
        images = np.maximum(images, (height * spot).astype(np.float32))
    smooth = ndimage.gaussian_filter(images, (0, 0.5, 0.5))
    assert np.abs(measure_endpoints(smooth).log_lr).mean() < 0.06
    cells = np.asarray(list(map(str, small_phantom.cells)))
    normal = small_phantom.images[cells == "CER/normal"]
    assert np.abs(measure_endpoints(normal).log_lr).max() < 0.35
