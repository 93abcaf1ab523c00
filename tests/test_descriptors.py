from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fastgan_aug.gan.descriptors import (
    RINGS,
    SIDES,
    SPECTRUM,
    columns_at,
    midlines,
    outlines,
    resampled,
    ring_weights,
    side_descriptors,
    spectrum_descriptors,
)
from fastgan_aug.quality.clinical.counts import left_right_ratio, mean_counts


def heads(count: int, seed: int = 0) -> torch.Tensor:
    """(count, 64, 64) filled ellipses of random place, size and asymmetry, with some texture."""
    random = np.random.default_rng(seed)
    row, column = np.mgrid[:64, :64]
    slices = []
    for _ in range(count):
        middle = 31.5 + random.uniform(-3, 3, 2)
        radius = random.uniform(16, 22, 2)
        away = np.hypot((row - middle[0]) / radius[0], (column - middle[1]) / radius[1])
        inside = 1 / (1 + np.exp((away - 1) * 30))
        loss = 1 - random.uniform(0, 0.4) * (column > middle[1]) * (row > middle[0])
        texture = 1 + 0.05 * random.standard_normal((64, 64))
        counts = inside * loss * texture
        slices.append(np.clip(counts / counts.max(), 0, 1))
    return torch.from_numpy(np.asarray(slices, np.float32))


def test_sides_are_the_judged_endpoints() -> None:
    counts = heads(60)
    found = side_descriptors(counts, midlines(counts)).numpy()
    judged = np.log(left_right_ratio(counts.numpy()))
    assert np.corrcoef(found[:, 1], judged)[0, 1] > 0.995
    assert np.abs(found[:, 1] - judged).max() < 0.02
    assert np.abs(found[:, 0] - mean_counts(counts.numpy())).max() < 0.01


def test_sides_turn_with_the_slice() -> None:
    counts = heads(20)
    found = side_descriptors(counts, midlines(counts))
    turned = side_descriptors(counts.flip(-1), midlines(counts.flip(-1)))
    torch.testing.assert_close(found[:, 0], turned[:, 0])
    torch.testing.assert_close(found[:, 1:], -turned[:, 1:], atol=1e-3, rtol=1e-2)


def test_the_gradient_of_a_side_is_the_difference_it_makes() -> None:
    """The axis is held still, so the change must not move it: counts grow inside one half."""
    counts = heads(1).double().float().requires_grad_()
    axis = midlines(counts)
    balance = side_descriptors(counts, axis)[0, 1]
    balance.backward()
    change = torch.zeros(1, 64, 64)
    change[:, 28:36, 38:44] = 1e-3
    after = side_descriptors(counts.detach() + change, axis)[0, 1]
    assert counts.grad is not None
    assert (after - balance).item() == pytest.approx((counts.grad * change).sum().item(), rel=0.05)


def test_spectrum_is_the_mean_power_of_rings() -> None:
    counts = heads(3)
    power = np.abs(np.fft.fft2(counts.numpy().astype(float))) ** 2
    frequency = np.fft.fftfreq(64)
    radius = np.hypot(frequency[:, None], frequency[None])[:, :33]
    for i, (low, high) in enumerate(itertools.pairwise(RINGS)):
        ring = (radius >= low) & (radius < high)
        expected = np.log(power[:, :, :33][:, ring].mean(1) + 1e-3)
        np.testing.assert_allclose(
            spectrum_descriptors(counts, ring_weights(64))[:, i], expected, atol=1e-3
        )


def test_a_blank_slice_has_descriptors_and_gradients() -> None:
    blank = torch.zeros(2, 64, 64, requires_grad=True)
    sides = side_descriptors(blank, midlines(blank))
    found = torch.cat([sides, spectrum_descriptors(blank, ring_weights(64))], 1)
    assert found.shape == (2, SIDES + SPECTRUM)
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert blank.grad is not None
    assert torch.isfinite(blank.grad).all()


def test_columns_are_taken_from_where_they_were_asked_for() -> None:
    counts = heads(4)
    columns = torch.arange(64.0).expand(4, -1)
    assert torch.equal(columns_at(counts, columns), counts)
    assert torch.equal(columns_at(counts, 63 - columns), counts.flip(-1))
    assert torch.equal(columns_at(counts, columns + 3)[..., :61], counts[..., 3:])
    assert not columns_at(counts, columns + 64).any()


def test_the_midline_follows_a_moved_slice() -> None:
    counts = heads(20)
    columns = torch.arange(64.0).expand(20, -1)
    moved = midlines(columns_at(counts, columns - 1.4))
    torch.testing.assert_close(moved, midlines(counts) + 1.4, atol=0.15, rtol=0)


def test_outlines_are_the_objects_place_and_size() -> None:
    """An ellipse's SD along an axis is half its radius; a hole changes
    nothing, a deep loss that reaches the edge a tenth of a pixel."""
    row, column = np.mgrid[:64, :64]
    radii, middles = [(16, 20), (22, 14)], [(30, 33), (34.5, 31)]
    away = [
        np.hypot((row - m[0]) / r[0], (column - m[1]) / r[1])
        for r, m in zip(radii, middles, strict=True)
    ]
    counts = torch.from_numpy(np.asarray([1.0 * (a < 1) for a in away], np.float32))
    found = outlines(counts)
    pairs = zip(radii, middles, strict=True)
    expected = [[m[0], np.log(r[0] / 2), np.log(r[1] / 2)] for r, m in pairs]
    torch.testing.assert_close(found, torch.tensor(expected).float(), atol=0.06, rtol=0)
    counts[:, 26:36, 26:36] = 0
    counts[:, 20:30, 10:26] *= 0.4
    torch.testing.assert_close(outlines(counts), found, atol=0.1, rtol=0)
    assert torch.isfinite(outlines(torch.zeros(1, 64, 64))).all()


def test_what_is_brought_there_and_back_is_the_same() -> None:
    counts, offset = heads(4), torch.arange(64.0).expand(4, -1) - 31.5
    there = resampled(counts, offset * 1.1 + 33.5, offset * 0.9 + 30.5)
    back = resampled(there, (offset - 2) / 1.1 + 31.5, (offset + 1) / 0.9 + 31.5)
    assert (back - counts)[:, 8:-8, 8:-8].abs().mean() < 0.02
    assert torch.equal(resampled(counts, offset + 31.5, offset + 31.5), counts)
