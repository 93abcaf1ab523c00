from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from downstream.arms.moving import moved_defects
from downstream.material import Material
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.config import load_config
from fastgan_aug.data.augment import AugmentConfig, SideCells, SideRule, affected_cells
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.job import training_data
from fastgan_aug.errors import ConfigError, DataError, UnknownFactorValue
from fastgan_aug.gan.appearance import EXAMPLES, LINEAR, SMOOTHED, Appearance
from fastgan_aug.gan.appearance_fit import fit_appearance
from fastgan_aug.gan.descriptors import midlines, side_descriptors
from fastgan_aug.gan.moved_defects import Lenders, moved_slices
from tests.test_appearance import MEAN, head_data
from tests.test_descriptors import heads

PATTERNS = SideRule(none="normal", one="unilateral", both="bilateral")
RULE = AugmentConfig(shift=0, sides={"pattern": PATTERNS})
GROUP = SideCells(none=0, one=1, both=2)
WHOLE, FRONT, BACK = 1, 2, -1  # balances of ``side_descriptors``
FRONT_ROWS, BACK_ROWS = slice(0, 31), slice(33, 64)


def healthy(count: int, seed: int) -> torch.Tensor:
    """Symmetric heads."""
    counts = heads(count, seed)
    counts = (counts + counts.flip(-1)) / 2
    return counts / counts.amax((1, 2), keepdim=True)


def one_sided(count: int, band: slice, seed: int) -> torch.Tensor:
    """Symmetric heads with a deep loss at higher columns of some rows."""
    counts = healthy(count, seed)
    loss = torch.ones(64, 64)
    loss[band, 32:] = 0.4
    counts = counts * loss
    return counts / counts.amax((1, 2), keepdim=True)


def balances(counts: torch.Tensor) -> torch.Tensor:
    return side_descriptors(counts, midlines(counts))


def test_the_healthy_side_tells_the_head_and_the_defect() -> None:
    whole = healthy(20, 1)
    for affected in (one_sided(20, FRONT_ROWS, 1), one_sided(20, FRONT_ROWS, 1).flip(-1)):
        lenders = Lenders.of(whole[:0], affected)
        assert (lenders.heads - whole).abs().mean() < 0.01
        assert balances(lenders.heads)[:, 1:].abs().max() < 0.05
        # At lower columns, whichever side it was found on.
        assert lenders.defects[:, 25, 22:27].mean() == pytest.approx(0.4, abs=0.1)
        assert lenders.defects[:, 45, 22:27].mean() == pytest.approx(1.0, abs=0.05)
        assert lenders.defects[:, :, 40:].sub(1).abs().mean() < 0.01


@pytest.mark.parametrize("mirrored", [False, True])
def test_one_defect_stays_on_its_side_of_another_head(mirrored: bool) -> None:
    affected = one_sided(30, FRONT_ROWS, 2)
    affected = affected.flip(-1) if mirrored else affected
    made = Lenders.of(healthy(10, 3), affected).slices(40, 1, np.random.default_rng(0))
    was, now = balances(affected)[:, FRONT], balances(made)[:, FRONT]
    assert float(now.mean()) == pytest.approx(float(was.mean()), rel=0.15)
    assert set(now.sign().tolist()) == set(was.sign().tolist())
    assert balances(made)[:, BACK].abs().mean() < 0.05
    assert made.amax((1, 2)) == pytest.approx(torch.ones(40))
    assert made.min() >= 0
    apart = (made[:, None] - affected[None]).abs().mean((2, 3))
    assert len(torch.unique(made.flatten(1), dim=0)) > 30
    assert apart.min() > 0


def test_two_defects_are_of_two_slices_and_on_both_sides() -> None:
    affected = torch.cat([one_sided(1, FRONT_ROWS, 4), one_sided(1, BACK_ROWS, 5).flip(-1)])
    made = Lenders.of(healthy(10, 6), affected).slices(40, 2, np.random.default_rng(0))
    front, back = balances(made)[:, FRONT], balances(made)[:, BACK]
    # One is at the front and one at the back, on different sides, either way round.
    assert (front.sign() == -back.sign()).all()
    assert front.abs().min() > 0.2
    assert set(front.sign().tolist()) == {-1.0, 1.0}
    assert balances(made)[:, WHOLE].abs().max() < 0.15


