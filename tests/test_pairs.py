"""Laws of means over pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastgan_aug.errors import DataError
from fastgan_aug.quality.gate import Rule
from fastgan_aug.quality.likeness.features import Sample
from fastgan_aug.quality.likeness.kid import polynomial_kernel
from fastgan_aug.quality.likeness.pairs import (
    across,
    by_cell,
    halves,
    jackknife,
    mean_across,
    mean_across_without,
    mean_within,
    mean_within_without,
    within,
)
from fastgan_aug.quality.metric import Metric


def sample(n: int, seed: int, people: int | None = None, cells: int = 1) -> Sample:
    random = np.random.default_rng(seed)
    owners = None if people is None else [f"p{i}" for i in random.integers(0, people, n)]
    return Sample.of(random.normal(0, 1, (n, 4)), [f"c{i % cells}" for i in range(n)], owners)


def test_pairs_of_one_owner_are_left_out() -> None:
    s = sample(30, 0, people=8)
    k = polynomial_kernel(s.features, s.features)
    apart = s.owners[:, None] != s.owners
    assert mean_within(within(s, polynomial_kernel))[0] == pytest.approx(k[apart].mean())


def test_blocks_do_not_matter() -> None:
    one, other = sample(600, 1, people=90), sample(300, 2)
    k = polynomial_kernel(one.features, other.features)
    pairs = across(one, other, polynomial_kernel)
    assert mean_across(pairs)[0] == pytest.approx(k.mean())
    assert pairs.sums.shape == (90, 300)
    assert pairs.first.sum() == 600


def test_choices_are_those_samples() -> None:
    one, other = sample(40, 3, people=10), sample(25, 4, people=7)
    chosen = halves(within(one, polynomial_kernel).first, 5, seed=0)
    owners = np.unique(one.owners)
    for choice in chosen:
        taken = one.take(np.isin(one.owners, owners[choice > 0]))
        got = mean_within(within(one, polynomial_kernel), choice[None])[0]
        assert got == pytest.approx(mean_within(within(taken, polynomial_kernel))[0])
        got = mean_across(across(one, other, polynomial_kernel), choice[None])[0]
        assert got == pytest.approx(mean_across(across(taken, other, polynomial_kernel))[0])


def test_leaving_out_is_leaving_out() -> None:
    one, other = sample(40, 5, people=10), sample(25, 6, people=7)
    inside, between = within(one, polynomial_kernel), across(one, other, polynomial_kernel)
    everybody = 1 - np.eye(10)
    assert mean_within_without(inside) == pytest.approx(mean_within(inside, everybody))
    rows, columns = mean_across_without(between)
    assert rows == pytest.approx(mean_across(between, everybody))
    without = np.ones((7, 10)), 1 - np.eye(7)
    assert columns == pytest.approx(mean_across(between, *without))


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(0, 1, 50)
    without = (values.sum() - values) / 49
    assert jackknife(without) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_halves_are_halves_and_repeat() -> None:
    slices = np.random.default_rng(0).integers(1, 8, 60).astype(np.float64)
    chosen = halves(slices, 100, seed=3)
    np.testing.assert_array_equal(chosen, halves(slices, 100, seed=3))
    assert (np.abs(chosen @ slices - slices.sum() / 2) <= slices.max() / 2).all()
    assert chosen.mean(axis=0) == pytest.approx(0.5, abs=0.2)
    assert halves(np.ones(2), 1, 0).sum() == 1


def test_cells_with_few_patients_or_slices_are_unjudged_and_say_why() -> None:
    real = Sample.of(np.zeros((15, 1)), list("aaaaabbbbcccccd"), list("123451123123451"))
    synthetic = Sample.of(np.zeros((12, 1)), list("aaaaabbbbccc"))
    judged: list[str] = []

    def judge(cell: str, one: Sample, other: Sample) -> list[Metric]:
        judged.append(cell)
        return [Metric(name, cell, 1.0, len(other)) for name in ("x", "y")]

    found = by_cell(judge, ("x", "y"), real, synthetic, view="v")
    assert judged == ["overall", "a"]
    groups = ("overall", "a", "b", "c", "d")
    assert [(m.cell, m.name) for m in found] == list(itertools.product(groups, ("x", "y")))
    why = {m.cell: m.note for m in found if np.isnan(m.value)}
    assert why == {
        "b": "too few patients (3, wanted at least 4)",
        "c": "too few synthetic slices (3, wanted at least 4)",
        "d": "no synthetic slice of it was given",
    }
    assert not any(Rule("x", at_least=-9).judge(m).passed for m in found if np.isnan(m.value))


def test_a_cell_that_must_be_judged_is_never_left_out() -> None:
    one = sample(40, 0, people=10)
    found = by_cell(lambda cell, *_: [Metric("x", cell, 1.0, 40)], ("x",), one, one, view="v",
                    cells=["c0", "elsewhere"])  # fmt: skip
    assert {m.cell: np.isnan(m.value) for m in found} == {
        "overall": False, "c0": False, "elsewhere": True,
    }  # fmt: skip


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(DataError):
        within(sample(3, 0).take(np.zeros(3, np.bool_)), polynomial_kernel)
