"""Splits by patient: nobody's slices stand on both sides."""

from __future__ import annotations

import numpy as np

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError, LeakageError


def split_by_patient(dataset: Dataset, test_fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Splits into training and test data, grouped by patient and stratified by cell.

    Of the folds that scikit-learn's ``StratifiedGroupKFold`` offers, takes the one that leaves
    the most cells on both sides, then the one nearest to ``test_fraction``.

    Args:
        dataset: What to split; neighbours follow their patient.
        test_fraction: Aimed share of labelled slices in the test data, in (0, 1).
        seed: Of the shuffling.

    Returns:
        Training data, test data.

    Raises:
        DataError: fewer than two patients, data without patients, or a fraction out of range.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if not 0 < test_fraction < 1:
        raise DataError(f"the test fraction is {test_fraction}", allowed="between 0 and 1")
    if len(dataset.patients) < 2 or dataset.meta.grouping != "patient":
        raise DataError(
            f"{len(dataset.patients)} patients cannot be split by patient",
            allowed="two patients or more, each row with its pseudonym",
            do="add patients",
        )
    rows = np.flatnonzero(dataset.labelled)
    cells = dataset.cell_index[rows]
    groups = dataset.column("patient_id").astype(str)[rows]
    folds = max(2, min(round(1 / min(test_fraction, 1 - test_fraction)), len(set(groups))))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    best: tuple[tuple[int, float], list[str]] | None = None
    for _, test in splitter.split(rows, cells, groups):
        test_groups = set(groups[test])
        inside = np.isin(groups, list(test_groups))
        shared = len(set(cells[inside]) & set(cells[~inside]))
        score = (shared, -abs(inside.mean() - test_fraction))
        if best is None or score > best[0]:
            best = (score, sorted(test_groups))
    assert best is not None
    chosen = best[1] if test_fraction <= 0.5 else sorted(set(groups) - set(best[1]))
    train = dataset.of_patients([p for p in dataset.patients if p not in chosen])
    test_data = dataset.of_patients(chosen)
    check_disjoint(train, test_data)
    return train, test_data


def check_disjoint(train: Dataset, test: Dataset) -> None:
    """Verifies that no patient stands on both sides and that the test data is all real.

    Raises:
        LeakageError: otherwise.
    """
    shared = sorted(set(train.patients) & set(test.patients))
    if shared:
        raise LeakageError(
            f"{len(shared)} patients are in training and test data: {shared[:5]}",
            do="split by patient",
        )
    if bool(np.any(test.column("synthetic"))):
        raise LeakageError("the test data holds synthetic slices", do="test on real slices only")
