"""Outer folds by patient: training, validation and test, nobody in two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from downstream.material import SyntheticSource
from downstream.outcome import Truth
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients, patient_digest
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.data.split import check_disjoint, slices_of, split_by_patient
from fastgan_aug.errors import ConfigError, DataError, LeakageError
from fastgan_aug.quality.likeness.faithfulness import class_labels

VALIDATION_FRACTION = 0.25


@dataclass(frozen=True)
class Part:
    """Slices to be predicted; there may be none.

    Attributes:
        images: (N, S, S) float32 in [0, 1].
        labels: (N,) classes.
        patients: (N,) codes.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]

    @classmethod
    def of(cls, dataset: Dataset, factor: str) -> Part:
        """The labelled slices of a data set."""
        rows = dataset.labelled
        names = dataset.column("patient_id")[rows].astype(str)
        codes = np.unique(names, return_inverse=True)[1].astype(np.int64)
        return cls(dataset.images[rows], class_labels(dataset, factor), codes)


@dataclass(frozen=True)
class Fold:
    """What one generator and all classifiers of a fold see, and what they do not.

    Attributes:
        number: Of the fold.
        train: What generator, filter and classifiers are fitted on.
        validation: Patients on whom rival and ratio are chosen; the generator never sees them.
            Without rows where some class has a single patient beside those of the test.
        test: Patients who are scored once.
        seen: Whom the generator saw; None where nobody knows.
        synthetic: Source of synthetic slices; None where there is none.
        filtered: The same, through the generator's filter.
        oracle: Fresh real slices instead.
    """

    number: int
    train: Dataset
    validation: Dataset
    test: Dataset
    seen: SeenPatients | None = None
    synthetic: SyntheticSource | None = field(default=None, repr=False)
    filtered: SyntheticSource | None = field(default=None, repr=False)
    oracle: SyntheticSource | None = field(default=None, repr=False)

    def check(self, *, unsafe_no_groups: bool = False, validation_seen: bool = False) -> None:
        """Verifies that no part leaks into another, nor the generator's patients into a test.

        Args:
            unsafe_no_groups: Takes data without patients; nothing can then be claimed.
            validation_seen: The generator saw the validation patients and the report says so.

        Raises:
            LeakageError: a patient stands in two parts, a part holds synthetic slices, or the
                generator saw validation or test patients; the message lists the pseudonyms.
            PseudonymKeysDiffer: pseudonyms of two keys.
            DataError: data without patients, or a part without labelled slices; a validation part
                may have no rows at all.
        """
        parts = {"training": self.train, "validation": self.validation, "test": self.test}
        for name, part in parts.items():
            if part.meta.grouping != BY_PATIENT and not unsafe_no_groups:
                raise DataError(
                    f"the {name} data have no patients (grouping {part.meta.grouping!r}): nothing "
                    "can be claimed on them",
                    allowed="data whose rows carry their patients",
                    do="import the images again with a patient_id column; --unsafe-no-groups "
                    "shows the machinery at work, without a verdict",
                )
            if not part.labelled.any() and (len(part) or part is not self.validation):
                raise DataError(f"the {name} data have no labelled slice", do="add labelled slices")
            if bool(np.any(part.column("synthetic"))):
                raise LeakageError(
                    f"the {name} data hold synthetic slices",
                    allowed="real slices; synthetic ones come from the source",
                    do="keep the rows whose synthetic column is false",
                )
        for one, other in combinations(parts.values(), 2):
            if (one.meta.space, one.meta.size) != (other.meta.space, other.meta.size):
                raise DataError("the parts differ in factors or size", do="split one data set")
            check_disjoint(one, other)
        if self.seen is not None:
            refuse_clashes(self.seen, self.test, "test")
            if not validation_seen:
                refuse_clashes(self.seen, self.validation, "validation")


def nobody(dataset: Dataset) -> Dataset:
    """No rows of a data set: a validation part where there is none."""
    return dataset.take(np.zeros(len(dataset), np.bool_))


