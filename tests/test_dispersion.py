"""The SD map by region, with its bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest
from heads import heads
from scipy import ndimage

from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.dispersion import REGIONS, region_masks, sd_ratios


def test_ratio_is_that_of_the_maps_and_of_itself_is_one():
    one, other = heads(40, 0), heads(50, 1)
    found = sd_ratios(one, other, draws=20)
    assert [r.region for r in found] == list(REGIONS)
    for ratio, mask in zip(found, region_masks(other).values(), strict=True):
        sds = [side.astype(float).std(axis=0, ddof=1)[mask].mean() for side in (one, other)]
        assert (ratio.synthetic, ratio.real) == pytest.approx(sds, rel=1e-5)
        assert ratio.ratio == pytest.approx(sds[0] / sds[1], rel=1e-5)
    assert [r.ratio for r in sd_ratios(one, one, draws=2)] == pytest.approx([1.0] * 4)


def test_regions_share_the_mask():
    where = region_masks(heads(30, 2))
    parts = np.stack([where[region] for region in REGIONS[1:]]).astype(int)
    assert np.array_equal(parts.sum(axis=0), where["whole"].astype(int))
    rows = [np.flatnonzero(part.any(axis=1)) for part in parts]
    assert rows[0].max() < rows[1].min()
    assert rows[1].max() < rows[2].min()


def test_missing_diversity_is_found_where_it_is_missing():
    real, made = heads(200, 3), heads(200, 4)
    made[:, 16:] = made[:, 16:].mean(axis=0) + 0.5 * (made[:, 16:] - made[:, 16:].mean(axis=0))
    found = {r.region: r for r in sd_ratios(made, real)}
    assert found["front"].low < 1 < found["front"].high
    assert found["back"].high < 0.7


def test_the_interval_covers_one_for_equal_sides_and_knows_patients():
    covered, wide, narrow = 0, [], []
    for seed in range(60):
        owner = np.repeat(np.arange(40), 3)
        real = heads(120, 2 * seed, size=16, patients=owner)
        ratio = sd_ratios(heads(120, 2 * seed + 1, size=16), real, owner, draws=200)[0]
        plain = sd_ratios(heads(120, 2 * seed + 1, size=16), real, draws=200)[0]
        covered += ratio.low <= 1 <= ratio.high
        wide.append(ratio.high - ratio.low)
        narrow.append(plain.high - plain.low)
    assert covered >= 0.91 * 60 - 3 * (60 * 0.91 * 0.09) ** 0.5
    assert np.mean(wide) > 1.15 * np.mean(narrow)


def test_same_seed_same_interval():
    one, other = heads(20, 5), heads(20, 6)
    assert sd_ratios(one, other, seed=3) == sd_ratios(one, other, seed=3)
    assert sd_ratios(one, other, seed=3)[0].low != sd_ratios(one, other, seed=4)[0].low


def test_poor_input():
    few = sd_ratios(heads(1, 0), heads(9, 1))
    assert np.isnan([r.ratio for r in few]).all()
    flat = np.repeat(heads(1, 0), 5, axis=0)
    assert np.isnan(sd_ratios(heads(5, 1), flat)[0].ratio)
    blank = sd_ratios(heads(5, 1), np.zeros((5, 32, 32), np.float32))
    assert np.isnan([r.ratio for r in blank]).all()
    with pytest.raises(DataError, match="shapes"):
        sd_ratios(heads(5, 1), heads(5, 1, size=16))
    with pytest.raises(DataError, match="patients"):
        sd_ratios(heads(5, 1), heads(5, 1), np.zeros(4))


def test_blur_takes_diversity(toy):
    images = toy.images[:40]
    blurred = ndimage.gaussian_filter(images, (0, 2, 2))
    assert sd_ratios(blurred, images, draws=2)[0].ratio < 0.9
