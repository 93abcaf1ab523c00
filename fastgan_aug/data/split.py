"""Splits by patient: nobody's slices stand on both sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import check_comparable
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.errors import DataError, LeakageError

STARTS = 20
# A split that lacks nothing and whose shares are about 0.07 off is taken at once: looking for the
# very best would give small data sets the same split whatever the seed.
GOOD_ENOUGH = 0.005


def split_by_patient(
    dataset: Dataset, test_fraction: float, seed: int, *, unsafe_no_groups: bool = False
) -> tuple[Dataset, Dataset]:
    """Splits into training and test data, grouped by patient and stratified by cell.

    Every value and cell of two patients or more stands on both sides wherever that can be had,
    and those of one patient in the training data. Then the shares of slices, over all and in each
    value and cell, are brought near to ``test_fraction``, as far as whole patients allow.

    Args:
        dataset: What to split; neighbours follow their patient, patients without a labelled slice
            go to the training data.
        test_fraction: Aimed share of labelled slices in the test data, in (0, 1).
        seed: Of the search: same data, same seed, same split.
        unsafe_no_groups: Takes data without patients too, each row for itself. Slices of one
            person may then stand on both sides: nothing can be concluded from such a test.

    Returns:
        Training data, test data.

    Raises:
        DataError: fewer than two patients with labelled slices, data without patients, or a
            fraction out of range.
    """
    if not 0 < test_fraction < 1:
        raise DataError(f"the test fraction is {test_fraction}", allowed="between 0 and 1")
    if dataset.meta.grouping != BY_PATIENT and not unsafe_no_groups:
        raise DataError(
            f"the data have no patients (grouping {dataset.meta.grouping!r}): one person's slices "
            "could stand in training and test",
            allowed="data whose rows carry their patients",
            do="import the images with their patients, or set data.test_fraction = 0; to look at "
            "the machinery alone, `train` and `downstream` take --unsafe-no-groups",
        )
    owners = dataset.column("patient_id").astype(str)[dataset.labelled]
    patients, owner = np.unique(owners, return_inverse=True)
    if len(patients) < 2:
        raise DataError(
            f"{len(patients)} patients with labelled slices cannot be split by patient",
            allowed="two patients or more, each row with its pseudonym",
            do="add patients",
        )
    slices, worth = slices_of(dataset, owner)
    chosen = patients[_choose(slices, worth, test_fraction, np.random.default_rng(seed))]
    inside = np.isin(dataset.column("patient_id").astype(str), chosen)
    train, test = dataset.take(~inside), dataset.take(inside)
    check_disjoint(train, test)
    return train, test


def slices_of(
    dataset: Dataset, owner: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(patients, units) slices, and (units,) what it costs if a side lacks the unit.

    Units are the cells, the values of each factor, and the whole. No number of cells outweighs a
    value, no number of values the whole.
    """
    space = dataset.meta.space
    index = dataset.cell_index[dataset.labelled]
    cells = np.zeros((owner.max() + 1, len(space.cells)), np.int64)
    np.add.at(cells, (owner, index), 1)
    values = [(i, v) for i, factor in enumerate(space.factors) for v in factor.values]
    columns = [cells[:, [c.values[i] == v for c in space.cells]].sum(axis=1) for i, v in values]
    slices = np.column_stack([cells, *columns, cells.sum(axis=1)])
    base = 2.0 * slices.shape[1]  # a unit can be lacking on two sides
    worth = np.repeat([1.0, base, base**2], [len(space.cells), len(values), 1])
    present = slices.any(axis=0)
    return slices[:, present], worth[present]


def _choose(
    slices: NDArray[np.int64],
    worth: NDArray[np.float64],
    fraction: float,
    random: np.random.Generator,
) -> NDArray[np.bool_]:
    """(patients,) whether in the test: the first good one of some random starts, or the best.

    A step moves the one patient whose change of sides helps the most, until none does.
    """
    total, several = slices.sum(axis=0), (slices > 0).sum(axis=0) > 1

    def cost(test: NDArray[np.int64]) -> NDArray[np.float64]:
        lacking = (test == total) * worth + ((test == 0) & several) * worth
        off = (test / total - fraction) ** 2
        # Rounded, so that the order of a sum cannot decide between equals.
        costs = lacking.sum(axis=-1) + (off[..., -1] + off.mean(axis=-1)) / 2
        return np.asarray(np.round(costs, 9))

    best: tuple[float, NDArray[np.bool_]] = (np.inf, np.zeros(len(slices), np.bool_))
    for _ in range(STARTS):
        inside = random.random(len(slices)) < fraction
        test = slices[inside].sum(axis=0)
        now = float(cost(test))
        while True:
            moved = test + np.where(inside, -1, 1)[:, None] * slices
            costs = cost(moved)
            step = int(costs.argmin())
            if costs[step] >= now:
                break
            test, now = moved[step], float(costs[step])
            inside[step] = not inside[step]
        if now < best[0]:
            best = (now, inside)
        if now < GOOD_ENOUGH:
            break
    return best[1]


def check_disjoint(train: Dataset, test: Dataset) -> None:
    """Verifies that no patient stands on both sides and that the test data is all real.

    Raises:
        LeakageError: otherwise.
        PseudonymKeysDiffer: the sides' pseudonyms come from two keys, so nobody can tell.
    """
    check_comparable(train.meta.pseudonym_key, test.meta.pseudonym_key)
    shared = set(train.patients) & set(test.patients)
    if shared:
        raise LeakageError(
            f"{len(shared)} patients are in training and test data",
            do="split by patient",
        )
    if bool(np.any(test.column("synthetic"))):
        raise LeakageError("the test data holds synthetic slices", do="test on real slices only")