def test_a_defect_is_brought_to_the_place_and_size_of_the_head() -> None:
    row, column = torch.arange(64.0)[:, None], torch.arange(64.0)[None]

    def disc(middle: tuple[float, float], radius: float) -> torch.Tensor:
        away = torch.hypot(row - middle[0], column - middle[1])
        return torch.sigmoid((radius - away) * 2)[None]

    def quarter(middle: tuple[float, float]) -> torch.Tensor:
        return 1 - 0.5 * ((row < middle[0]) & (column > middle[1]))

    large, small = disc((30, 33), 20), disc((34, 28), 15)
    lenders = Lenders.of(small, large * quarter((30, 33)))
    heads_of = lenders.slices(30, 1, np.random.default_rng(0))
    wanted = small * quarter((34, 28))
    assert (heads_of - wanted).abs().mean((1, 2)).min() < 0.01


def few(rare: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """20 healthy slices, 12 with one affected side, some with two."""
    counts = np.asarray([20, 12, rare])
    images = torch.cat([healthy(20, 3), one_sided(12 + rare, slice(10, 40), 4)])
    return images.numpy(), np.repeat(np.arange(3), counts)


def test_affected_cells_are_brought_up_to_the_number_of_the_healthy_one() -> None:
    images, cells = few(3)
    more, of = moved_slices(images, cells, [GROUP], np.random.default_rng(0))
    assert of.tolist() == [1] * 8 + [2] * 17
    assert more.shape == (25, 64, 64)
    assert more.dtype == np.float32
    again, _ = moved_slices(images, cells, [GROUP], np.random.default_rng(0))
    assert np.array_equal(more, again)


@pytest.mark.parametrize(("rare", "affected"), [(0, {1}), (20, {1}), (25, {1}), (1, {1, 2})])
def test_nothing_is_made_of_an_unseen_cell_or_beyond_the_healthy_one(
    rare: int, affected: set[int]
) -> None:
    _, of = moved_slices(*few(rare), [GROUP], np.random.default_rng(0))
    assert set(of.tolist()) == affected
    none, of = moved_slices(*few(rare), [], np.random.default_rng(0))
    assert none.shape == (0, 64, 64)
    assert of.shape == (0,)


def test_one_slice_cannot_lend_two_defects() -> None:
    images, cells = few(1)
    kept = [*range(20), 20, 32]
    more, _ = moved_slices(images[kept], cells[kept], [GROUP], np.random.default_rng(0))
    assert not len(more)


def test_cells_differ_in_the_named_value_alone() -> None:
    space = ConditionSpace.of({
        "level": ["BG", "COR"], "pattern": ["normal", "unilateral", "bilateral"]
    })  # fmt: skip
    assert affected_cells(space, RULE) == (SideCells(0, 1, 2), SideCells(3, 4, 5))
    assert affected_cells(space, AugmentConfig()) == ()
    without = ConditionSpace.of({"pattern": ["normal", "bilateral"]})
    assert affected_cells(without, RULE) == ()
    with pytest.raises(ConfigError, match="no factor 'shape'"):
        affected_cells(space, AugmentConfig(sides={"shape": PATTERNS}))
    other = SideRule(none="a", one="b", both="c")
    with pytest.raises(UnknownFactorValue, match=r"sides rule names .*'a'"):
        affected_cells(space, AugmentConfig(sides={"pattern": other}))


def test_the_presets_know_the_rule() -> None:
    assert load_config("demo").augment.sides == RULE.sides
    assert not load_config("werner2022-a").augment.sides


def test_the_fit_sees_made_slices_last(small_phantom: Dataset) -> None:
    plain = training_data(small_phantom, AugmentConfig(shift=0))
    data = training_data(small_phantom, RULE)
    count, space = len(small_phantom), small_phantom.meta.space
    own = {str(cell): n for cell, n in small_phantom.class_counts.items()}
    wanted = {
        f"{level}/{value}": own[f"{level}/normal"] - own[f"{level}/{value}"]
        for level in space.factor("level").values
        for value in ("unilateral", "bilateral")
        if 0 < own[f"{level}/{value}"] < own[f"{level}/normal"] and own[f"{level}/unilateral"] > 1
    }
    names, counts = np.unique([str(space.cells[k]) for k in data.cell[count:]], return_counts=True)
    assert dict(zip(names, counts, strict=True)) == wanted
    assert len(wanted) > 1
    assert data.made == len(data.images) - count
    assert torch.equal(data.images[:count], plain.images)
    assert data.rows.tolist() == [*plain.rows, *range(count, len(data.images))]
    assert not any(len(n) for n in data.neighbours[count:])
    assert len(data.neighbours) == len(data.images) == len(data.cell)
    assert data.images.amax((1, 2, 3))[count:] == pytest.approx(torch.ones(data.made))


def material(dataset: Dataset, rules: AugmentConfig) -> Material:
    return Material.of(dataset, "pattern", rules, lambda *_: pytest.fail("no generator is asked"))


def test_the_arm_makes_slices_of_real_ones(small_phantom: Dataset) -> None:
    real = material(small_phantom, RULE)
    fit = moved_defects(real, 1)
    made = fit.synthetic
    assert not made[: len(real.labels)].any()
    assert {real.classes[k] for k in fit.labels[made]} == {"unilateral", "bilateral"}
    assert fit.cells is not None
    assert fit.sampling is not None
    shares = np.bincount(fit.labels, fit.sampling)
    assert shares == pytest.approx(np.full(3, shares[0]))
    assert fit.sampling[made].sum() == pytest.approx(shares[0])  # half of two classes
    other = moved_defects(real, 2)
    assert not np.array_equal(other.images[other.synthetic], fit.images[made])


def test_the_arm_without_a_rule_is_refused(small_phantom: Dataset) -> None:
    with pytest.raises(DataError, match=r"no defect can be moved.*augment\.sides"):
        moved_defects(material(small_phantom, AugmentConfig(shift=0)), 0)


@pytest.fixture(scope="module")
def exemplary() -> Appearance:
    """Fitted to 20 healthy heads, 12 with one defect, 3 with two, and the rule."""
    images, cells = few(3)
    data = replace(head_data((20, 12, 3)), images=torch.from_numpy(images)[:, None] * 2 - 1)
    assert data.cell.tolist() == cells.tolist()
    return fit_appearance(replace(data, groups=(GROUP,)))


def test_numbers_are_drawn_from_those_of_made_slices(exemplary: Appearance) -> None:
    assert exemplary.exemplary.tolist() == [0, 1, 1, 0]
    assert exemplary.examples.shape[1] == EXAMPLES
    noise = torch.randn(4000, exemplary.examples.shape[2], generator=torch.manual_seed(0))
    drawn = exemplary.draw(noise, exemplary.vectors[1].expand(len(noise), -1))
    off = (drawn.mean(0) - exemplary.cell_mean[1]).abs() / exemplary.cell_sd[1]
    assert off.max() < 0.1
    near = exemplary.cell_mean[1] + (1 - SMOOTHED**2) ** 0.5 * exemplary.examples[1]
    balance = LINEAR + MEAN
    apart = (drawn[:, balance, None] - near[None, :, balance]).abs().amin(1)
    assert apart.mean() < exemplary.cell_sd[1, balance]


def test_every_example_is_as_likely_whatever_stands_beside(exemplary: Appearance) -> None:
    noise = torch.zeros(EXAMPLES, exemplary.examples.shape[2])
    levels = (torch.arange(EXAMPLES).double() + 0.5) / EXAMPLES
    noise[:, 0] = torch.special.ndtri(levels).float()
    condition = exemplary.vectors[2].expand(EXAMPLES, -1)
    together = exemplary.draw(noise, condition)
    assert len(torch.unique(together, dim=0)) == EXAMPLES
    alone = torch.cat([exemplary.draw(noise[i : i + 1], condition[:1]) for i in range(40)])
    assert torch.equal(alone, together[:40])


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
