"""Laws of the outer folds: by patient, every class in every part, nothing leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from downstream.fold import (
    Fold,
    count_folds,
    deal_patients,
    factor_of,
    nested_fold,
    patients_per_class,
    rarest_value,
    thinned,
    truth_of,
)
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.errors import ConfigError, DataError, LeakageError, PseudonymKeysDiffer

CLASSES = {"disc", "ring", "bar", "cross"}


def folds_of(dataset: Dataset, wanted: int = 3) -> list[Fold]:
    dealt = deal_patients(dataset, "shape", wanted, 0)
    return [nested_fold(dataset, list(names), k, 0, "shape") for k, names in enumerate(dealt)]


@pytest.fixture(scope="module")
def folds(toy: Dataset) -> list[Fold]:
    return folds_of(toy)


def test_the_factor_is_one_of_the_datas(toy: Dataset) -> None:
    for named in (None, "shape"):
        assert factor_of(toy, DownstreamConfig(factor=named)) == "shape"
    with pytest.raises(ConfigError, match=r"downstream.factor is 'nope'.*Allowed: shape\."):
        factor_of(toy, DownstreamConfig(factor="nope"))


@pytest.mark.parametrize("wanted", [2, 3])
def test_every_patient_is_tested_once_and_every_class_in_every_fold(
    toy: Dataset, wanted: int
) -> None:
    dealt = deal_patients(toy, "shape", wanted, 0)
    everyone = np.concatenate(dealt).tolist()
    assert sorted(everyone) == sorted(set(everyone))
    assert set(everyone) == set(toy.take(toy.labelled).patients)
    for names in dealt:
        part = toy.of_patients(names.tolist())
        assert set(patients_per_class(part, "shape")) == CLASSES


def test_classes_are_spread_evenly(toy: Dataset) -> None:
    dealt = deal_patients(toy, "shape", 3, 0)
    counts = [patients_per_class(toy.of_patients(names.tolist()), "shape") for names in dealt]
    for value in CLASSES:
        held = [count[value] for count in counts]
        assert max(held) - min(held) <= 1


def test_never_more_folds_than_patients_of_the_rarest_class(toy: Dataset) -> None:
    rarest = min(patients_per_class(toy, "shape").values())
    assert count_folds(toy, "shape", 1000) == rarest
    dealt = deal_patients(toy, "shape", 1000, 0)
    held = [patients_per_class(toy.of_patients(names.tolist()), "shape") for names in dealt]
    assert all(count["cross"] == 1 for count in held), "one patient of the rarest class left out"


def test_a_class_of_one_patient_cannot_be_tested(toy: Dataset) -> None:
    cross = sorted(set(toy.column("patient_id")[toy.column("shape") == "cross"].astype(str)))
    fewer = toy.take(~np.isin(toy.column("patient_id").astype(str), cross[1:]))
    with pytest.raises(DataError, match="cross"):
        count_folds(fewer, "shape", 3)


def test_the_parts_share_nobody_and_hold_everyone(toy: Dataset, folds: list[Fold]) -> None:
    for fold in folds:
        fold.check()
        parts = [set(p.patients) for p in (fold.train, fold.validation, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(toy.patients)


def test_same_seed_same_folds(toy: Dataset) -> None:
    first, second = (deal_patients(toy, "shape", 3, 5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("names", [("train", "validation"), ("train", "test"),
                                   ("validation", "test")])  # fmt: skip
def test_a_planted_overlap_is_refused(
    toy: Dataset, folds: list[Fold], names: tuple[str, str]
) -> None:
    one, other = (getattr(folds[0], name) for name in names)
    planted = toy.of_patients([*other.patients, one.patients[0]])
    with pytest.raises(LeakageError):
        replace(folds[0], **{names[1]: planted}).check()


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_generator_that_saw_a_patient_is_refused_with_the_pseudonyms(
    toy: Dataset, folds: list[Fold], name: str
) -> None:
    part = getattr(folds[0], name)
    clashing = part.patients[:2]
    seen = SeenPatients.of(toy.of_patients([*folds[0].train.patients, *clashing]))
    with pytest.raises(LeakageError, match=f"{name} patients") as refused:
        replace(folds[0], seen=seen).check()
    assert all(patient in refused.value.what for patient in clashing)
    assert part.patients[2] not in refused.value.what
    replace(folds[0], seen=SeenPatients.of(folds[0].train)).check()
    other = replace(seen, pseudonym_key="KANOTHERKEY00")
    with pytest.raises(PseudonymKeysDiffer):
        replace(folds[0], seen=other).check()


def test_truths_hold_codes_and_no_pseudonym(folds: list[Fold]) -> None:
    truth = truth_of(folds[1], "shape")
    assert truth.fold == 1
    assert len(truth.test_labels) == int(folds[1].test.labelled.sum())
    owners = folds[1].test.column("patient_id")[folds[1].test.labelled].astype(str)
    for code in set(truth.test_patients.tolist()):
        assert len(set(owners[truth.test_patients == code])) == 1


def test_a_class_with_one_patient_beside_the_test_is_learnt_and_nobody_held_back(
    toy: Dataset,
) -> None:
    fold = folds_of(toy, 2)[0]
    assert patients_per_class(fold.test, "shape")["cross"] == 2
    assert patients_per_class(fold.train, "shape")["cross"] == 1
    assert len(fold.validation) == 0
    assert {*fold.train.patients, *fold.test.patients} == set(toy.patients)
    fold.check()
    truth = truth_of(fold, "shape")
    assert len(truth.validation_labels) == 0
    for name in ("train", "test"):
        part = getattr(fold, name)
        with pytest.raises(DataError, match="no labelled slice"):
            replace(fold, **{name: part.take(np.zeros(len(part), np.bool_))}).check()


def test_fewer_slices_are_those_of_fewer_patients(toy: Dataset) -> None:
    """Who stays with few slices stays with more; nobody else leaves."""
    assert rarest_value(toy, "shape") == "cross"
    before: set[str] = set()
    for slices in (4, 7):
        few = thinned(toy, "shape", "cross", slices, seed=1)
        values = few.column("shape")[few.labelled].astype(str).tolist()
        owners = set(few.column("patient_id")[few.labelled][np.asarray(values) == "cross"])
        assert abs(values.count("cross") - slices) <= 2, "a donor has four slices at most"
        assert before <= owners
        before = owners
        left = set(toy.patients) - set(few.patients)
        assert left
        others = patients_per_class(few, "shape").items() - {("cross", len(owners))}
        assert others < patients_per_class(toy, "shape").items()
        assert few.digest == thinned(toy, "shape", "cross", slices, seed=1).digest


@pytest.mark.parametrize("slices", [0, 12, 100])
def test_more_slices_than_there_are_cannot_be_left(toy: Dataset, slices: int) -> None:
    with pytest.raises(DataError, match="12 slices of cross, of 3 patients"):
        thinned(toy, "shape", "cross", slices, seed=0)


def test_one_patient_cannot_be_thinned(toy: Dataset) -> None:
    owners = toy.column("patient_id").astype(str)
    cross = toy.column("shape").astype(str) == "cross"
    first = owners[cross][0]
    with pytest.raises(DataError, match="of 1 patients"):
        thinned(toy.take(~cross | (owners == first)), "shape", "cross", 2, seed=0)
