from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from downstream.arms.joining import joined_sides
from downstream.material import Material
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.config import load_config
from fastgan_aug.data.augment import AugmentConfig, joinable_cells
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.job import training_data
from fastgan_aug.errors import ConfigError, DataError, UnknownFactorValue
from fastgan_aug.gan.appearance import LINEAR
from fastgan_aug.gan.appearance_fit import fit_appearance
from fastgan_aug.gan.descriptors import midlines, side_descriptors
from fastgan_aug.gan.joined_sides import joined, joined_slices
from tests.test_appearance import MEAN, head_data
from tests.test_descriptors import heads

RULE = AugmentConfig(shift=0, sides={"pattern": {"bilateral": "unilateral"}})
WHOLE, FRONT, BACK = 1, 2, -1  # balances of ``side_descriptors``


def one_sided(count: int, band: slice, seed: int) -> torch.Tensor:
    """Symmetric heads with a deep loss at higher columns of some rows."""
    counts = heads(count, seed)
    counts = (counts + counts.flip(-1)) / 2
    loss = torch.ones(64, 64)
    loss[band, 32:] = 0.4
    counts = counts * loss
    return counts / counts.amax((1, 2), keepdim=True)


def balances(counts: torch.Tensor) -> torch.Tensor:
    return side_descriptors(counts, midlines(counts))


def test_both_slices_give_the_side_that_is_affected() -> None:
    front, back = one_sided(20, slice(0, 31), 1), one_sided(20, slice(33, 64), 2)
    for first in (front, front.flip(-1)):
        for second in (back, back.flip(-1)):
            both = balances(joined(first, second))
            # The first's loss stands at lower columns, the second's at higher ones.
            assert both[:, FRONT].min() > 0.2
            assert both[:, BACK].max() < -0.2
            assert both[:, WHOLE].abs().max() < balances(front)[:, WHOLE].abs().min()


def test_a_slice_joined_with_itself_is_symmetric() -> None:
    slices = one_sided(20, slice(10, 40), 3)
    whole = joined(slices, slices)
    assert balances(whole)[:, 1:].abs().max() < 0.05
    assert whole.amax((1, 2)) == pytest.approx(torch.ones(20))
    assert whole.min() >= 0


def test_the_second_is_brought_to_the_place_and_size_of_the_first() -> None:
    row, column = torch.arange(64.0)[:, None], torch.arange(64.0)[None]

    def disc(middle: tuple[float, float], radius: float) -> torch.Tensor:
        away = torch.hypot(row - middle[0], column - middle[1])
        affected = 1 - 0.001 * (column < middle[1])
        return (torch.sigmoid((radius - away) * 2) * affected)[None]

    first, second = disc((30, 33), 20), disc((34, 28), 15)
    assert (joined(first, second) - first).abs().mean() < 0.01


