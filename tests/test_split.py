from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.plan import plan_patients
from fastgan_aug.data.phantom.population import SPACE as PHANTOM_SPACE
from fastgan_aug.data.phantom.population import TABLE_1
from fastgan_aug.data.schema import DatasetMeta
from fastgan_aug.data.split import check_disjoint, split_by_patient
from fastgan_aug.errors import DataError, LeakageError


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fraction", [0.2, 0.33, 0.7])
def test_nobody_stands_on_both_sides_and_nobody_is_lost(toy: Dataset, fraction: float, seed: int):
    train, test = split_by_patient(toy, fraction, seed)
    assert not set(train.patients) & set(test.patients)
    assert sorted(train.patients + test.patients) == toy.patients
    assert len(train) + len(test) == len(toy)


def test_the_split_is_stratified(toy: Dataset):
    _, test = split_by_patient(toy, 0.25, 0)
    for cell, count in toy.class_counts.items():
        assert abs(test.class_counts[cell] - 0.25 * count) <= 4  # one donor's slices
        assert 0 < test.class_counts[cell] < count


SPACE = ConditionSpace.of({"level": ["low", "mid", "high"], "pattern": ["n", "u", "b"]})


def small(patterns: str, seed: int) -> Dataset:
    """A patient per letter, of that pattern, each with slices of one to three levels."""
    random = np.random.default_rng(seed)
    rows = [
        (f"p{i}", SPACE.factors[0].values[level], pattern)
        for i, pattern in enumerate(patterns)
        for level in random.permutation(3)[: random.integers(1, 4)]
        for _ in range(random.integers(1, 9))
    ]
    patients, levels, named = zip(*rows, strict=True)
    n = len(rows)
    return Dataset.build(
        DatasetMeta(SPACE, 4, "made here"),
        images=np.zeros((n, 4, 4), np.float32),
        labels={"level": levels, "pattern": named},
        patient_id=patients,
        scan_id=patients,
        z=np.arange(n).tolist(),
        scale=[1.0] * n,
    )


def owners(dataset: Dataset) -> list[set[str]]:
    """The patients of each value of each factor."""
    patients = dataset.column("patient_id")
    return [
        set(patients[dataset.column(factor.name) == value])
        for factor in SPACE.factors
        for value in factor.values
    ]


def good(values: list[set[str]], test: set[str]) -> bool:
    """Values of several patients on both sides, those of one in the training data."""
    return all(not v or (v - test and (len(v) == 1 or v & test)) for v in values)


@pytest.mark.parametrize("fraction", [0.2, 0.3, 0.4, 0.45, 0.5])
@pytest.mark.parametrize("patterns", ["nnnnuubbb", "nnuub", "nuunbb", "nuuubbb"])
def test_every_value_of_two_patients_stands_on_both_sides(patterns: str, fraction: float):
    possible = 0
    for seed in range(6):
        whole = small(patterns, seed)
        values, patients = owners(whole), whole.patients
        subsets = (set(c) for n in range(9) for c in itertools.combinations(patients, n))
        if any(good(values, test) for test in subsets):
            possible += 1
            assert good(values, set(split_by_patient(whole, fraction, seed)[1].patients)), seed
    assert possible >= 3


@pytest.mark.parametrize("fraction", [0.15, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.8])
def test_the_share_is_the_one_asked_for(toy: Dataset, fraction: float):
    _, test = split_by_patient(toy, fraction, 0)
    assert test.labelled.sum() / toy.labelled.sum() == pytest.approx(fraction, abs=0.04)


def test_a_set_of_the_paper_s_counts_keeps_its_cells_on_both_sides(paper_like: Dataset):
    for seed in range(3):
        sides = split_by_patient(paper_like, 0.3, seed)
        for cell, count in paper_like.class_counts.items():
            for side, share in zip(sides, (0.7, 0.3), strict=True):
                assert side.class_counts[cell] == pytest.approx(share * count, abs=0.1 * count)
        assert len(sides[1]) / len(paper_like) == pytest.approx(0.3, abs=0.01)


@pytest.fixture(scope="module")
def paper_like() -> Dataset:
    """Table 1's slices and patients as the phantom shares them out, without its pictures."""
    plans = plan_patients(TABLE_1, 250, 5.0, np.random.default_rng(0))
    rows = [
        (f"p{i}", level, plan.labels[level])
        for i, plan in enumerate(plans)
        for level, n in plan.slices.items()
        for _ in range(n)
    ]
    patients, levels, patterns = zip(*rows, strict=True)
    n = len(rows)
    return Dataset.build(
        DatasetMeta(PHANTOM_SPACE, 4, "made here"),
        images=np.zeros((n, 4, 4), np.float32),
        labels={"level": levels, "pattern": patterns},
        patient_id=patients,
        scan_id=patients,
        z=np.arange(n).tolist(),
        scale=[1.0] * n,
    )


def test_a_value_of_one_patient_needs_no_warning(
    recwarn: pytest.WarningsRecorder,
):
    split_by_patient(small("nnnnuub", 0), 0.3, 0)  # one patient with b
    assert not recwarn.list


def test_two_patients_are_one_on_each_side():
    for fraction in (0.01, 0.5, 0.99):
        train, test = split_by_patient(small("nu", 1), fraction, 0)
        assert len(train.patients) == len(test.patients) == 1


def test_patients_without_a_labelled_slice_go_to_the_training_data():
    whole = small("nnnuuu", 0)
    rows = whole.column("patient_id") == "p0"
    table = whole.table
    for name in (*SPACE.names, "role"):
        blank = "neighbour" if name == "role" else None
        column = [
            blank if gone else v for v, gone in zip(table[name].to_pylist(), rows, strict=True)
        ]
        table = table.set_column(
            table.column_names.index(name), name, pa.array(column, pa.string())
        )
    for seed in range(5):
        train, _ = split_by_patient(Dataset(table, whole.meta), 0.5, seed)
        assert "p0" in train.patients
    with pytest.raises(DataError, match="0 patients"):
        split_by_patient(Dataset(table, whole.meta).of_patients(["p0"]), 0.5, 0)


def test_same_seed_same_split_and_another_seed_another(toy: Dataset):
    splits = [split_by_patient(toy, 0.2, seed)[1].patients for seed in (5, 5, 6)]
    assert splits[0] == splits[1] != splits[2]
    whole = small(8 * "n" + 4 * "u" + 4 * "b", 0)
    assert len({tuple(split_by_patient(whole, 0.3, s)[1].patients) for s in range(10)}) > 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(toy: Dataset, fraction: float):
    with pytest.raises(DataError):
        split_by_patient(toy, fraction, 0)


def test_one_patient_cannot_be_split(toy: Dataset):
    with pytest.raises(DataError, match="1 patients"):
        split_by_patient(toy.of_patients(toy.patients[:1]), 0.5, 0)


def test_leaks_are_refused(toy: Dataset):
    train, test = split_by_patient(toy, 0.2, 0)
    with pytest.raises(LeakageError):
        check_disjoint(toy, test)
    names = test.table.column_names
    marked = test.table.set_column(
        names.index("synthetic"), "synthetic", [np.ones(len(test), bool)]
    )
    with pytest.raises(LeakageError, match="synthetic"):
        check_disjoint(train, Dataset(marked, test.meta))