def refuse_clashes(seen: SeenPatients, part: Dataset, name: str) -> None:
    """Refuses a generator whose lineage holds a patient of that part.

    Raises:
        LeakageError: it does; the message lists the pseudonyms.
        PseudonymKeysDiffer: pseudonyms of two keys.
    """
    if not seen.shared_with(part):
        return
    clashing = [p for p in part.patients if patient_digest(p) in seen.digests]
    raise LeakageError(
        f"the model was trained on {len(clashing)} of the {len(part.patients)} {name} patients: "
        + ", ".join(clashing),
        allowed="a model that saw training patients only",
        do="train a model on the training part of this split",
    )


def factor_of(dataset: Dataset, config: DownstreamConfig) -> str:
    """The factor to predict; the last one where none is named.

    Raises:
        ConfigError: the data have no such factor.
    """
    names = dataset.meta.space.names
    if config.factor is None:
        return names[-1]
    if config.factor not in names:
        raise ConfigError(
            f"downstream.factor is {config.factor!r}, which the data do not have",
            allowed=", ".join(names),
            do="correct the configuration, or leave it out: the last one is then predicted",
        )
    return config.factor


def truth_of(fold: Fold, factor: str) -> Truth:
    """What the predictions of a fold are held against; codes stand for patients."""
    validation, test = (Part.of(p, factor) for p in (fold.validation, fold.test))
    return Truth(fold.number, validation.labels, test.labels, validation.patients, test.patients)


def patients_per_class(dataset: Dataset, factor: str) -> dict[str, int]:
    """``{value: patients with a labelled slice of it}``, values without any left out."""
    rows = dataset.labelled
    values = dataset.column(factor)[rows].astype(str)
    owners = dataset.column("patient_id")[rows].astype(str)
    found = {v: len(set(owners[values == v])) for v in dataset.meta.space.factor(factor).values}
    return {value: n for value, n in found.items() if n}


def count_folds(dataset: Dataset, factor: str, wanted: int) -> int:
    """As many folds as wanted, never more than the rarest class has patients.

    With so many as that, each fold tests one patient of the rarest class.

    Raises:
        DataError: fewer than two classes, or a class of one patient.
    """
    patients = patients_per_class(dataset, factor)
    if len(patients) < 2 or min(patients.values()) < 2:
        raise DataError(
            f"patients of each class of {factor!r}: {patients}",
            allowed="two classes or more, each of two patients or more",
            do="predict another factor, or add patients",
        )
    return min(wanted, min(patients.values()))


def deal_patients(dataset: Dataset, factor: str, wanted: int, seed: int) -> list[NDArray[np.str_]]:
    """The test patients of each fold: every patient with labelled slices in exactly one.

    Patients of the rarest class are dealt first, each to the fold that lacks its cells most, so
    that values and cells are spread evenly.

    Args:
        dataset: Labelled real slices.
        factor: Whose values are the classes.
        wanted: Folds; see ``count_folds``.
        seed: Decides between equals.

    Raises:
        DataError: see ``count_folds``.
    """
    folds = count_folds(dataset, factor, wanted)
    rows = dataset.labelled
    owners = dataset.column("patient_id")[rows].astype(str)
    patients, owner = np.unique(owners, return_inverse=True)
    slices, _ = slices_of(dataset, owner)
    values = dataset.column(factor)[rows].astype(str)
    classes, code = np.unique(values, return_inverse=True)
    has = np.zeros((len(patients), len(classes)), np.bool_)
    has[owner, code] = True
    size = has.sum(axis=0)
    rarest = np.where(has, size, size.max() + 1).argmin(axis=1)
    order = np.lexsort(
        (np.random.default_rng(seed).random(len(patients)), -slices[:, -1], size[rarest])
    )
    total = slices.sum(axis=0)
    dealt = np.zeros((folds, slices.shape[1]))
    holders = np.zeros((folds, len(classes)), np.int64)
    fold_of = np.zeros(len(patients), np.int64)
    for i in order:
        fewest = holders[:, rarest[i]] == holders[:, rarest[i]].min()
        share = ((dealt + slices[i]) / total) ** 2 - (dealt / total) ** 2
        cost = np.where(fewest, share.sum(axis=1), np.inf)
        fold_of[i] = best = int(cost.argmin())
        dealt[best] += slices[i]
        holders[best] += has[i]
    return [patients[fold_of == k] for k in range(folds)]


