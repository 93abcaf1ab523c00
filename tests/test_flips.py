from __future__ import annotations

import numpy as np
import pytest
from test_validate import columns, make

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.validation.flips import asymmetry_maps, flipped_slices


def test_nobody_is_flipped(toy: Dataset, small_phantom: Dataset):
    # The toy's shapes are symmetric and lie between pixels.
    for dataset in (toy, small_phantom, make()):
        assert flipped_slices(dataset).tolist() == []


@pytest.mark.parametrize("row", [0, 1, 3, 6])
def test_one_flipped_slice_of_a_scan_is_found(row: int):
    c = columns()
    c["images"][row] = c["images"][row][:, ::-1]
    assert flipped_slices(make(**c)).tolist() == [row]


def test_most_flipped_slices_of_the_phantom_are_found_and_no_other(small_phantom: Dataset):
    random, hits, tried = np.random.default_rng(0), 0, 0
    scans = small_phantom.column("scan_id").astype(str)
    for scan in np.unique(scans):
        rows = np.flatnonzero(scans == scan)
        row = int(random.choice(rows))
        images = small_phantom.images.copy()
        images[row] = images[row][:, ::-1]
        part = small_phantom.take(rows)
        changed = dict(zip(rows.tolist(), images[rows], strict=True))
        part.__dict__["images"] = np.stack([changed[r] for r in rows.tolist()])
        found = rows[flipped_slices(part)].tolist()
        assert found in ([], [row])
        hits, tried = hits + len(found), tried + (len(rows) >= 3)
    assert hits >= 0.3 * tried


def test_the_order_of_rows_does_not_matter():
    c = columns()
    c["images"][5] = c["images"][5][:, ::-1]
    dataset = make(**c)
    order = np.random.default_rng(1).permutation(len(dataset))
    assert order[flipped_slices(dataset.take(order))].tolist() == [5]


def test_a_mirror_changes_the_sign_and_a_shift_nothing():
    images = make().images[:8]
    maps = asymmetry_maps(images)
    assert (maps * asymmetry_maps(images[:, :, ::-1])).sum(axis=1) == pytest.approx(-1, abs=0.02)
    assert (maps * asymmetry_maps(np.roll(images, 2, axis=2))).sum(axis=1) == pytest.approx(
        1, abs=0.02
    )
    assert np.linalg.norm(maps, axis=1) == pytest.approx(1)
    y, x = np.mgrid[:32, :32] - 15.5
    disc = (np.hypot(x, y) < 9).astype(np.float32)
    assert np.abs(asymmetry_maps(np.stack([disc, disc * 0]))).max() == 0


def test_slices_at_one_place_and_short_scans_are_left_out():
    c = columns()
    c["z"] = [0.0, 1.0, 1.0, 2.0] * 12
    c["images"][0] = c["images"][0][:, ::-1]
    assert flipped_slices(make(**c)).tolist() == []
