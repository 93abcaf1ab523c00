from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.augment import (
    AugmentConfig,
    AugmentParameters,
    apply,
    draw,
    flippable_cells,
)
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import ConfigError, UnknownFactorValue

OFF = AugmentConfig(neighbour_mean=False, shift=0)
PAPER = AugmentConfig(flip={"shape": ["disc", "ring"]})


@pytest.fixture(scope="module")
def images(toy: Dataset) -> torch.Tensor:
    return torch.from_numpy(toy.images)[:, None] * 2 - 1


def some(
    toy: Dataset, config: AugmentConfig, seed: int = 0
) -> tuple[NDArray[np.int64], AugmentParameters]:
    random = np.random.default_rng(seed)
    rows = random.choice(np.flatnonzero(toy.labelled), 40)
    flippable = flippable_cells(toy.meta.space, config)[toy.cell_index[rows]]
    return rows, draw(rows, toy.neighbours(), flippable, config, random)


def identity(rows: NDArray[np.int64]) -> AugmentParameters:
    n = len(rows)
    return AugmentParameters(
        rows, np.ones(n, np.float32), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    )


def test_strength_zero_changes_nothing(toy: Dataset, images: torch.Tensor):
    rows, parameters = some(toy, OFF)
    assert torch.equal(apply(images, rows, parameters), images[rows])


def test_a_batch_equals_one_by_one(toy: Dataset, images: torch.Tensor):
    rows, p = some(toy, PAPER)
    batch = apply(images, rows, p)
    for i in range(len(rows)):
        s = slice(i, i + 1)
        alone = AugmentParameters(p.neighbour[s], p.weight[s], p.shift[s], p.flip[s])
        assert torch.equal(apply(images, rows[s], alone), batch[s])


def test_the_data_are_untouched_and_the_same_seed_draws_the_same(
    toy: Dataset, images: torch.Tensor
):
    before, digest = images.clone(), toy.digest
    first, second = (apply(images, *some(toy, PAPER, 7)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert toy.digest == digest


def test_results_stay_in_range(toy: Dataset, images: torch.Tensor):
    out = apply(images, *some(toy, PAPER))
    assert out.dtype == torch.float32
    assert out.shape == (40, 1, 32, 32)
    assert out.min() >= -1
    assert out.max() <= 1


def test_equation_6_is_a_weighted_mean_and_w_1_is_identity(images: torch.Tensor):
    rows = np.arange(3)
    p = identity(rows)
    other = rows + 1
    for w, expected in (
        (1.0, images[rows]),
        (0.0, images[other]),
        (0.25, 0.25 * images[rows] + 0.75 * images[other]),
    ):
        mixed = AugmentParameters(other, np.full(3, w, np.float32), p.shift, p.flip)
        torch.testing.assert_close(apply(images, rows, mixed), expected, rtol=0, atol=1e-6)


def test_a_neighbour_is_of_the_same_scan_and_a_lonely_slice_mixes_with_itself(toy: Dataset):
    neighbours = toy.neighbours()
    rows, p = some(toy, PAPER)
    scans = toy.column("scan_id")
    assert (scans[rows] == scans[p.neighbour]).all()
    for row, chosen in zip(rows, p.neighbour, strict=True):
        assert chosen in neighbours[row] or (chosen == row and not len(neighbours[row]))


def test_a_positive_shift_goes_to_the_back_and_fills_with_zero_counts(images: torch.Tensor):
    rows = np.arange(2)
    p = identity(rows)
    moved = apply(images, rows, AugmentParameters(rows, p.weight, np.asarray([2, -1]), p.flip))
    assert torch.equal(moved[0, :, 2:], images[0, :, :-2])
    assert (moved[0, :, :2] == -1).all()
    assert torch.equal(moved[1, :, :-1], images[1, :, 1:])
    assert (moved[1, :, -1:] == -1).all()


def test_shifts_fill_their_range(toy: Dataset):
    shifts = np.concatenate([some(toy, AugmentConfig(shift=2), s)[1].shift for s in range(5)])
    assert set(shifts.tolist()) == {-2, -1, 0, 1, 2}


def test_flips_follow_the_label_rule(toy: Dataset, images: torch.Tensor):
    rows, p = some(toy, PAPER)
    shapes = toy.column("shape")[rows]
    assert set(shapes[p.flip]) == {"disc", "ring"}
    assert not some(toy, AugmentConfig())[1].flip.any()
    flip = AugmentParameters(rows, np.ones(40, np.float32), np.zeros(40, np.int64), p.flip)
    out = apply(images, rows, flip)
    assert torch.equal(out[p.flip], images[rows][p.flip].flip(-1))
    assert torch.equal(out[~p.flip], images[rows][~p.flip])


def test_every_factor_of_the_rule_must_agree():
    space = ConditionSpace.of({"a": ["x", "y"], "b": ["u", "v"]})
    rule = AugmentConfig(flip={"a": ["x"], "b": ["v"]})
    assert flippable_cells(space, rule).tolist() == [False, True, False, False]
    with pytest.raises(ConfigError):
        flippable_cells(space, AugmentConfig(flip={"c": ["x"]}))


def test_a_rule_of_unknown_values_is_refused_and_of_some_is_logged(
    caplog: pytest.LogCaptureFixture,
):
    space = ConditionSpace.of({"a": ["x", "y"]})
    with pytest.raises(UnknownFactorValue, match=r"'Normal'.*Allowed: x, y"):
        flippable_cells(space, AugmentConfig(flip={"a": ["Normal"]}))
    assert flippable_cells(space, AugmentConfig(flip={"a": ["x"]})).tolist() == [True, False]
    assert not caplog.records
    assert flippable_cells(space, AugmentConfig(flip={"a": ["x", "z"]})).tolist() == [True, False]
    assert "['z'] of a" in caplog.text
    assert not flippable_cells(space, AugmentConfig(flip={"a": []})).any()


def test_a_negative_shift_setting_is_refused():
    with pytest.raises(ValueError, match="allowed"):
        AugmentConfig(shift=-1)