def rarest_value(dataset: Dataset, factor: str) -> str:
    """The value with the fewest labelled slices; the first of equals in the factor's order."""
    values = dataset.column(factor)[dataset.labelled].astype(str).tolist()
    known = [value for value in dataset.meta.space.factor(factor).values if value in values]
    return min(known, key=values.count)


def thinned(train: Dataset, factor: str, value: str, slices: int, seed: int) -> Dataset:
    """A training part as if fewer patients with a value had been collected.

    The others leave with all their slices. Those who stay with fewer slices stay with more, too.

    Args:
        train: The training part.
        factor: Whose value it is.
        value: Of which so many slices stay.
        slices: How many, as nearly as whole patients allow; one patient leaves at least.
        seed: Decides who stays.

    Raises:
        DataError: there are no more slices than that, or they are of one patient.
    """
    of_value = train.labelled & (train.column(factor).astype(str) == value)
    owners = train.column("patient_id").astype(str)
    patients, counts = np.unique(owners[of_value], return_counts=True)
    if not 0 < slices < counts.sum() or len(patients) < 2:
        raise DataError(
            f"a fold's training part has {counts.sum()} slices of {value}, of {len(patients)} "
            f"patients: {slices} of them cannot be taken",
            allowed=f"1 to {max(counts.sum() - 1, 1)} slices where there are two patients or more",
            do="ask for other numbers of slices",
        )
    order = np.random.default_rng(seed).permutation(len(patients))
    stay = np.cumsum(counts[order])[:-1]
    leave = patients[order[1 + int(np.abs(stay - slices).argmin()) :]]
    return train.take(~np.isin(owners, leave))


def nested_fold(
    dataset: Dataset,
    test_patients: Sequence[str],
    number: int,
    seed: int,
    factor: str,
    *,
    unsafe_no_groups: bool = False,
) -> Fold:
    """A fold whose validation patients are taken from those who are not tested.

    See ``held_back``: there may be no validation part.

    Args:
        dataset: Everything.
        test_patients: See ``deal_patients``.
        number: Of the fold.
        seed: Of the validation's split.
        factor: Whose values are the classes.
        unsafe_no_groups: Takes data without patients.

    Raises:
        DataError: too few patients are left.
    """
    inside = np.isin(dataset.column("patient_id").astype(str), np.asarray(test_patients, np.str_))
    rest, test = dataset.take(~inside), dataset.take(inside)
    train, validation = held_back(rest, seed, factor, unsafe_no_groups=unsafe_no_groups)
    return Fold(number, train, validation, test)


def held_back(
    rest: Dataset, seed: int, factor: str, *, unsafe_no_groups: bool = False
) -> tuple[Dataset, Dataset]:
    """Training and validation part of the patients who are not tested.

    A validation part that lacks a class that is there to be learnt would choose arms by the other
    classes alone, and one that holds all of a class would leave none to be learnt. So where that
    class has a single patient, all stay in the training part, and the validation is left without
    rows: nothing is then chosen.

    Args:
        rest: Slices of these patients.
        seed: Of the split.
        factor: Whose values are the classes.
        unsafe_no_groups: Takes data without patients.

    Raises:
        DataError: too few patients.
    """
    train, validation = split_by_patient(
        rest, VALIDATION_FRACTION, seed, unsafe_no_groups=unsafe_no_groups
    )
    known, *held = (patients_per_class(part, factor).keys() for part in (rest, train, validation))
    return (train, validation) if held == [known, known] else (rest, nobody(rest))
