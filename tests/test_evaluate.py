"""The whole evaluation on the toy shapes: nothing in it looks like SPECT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from toy import toy_dataset

from fastgan_aug.config import QualityConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import UNGROUPED
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.errors import DataError, LeakageError, PseudonymKeysDiffer, UnknownCell
from fastgan_aug.quality.case import HOLD_OUT, NO_STRANGERS, TRAINING, wanted_counts
from fastgan_aug.quality.evaluate import evaluate
from fastgan_aug.quality.gate import EVERY, Rule
from fastgan_aug.quality.report import QualityReport

Slices = tuple[NDArray[np.float32], list[str]]
QUICK = QualityConfig(classifier=False, resplits=50)


@pytest.fixture(scope="module")
def sides(toy: Dataset) -> tuple[Dataset, Dataset]:
    return split_by_patient(toy, 0.45, 0)


def slices_of(dataset: Dataset) -> Slices:
    rows = np.flatnonzero(dataset.labelled)
    return dataset.images[rows], [str(dataset.cells[i]) for i in rows]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    """Slices as a perfect generator would make them: other donors of the same shapes."""
    parts = [slices_of(toy_dataset(tmp_path_factory.mktemp("other"), seed)) for seed in (1, 2)]
    return np.concatenate([images for images, _ in parts]), parts[0][1] + parts[1][1]


@pytest.fixture(scope="module")
def good(sides: tuple[Dataset, Dataset], others: Slices) -> QualityReport:
    return evaluate(*sides, *others, QUICK)


def failed(report: QualityReport) -> set[str]:
    """Of figures that are not good enough; not of those that could not be found."""
    return {
        reason.metric
        for reason in report.verdict.failures
        if reason.value is not None and not reason.unjudged
    }


def test_the_same_arguments_give_the_same_report(sides, others, good) -> None:
    assert evaluate(*sides, *others, QUICK).to_json() == good.to_json()
    again = evaluate(*sides, *others, QUICK.model_copy(update={"seed": 1}))
    assert again.to_json() != good.to_json()


def test_as_many_synthetic_as_real_slices_always(sides, good) -> None:
    train, holdout = sides
    trained = {str(c): n for c, n in train.class_counts.items()}
    held = {str(c): n for c, n in holdout.class_counts.items()}
    for row in good.tables["cells"]:
        expected = held if row["real"] == HOLD_OUT else trained
        assert row["n"] == expected[row["cell"]]
    compared = sum(row["n"] for row in good.tables["cells"])
    assert good.provenance["slices"]["compared"] == compared
    kid = good.metric("kid", view="fixed")
    assert kid is not None
    assert kid.n == compared


def test_a_cell_with_too_few_others_is_compared_with_training_slices(sides, good) -> None:
    held = {str(c): n for c, n in sides[1].class_counts.items()}
    sources = {row["cell"]: row["real"] for row in good.tables["cells"]}
    assert sources["disc"] == HOLD_OUT
    assert held["cross"] < 10
    assert sources["cross"] == TRAINING


def test_a_cell_with_too_few_patients_is_unjudged_and_never_passes(good) -> None:
    few = {row["cell"]: row["patients"] for row in good.tables["cells"] if row["patients"] < 4}
    assert set(few) == {"bar", "cross"}, "three donors and two, whatever the generator does"
    unjudged = {(r.metric, r.cell): r.note for r in good.verdict.failures if r.unjudged}
    assert unjudged == {
        (name, cell): f"too few patients ({n}, wanted at least 4)"
        for name in ("kid", "coverage_ratio")
        for cell, n in few.items()
    }
    for name in ("kid", "precision", "coverage_ratio", "pairwise_ratio", "modes_ratio"):
        found = [metric for metric in good.metrics if metric.name == name]
        assert {metric.cell for metric in found if np.isnan(metric.value)} == set(few)


def test_a_cell_that_was_trained_on_and_not_made_fails_every_question(sides, others, good) -> None:
    images, cells = others
    kept = np.asarray(cells) != "disc"
    report = evaluate(*sides, images[kept], [c for c in cells if c != "disc"], QUICK)
    rules = [rule for rule in QUICK.gate if rule.cells == EVERY]
    refused = [r for r in report.verdict.failures if r.cell == "disc"]
    assert {r.metric for r in refused} == {rule.metric for rule in rules}
    assert {r.note for r in refused} == {"no synthetic slice of it was given"}
    names = {m.name for m in good.metrics if m.cell == "disc"}
    assert {m.name for m in report.metrics if m.cell == "disc"} >= names
    assert all(np.isnan(m.value) for m in report.metrics if m.cell == "disc")


def test_what_only_other_patients_could_tell_is_unjudged_without_them(sides, others) -> None:
    train, holdout = sides
    rows = np.asarray([str(cell) != "bar" for cell in holdout.cells], np.bool_)
    names = ("nn_share", "membership_auc", "real_on_synthetic", "synthetic_on_real")
    settings = QualityConfig(resplits=20, steps=2, width=4, gate=[Rule(name) for name in names])
    report = evaluate(train, holdout.take(rows), *others, settings)
    refused = [r for r in report.verdict.failures if r.unjudged]
    assert {(r.metric, r.cell) for r in refused} == {(name, "bar") for name in names}
    assert {r.note for r in refused} == {NO_STRANGERS}
    overall = report.metric("real_on_synthetic")
    assert overall is not None
    assert "without bar" in overall.note


def test_every_question_has_its_figures(good) -> None:
    names = {metric.name for metric in good.metrics}
    assert {
        "mc_ratio", "log_lr_difference", "abs_log_lr_ratio", "sd_map_ratio", "kid", "precision",
        "recall", "density", "coverage", "coverage_ratio", "pairwise_ratio", "modes_ratio",
        "duplicate_rate", "nn_share", "copy_rate", "membership_auc", "membership_control",
    } <= names  # fmt: skip
    assert set(good.tables) == {
        "cells", "training_counts", "paper", "distributions", "dispersion", "pairs",
    }  # fmt: skip
    assert len(good.tables["pairs"]) == 12


def test_without_the_classifier_nothing_passes(good) -> None:
    missing = {reason.metric for reason in good.verdict.failures if reason.value is None}
    assert missing == {"real_on_synthetic", "synthetic_on_real"}
    assert not good.verdict.passed


def test_no_pseudonym_is_written(toy: Dataset, good) -> None:
    text = good.to_json()
    assert not [patient for patient in toy.patients if patient in text]
    assert not [digest for digest in toy.patient_digests if digest in text]


def test_a_copier_is_caught_by_privacy(sides, others, good) -> None:
    images, cells = slices_of(sides[0])
    copied = evaluate(*sides, images, cells, QUICK)
    assert {"copy_rate", "nn_share"} <= failed(copied)
    assert not {"copy_rate", "nn_share", "membership_auc"} & failed(good)
    assert all(row["near"] for row in copied.tables["pairs"])


def test_one_mode_is_caught_by_diversity(sides, others) -> None:
    images, cells = others
    first = {cell: images[cells.index(cell)] for cell in set(cells)}
    noise = np.random.default_rng(0).normal(0, 0.01, images.shape).astype(np.float32)
    same = np.clip(np.stack([first[cell] for cell in cells]) + noise, 0, 1)
    assert {"sd_map_ratio", "modes_ratio", "duplicate_rate", "coverage_ratio"} <= failed(
        evaluate(*sides, same, cells, QUICK)
    )


def test_half_the_counts_are_caught_by_the_mean_counts(sides, others) -> None:
    images, cells = others
    assert "mc_ratio" in failed(evaluate(*sides, images**1.6, cells, QUICK))


def test_a_generator_that_ignores_its_condition_is_not_recognised(sides, others) -> None:
    images, cells = others
    shuffled = np.random.default_rng(0).permutation(len(images))
    settings = QualityConfig(resplits=50, steps=60, width=8)
    right = evaluate(*sides, images, cells, settings)
    wrong = evaluate(*sides, images[shuffled], cells, settings)
    assert "real_on_synthetic" in failed(wrong)
    assert "kid" in failed(wrong)
    assert not {"real_on_synthetic", "synthetic_on_real"} & failed(right)
    assert set(right.provenance["views"]) == {"fixed", "classifier"}
    assert all(len(digest) == 64 for digest in right.provenance["views"].values())


def test_fresh_patients_bring_the_rules_of_equivalence(sides, others, tmp_path) -> None:
    fresh = toy_dataset(tmp_path, 3)
    names = pa.array([f"fresh {name}" for name in fresh.table["patient_id"].to_pylist()])
    column = fresh.table.column_names.index("patient_id")
    fresh = Dataset(fresh.table.set_column(column, "patient_id", names), fresh.meta)
    report = evaluate(*sides, *others, QUICK, reference=fresh)
    assert "fresh_patients" in report.tables
    rules = {reason.metric for reason in report.verdict.reasons}
    names = {"mc_equivalence", "log_lr_equivalence", "abs_log_lr_equivalence"}
    assert names <= rules
    # A cell of which there are no fresh patients is not passed over.
    rows = np.asarray([str(cell) != "disc" for cell in fresh.cells], np.bool_)
    report = evaluate(*sides, *others, QUICK, reference=fresh.take(rows))
    missing = [r for r in report.verdict.failures if r.cell == "disc" and r.metric in names]
    assert {r.metric for r in missing} == names
    assert all("not trained on" in r.note for r in missing)


def test_progress_is_told_to_its_end(sides, others) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(*sides, *others, QUICK, progress=lambda *step: told.append(step))
    assert told[-1][1] == told[-1][2] == len(told) - 1


def test_wanted_counts_are_enough_for_everything(sides) -> None:
    train, holdout = sides
    wanted = wanted_counts(train, holdout, None)
    for cell, n in train.class_counts.items():
        assert wanted[str(cell)] >= max(n, holdout.class_counts[cell])


# -- bad input ------------------------------------------------------------------------------


def renamed(dataset: Dataset, **changes: object) -> Dataset:
    return Dataset(dataset.table, replace(dataset.meta, **changes))


def judge_with(sides: Sequence[Dataset], images: NDArray[np.float32], cells: list[str]) -> None:
    evaluate(sides[0], sides[1], images, cells, QUICK)


def test_shared_patients_and_foreign_keys_are_refused(sides, others) -> None:
    train, holdout = sides
    with pytest.raises(LeakageError, match="patients"):
        judge_with((train, train), *others)
    with pytest.raises(PseudonymKeysDiffer):
        judge_with((train, renamed(holdout, pseudonym_key="another")), *others)
    with pytest.raises(LeakageError):
        evaluate(train, holdout, *others, QUICK, reference=train)


def test_data_without_patients_are_refused(sides, others) -> None:
    nobody = [renamed(side, grouping=UNGROUPED) for side in sides]
    with pytest.raises(DataError, match="no patients"):
        judge_with(nobody, *others)


@pytest.mark.parametrize("bad", ["nan", "size", "number", "cell"])
def test_bad_synthetic_slices_are_refused(bad: str, sides, others) -> None:
    images, cells = others[0].copy(), list(others[1])
    if bad == "nan":
        images[3, 4, 5] = np.nan
    elif bad == "size":
        images = images[:, ::2, ::2]
    elif bad == "number":
        cells = cells[1:]
    else:
        cells[0] = "square"
    with pytest.raises(UnknownCell if bad == "cell" else DataError):
        judge_with(sides, images, cells)


def test_nothing_to_compare_is_refused(sides) -> None:
    with pytest.raises(DataError, match="no cell"):
        judge_with(sides, np.zeros((0, 32, 32), np.float32), [])