def few(rare: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """20 slices of cell 0, 12 of cell 1 (one-sided), some of cell 2."""
    counts = np.asarray([20, 12, rare])
    return one_sided(int(counts.sum()), slice(10, 40), 4).numpy(), np.repeat(np.arange(3), counts)


def test_a_cell_is_brought_up_to_the_number_of_its_partner() -> None:
    images, cells = few(3)
    more, of = joined_slices(images, cells, {2: 1}, np.random.default_rng(0))
    assert of.tolist() == [2] * 9
    assert more.shape == (9, 64, 64)
    assert more.dtype == np.float32
    assert len(np.unique(more.reshape(9, -1), axis=0)) == 9
    again, _ = joined_slices(images, cells, {2: 1}, np.random.default_rng(0))
    assert np.array_equal(more, again)


@pytest.mark.parametrize(("rare", "partners"), [(0, {2: 1}), (12, {2: 1}), (20, {2: 1}), (3, {})])
def test_nothing_is_made_of_an_unseen_cell_or_beyond_the_partner(
    rare: int, partners: dict[int, int]
) -> None:
    more, of = joined_slices(*few(rare), partners, np.random.default_rng(0))
    assert more.shape == (0, 64, 64)
    assert of.shape == (0,)


def test_one_slice_cannot_lend_two_sides() -> None:
    images, cells = few(1)
    kept = [*range(10), 20, 32]
    more, _ = joined_slices(images[kept], cells[kept], {2: 1}, np.random.default_rng(0))
    assert not len(more)


def test_the_lender_differs_in_the_named_value_alone() -> None:
    space = ConditionSpace.of({
        "level": ["BG", "COR"], "pattern": ["normal", "unilateral", "bilateral"]
    })  # fmt: skip
    assert joinable_cells(space, RULE) == {2: 1, 5: 4}
    assert joinable_cells(space, AugmentConfig()) == {}
    without = ConditionSpace.of({"pattern": ["normal", "bilateral"]})
    assert joinable_cells(without, RULE) == {}
    with pytest.raises(ConfigError, match="no factor 'shape'"):
        joinable_cells(space, AugmentConfig(sides={"shape": {"a": "b"}}))
    with pytest.raises(UnknownFactorValue, match=r"sides rule names .*'two'"):
        joinable_cells(space, AugmentConfig(sides={"pattern": {"two": "one"}}))


def test_the_presets_know_the_rule() -> None:
    assert load_config("demo").augment.sides == RULE.sides
    assert not load_config("werner2022-a").augment.sides


def test_the_fit_sees_joined_slices_last(small_phantom: Dataset) -> None:
    plain = training_data(small_phantom, AugmentConfig(shift=0))
    data = training_data(small_phantom, RULE)
    count, space = len(small_phantom), small_phantom.meta.space
    rare = [str(space.cells[k]) for k in data.cell[count:]]
    assert rare == ["BG/bilateral", "COR/bilateral"]  # 3 where 4 are unilateral; none in CER
    assert torch.equal(data.images[:count], plain.images)
    assert data.rows.tolist() == [*plain.rows, count, count + 1]
    assert [len(n) for n in data.neighbours[count:]] == [0, 0]
    assert len(data.neighbours) == len(data.images) == len(data.cell)
    assert data.images.amax((1, 2, 3))[count:] == pytest.approx(torch.ones(2))


def material(dataset: Dataset, rules: AugmentConfig) -> Material:
    return Material.of(dataset, "pattern", rules, lambda *_: pytest.fail("no generator is asked"))


def test_the_arm_joins_real_slices(small_phantom: Dataset) -> None:
    real = material(small_phantom, RULE)
    fit = joined_sides(real, 1)
    made = fit.synthetic
    assert not made[: len(real.labels)].any()
    assert made.sum() == 2
    assert {real.classes[k] for k in fit.labels[made]} == {"bilateral"}
    assert fit.cells is not None
    assert {str(real.space.cells[k]) for k in fit.cells[made]} == {"BG/bilateral", "COR/bilateral"}
    assert fit.sampling is not None
    shares = np.bincount(fit.labels, fit.sampling)
    assert shares == pytest.approx(np.full(3, shares[0]))
    assert fit.sampling[made].sum() == pytest.approx(shares[0] / 2)
    other = joined_sides(real, 2)
    assert not np.array_equal(other.images[other.synthetic], fit.images[made])


def test_the_arm_without_a_rule_is_refused(small_phantom: Dataset) -> None:
    with pytest.raises(DataError, match=r"no slice can be joined.*augment\.sides"):
        joined_sides(material(small_phantom, AugmentConfig(shift=0)), 0)


def test_a_cell_with_few_slices_is_near_their_mean() -> None:
    data = head_data((60, 50, 40, 4))
    dimmed = replace(data, images=data.images.clone())
    mine = torch.from_numpy(data.cell == 3)
    dimmed.images[mine] = ((dimmed.images[mine] + 1) * (1 - 0.5 * (torch.arange(64) > 40))) - 1
    model = fit_appearance(dimmed)
    own = model.describe(dimmed.images[mine]).mean(0)[LINEAR + MEAN]
    without = fit_appearance(replace(dimmed, rows=dimmed.rows[~mine.numpy()]))
    guessed, found = without.cell_mean[3, LINEAR + MEAN], model.cell_mean[3, LINEAR + MEAN]
    assert (own - guessed).abs() > 0.1
    assert (found - own).abs() < 0.5 * (guessed - own).abs()
