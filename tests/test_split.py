from __future__ import annotations

import numpy as np
import pytest

from fastgan_aug.data.dataset import Dataset
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


def test_same_seed_same_split_and_another_seed_another(toy: Dataset):
    splits = [split_by_patient(toy, 0.2, seed)[1].patients for seed in (5, 5, 6)]
    assert splits[0] == splits[1] != splits[2]


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
