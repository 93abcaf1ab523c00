"""Laws of the recognition of cells, both ways."""

from __future__ import annotations

import numpy as np
import pytest
from test_classifier import bars

from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import FitSettings
from fastgan_aug.quality.likeness.recognition import (
    NAMES,
    Pictures,
    fit_recogniser,
    recognition_metrics,
)
from fastgan_aug.quality.metric import OVERALL

SPACE = ["none", "left", "right", "both"]
SETTINGS = FitSettings(60, 32, width=4)


@pytest.fixture(scope="module")
def sides() -> list[Pictures]:
    """Three times slices of the same three cells, positions 1 to 3 of the space."""
    return [Pictures(images, labels + 1) for images, labels in (bars(seed=s) for s in (1, 2, 3))]


def test_slices_of_their_own_cell_are_recognised_and_others_are_not(sides: list[Pictures]) -> None:
    train, real, made = sides
    known, learnt = (fit_recogniser(side, SETTINGS, seed=0) for side in (train, made))
    found = recognition_metrics(known, learnt, real, made, SPACE, delta=0.1)
    assert {m.cell for m in found} == {OVERALL, *SPACE[1:]}
    assert all(m.holds for m in found if m.cell == OVERALL)
    moved = Pictures(made.images, made.cells % 3 + 1)
    wrong = recognition_metrics(known, learnt, real, moved, SPACE, delta=0.1)
    assert [m.holds for m in wrong if (m.name, m.cell) == (NAMES[0], OVERALL)] == [False]


def test_a_cell_that_cannot_be_recognised_is_unjudged(sides: list[Pictures]) -> None:
    train, real, made = sides
    known = fit_recogniser(train, FitSettings(1, 8, width=4), seed=0)
    rows = np.flatnonzero(made.cells != 3)
    less = recognition_metrics(known, known, real, made.take(rows), SPACE, delta=0.1,
                               why_not={"both": "why"})  # fmt: skip
    assert [(m.name, m.note) for m in less if m.cell == "both"] == [(n, "why") for n in NAMES]
    assert all("without both" in m.note for m in less if m.cell == OVERALL)
    nothing = Pictures(made.images[:4], np.zeros(4, np.int64))
    none = recognition_metrics(known, known, real, nothing, SPACE, delta=0.1)
    assert [(m.name, m.cell) for m in none] == [(n, OVERALL) for n in NAMES]
    assert all(np.isnan(m.value) for m in none)


def test_nothing_to_learn_from_is_refused(sides: list[Pictures]) -> None:
    with pytest.raises(DataError, match="no slice"):
        fit_recogniser(sides[0].take(np.zeros(0, np.int64)), SETTINGS, seed=0)
