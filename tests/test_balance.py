"""Laws of the plan."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_aug.balance import BalancePlan, plan, share
from fastgan_aug.errors import BalanceError, UnknownCell, UnseenCell
from fastgan_aug.target import STRATEGIES

CELLS = [f"{level}/{pattern}" for level in ("LOW", "HIGH") for pattern in ("none", "left", "both")]
TRAINING = dict(zip(CELLS, (30, 10, 0, 20, 8, 4), strict=True))
SEEN = [cell for cell in CELLS if TRAINING[cell]]
ROOM = {"cells": CELLS, "training_counts": TRAINING}

counts_by_cell = st.dictionaries(st.sampled_from(SEEN), st.integers(0, 500), min_size=1)
counts_by_value = st.dictionaries(
    st.sampled_from(("none", "left", "both")), st.integers(0, 500), min_size=1
)
ratios = st.none() | st.floats(0, 3) | st.integers(0, 3)


@settings(deadline=None)
@given(counts_by_cell | counts_by_value, st.just("majority") | st.integers(500, 900), ratios)
def test_present_and_generated_meet_the_target_or_a_reason_is_given(counts, target, ratio):
    made = plan(counts, target, max_ratio=ratio, **ROOM)
    wanted = max(counts.values()) if target == "majority" else target
    assert list(made.asked) == list(counts)
    for key, row in made.asked.items():
        assert (row.present, row.target, row.seen) == (counts[key], wanted, True)
        assert 0 <= row.generate <= row.target - row.present
        assert (row.present + row.generate == row.target) == (row.reason == "")
    assert sum(made.generate.values()) == sum(row.generate for row in made.asked.values())
    assert made.total_generate == sum(made.generate.values())
    if ratio is not None:
        assert made.total_generate <= Fraction(str(ratio)) * sum(counts.values())
    if ratio is None:
        assert not made.short
        assert bool(made.warnings) == (made.total_generate > sum(counts.values()))


@settings(deadline=None)
@given(counts_by_value, st.integers(500, 900))
def test_a_value_follows_the_training_distribution_and_takes_no_unseen_cell(counts, target):
    made = plan(counts, target, **ROOM)
    assert list(made.generate) == [cell for cell in CELLS if cell in made.generate]
    for value, row in made.asked.items():
        members = [cell for cell in CELLS if cell.endswith("/" + value)]
        total = sum(TRAINING[cell] for cell in members)
        for cell in members:
            exact = Fraction(row.generate * TRAINING[cell], total)
            assert abs(made.generate.get(cell, 0) - exact) < 1
            assert TRAINING[cell] or cell not in made.generate


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_shares_sum_up_and_never_exceed_what_is_missing(weights, data):
    total = data.draw(st.integers(0, sum(weights)))
    parts = share(total, weights)
    assert sum(parts) == total
    assert all(0 <= part <= weight for part, weight in zip(parts, weights, strict=True))


@settings(deadline=None)
@given(counts_by_cell, ratios)
def test_a_plan_survives_json(counts, ratio):
    made = plan(counts, "majority", max_ratio=ratio, **ROOM)
    assert BalancePlan.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_the_table_tells_what_each_key_has_wants_and_gets_and_why():
    made = plan({"none": 50, "left": 18, "both": 4}, {"left": 20, "both": 5}, **ROOM)
    assert made.rows() == [
        ("none", 50, 50, 0, "has what it wants"),
        ("left", 18, 20, 2, "filled: LOW/left 1, HIGH/left 1"),
        ("both", 4, 5, 1, "filled: HIGH/both 1"),
    ]
    lines = str(made).splitlines()
    assert lines[0].split() == ["cell", "has", "wants", "gets", "why"]
    assert lines[4].split() == ["total", "72", "75", "3"]
    unseen = plan({"LOW/both": 0}, 3, allow_unseen=True, max_ratio=0, **ROOM)
    assert unseen.rows()[0][4].startswith("max_ratio 0 allows 0")
    alone = plan({"LOW/none": 1, "LOW/both": 0}, allow_unseen=True, target="all", **ROOM)
    assert alone.rows()[1][4] == "filled; unseen in training"
    assert "max_ratio bounds it" in str(plan({"LOW/none": 1}, 9, **ROOM)).splitlines()[-1]


@settings(deadline=None)
@given(counts_by_cell, st.sampled_from(STRATEGIES))
def test_a_word_fills_to_the_largest_count_and_never_takes_away(counts, word):
    made = plan(counts, word, **ROOM)
    largest = max(counts.values())
    assert all(row.target in (row.present, largest) for row in made.asked.values())
    assert made.total_generate <= plan(counts, "majority", **ROOM).total_generate


def test_a_mapping_fills_what_it_names_and_leaves_the_rest():
    made = plan({"LOW/none": 30, "LOW/left": 10}, {"LOW/left": 25}, **ROOM)
    assert dict(made.generate) == {"LOW/left": 15}
    assert (made.asked["LOW/none"].target, made.asked["LOW/none"].generate) == (30, 0)


def test_a_one_factor_space_has_cells_without_a_separator():
    made = plan({"a": 3, "b": 1}, "majority", cells=["a", "b"], training_counts={"a": 3, "b": 1})
    assert dict(made.generate) == {"b": 2}


PRESENT = {"LOW/none": 30, "LOW/left": 10}


@pytest.mark.parametrize(
    ("counts", "target", "error"),
    [
        ({}, "majority", BalanceError),
        ({"LOW/none": -1}, "majority", BalanceError),
        ({"LOW/none": 1.5}, "majority", BalanceError),
        ({"LOW/none": True}, "majority", BalanceError),
        ({"LOW/none": 1, "none": 1}, "majority", BalanceError),
        ({"LOW": 1, "none": 1}, "majority", BalanceError),
        ({"LOW/none": 30}, 29, BalanceError),
        ({"LOW/none": 30}, 30.0, BalanceError),
        ({"LOW/none": 30}, "minor", BalanceError),
        ({"LOW/none": 30}, None, BalanceError),
        ({"LOW/odd": 1}, "majority", UnknownCell),
        ({"none/LOW": 1}, "majority", UnknownCell),
        ({"LOW/both": 1}, 2, UnseenCell),
    ],
)
def test_bad_requests_have_their_error(counts, target, error):
    with pytest.raises(error) as caught:
        plan(counts, target, **ROOM)
    assert caught.value.what
    assert caught.value.allowed
    assert caught.value.do


@pytest.mark.parametrize("ratio", [-1, float("nan"), float("inf"), "1", True])
def test_a_bad_ratio_has_its_error(ratio):
    with pytest.raises(BalanceError):
        plan(PRESENT, "majority", max_ratio=ratio, **ROOM)


def test_a_value_of_two_factors_is_ambiguous():
    with pytest.raises(UnknownCell, match="value of 2 factors"):
        plan({"x": 1}, 2, cells=["x/y", "y/x"], training_counts={})


def test_unseen_cells_on_request_are_marked():
    made = plan({"LOW/both": 1, "LOW/left": 1}, 3, allow_unseen=True, **ROOM)
    assert not made.asked["LOW/both"].seen
    assert made.asked["LOW/left"].seen
    assert dict(made.generate) == {"LOW/left": 2, "LOW/both": 2}


def test_an_unseen_cell_that_needs_nothing_is_no_error():
    assert plan({"LOW/both": 2}, "majority", **ROOM).total_generate == 0
