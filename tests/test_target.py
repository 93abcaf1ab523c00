"""Laws of labels and targets, each held against imbalanced-learn itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.utils import check_sampling_strategy

from fastgan_aug.conditions import Cell
from fastgan_aug.errors import BalanceError
from fastgan_aug.target import STRATEGIES, count_labels, desired

numbers = st.dictionaries(st.integers(-5, 120), st.integers(1, 9), min_size=2, max_size=6)
texts = st.dictionaries(
    st.text("ab/Z ", min_size=1, max_size=3), st.integers(1, 9), min_size=2, max_size=6
)


def labels_of(counts):
    return np.repeat(list(counts), list(counts.values()))


def made_here(counts, target):
    """How many are made of each class, by what is desired here."""
    present = count_labels(labels_of(counts))
    wanted = desired(present, target)
    return {key: n - present[key] for key, n in wanted.items() if n > present[key]}


def made_there(counts, target):
    found = check_sampling_strategy(target, labels_of(counts), "over-sampling")
    return {str(key): int(n) for key, n in found.items() if n}


@settings(deadline=None)
@given(numbers | texts, st.sampled_from([s for s in STRATEGIES if s != "majority"]))
def test_the_words_mean_what_they_mean_in_imbalanced_learn(counts, word):
    assert made_here(counts, word) == made_there(counts, word)


@settings(deadline=None)
@given(texts, st.data())
def test_a_mapping_means_what_it_means_in_imbalanced_learn(counts, data):
    named = data.draw(st.sets(st.sampled_from(sorted(counts)), min_size=1))
    target = {key: counts[key] + data.draw(st.integers(0, 5)) for key in sorted(named)}
    assert made_here(counts, target) == made_there(counts, target)


def test_majority_alone_differs_it_fills_every_class():
    counts = {"a": 5, "b": 3, "c": 1}
    assert desired(counts, "majority") == desired(counts, "all") == dict.fromkeys(counts, 5)
    with pytest.raises(ValueError, match="cannot be used with over-sampler"):
        made_there(counts, "majority")


@pytest.mark.parametrize("target", [{"odd": 5}, {"left": -1}, {"none": 40, "left": 9}])
def test_the_three_errors_are_word_for_word_those_of_imbalanced_learn(target):
    present = {"none": 30, "left": 10}
    with pytest.raises(ValueError, match="class") as there:
        made_there(present, target)
    with pytest.raises(BalanceError) as here:
        desired(present, target)
    assert here.value.what == str(there.value)
    assert here.value.allowed
    assert here.value.do


def test_several_absent_classes_are_named_in_order():
    with pytest.raises(BalanceError) as caught:
        desired({"a": 1}, {"z": 1, "b": 1})
    assert caught.value.what == "The {'b', 'z'} target class is/are not present in the data."


@pytest.mark.parametrize("target", ["minor", "", None, 30.0, True, [30], {"a": 1.5}])
def test_no_target(target):
    with pytest.raises(BalanceError):
        desired({"a": 30}, target)


@pytest.mark.parametrize(
    "labels",
    [
        ["a", "b", "a"],
        np.asarray(["a", "b", "a"]),
        np.asarray(["a", "b", "a"], object),
        pd.Series(["a", "b", "a"], index=[7, 7, 9]),
        pd.Series(["a", "b", "a"], dtype="category"),
        pd.Series(["a", "b", "a"], dtype="string"),
        (letter for letter in "aba"),
        [Cell(("a",)), ("b",), "a"],
    ],
)
def test_texts_are_counted_whatever_holds_them(labels):
    assert count_labels(labels) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    "labels",
    [
        [3, 1, 3],
        np.asarray([3, 1, 3]),
        list(np.asarray([3, 1, 3], np.int8)),
        torch.tensor([3, 1, 3]),
        pd.Series([3, 1, 3], dtype="Int64"),
    ],
)
def test_integers_are_counted_whatever_holds_them(labels):
    assert count_labels(labels) == {"3": 2, "1": 1}


def test_a_row_of_values_is_a_cell():
    rows = np.asarray([["LOW", "none"], ["LOW", "left"], ["LOW", "none"]])
    assert count_labels(rows) == {"LOW/none": 2, "LOW/left": 1}


@pytest.mark.parametrize(
    "labels",
    ["LOW/none", 7, np.asarray(7), ["a", None], ["a", float("nan")], [("a", None)],
     pd.Series(["a", None]), pd.Series(["a", pd.NA], dtype="string"), np.asarray([1.0, np.nan])],
)  # fmt: skip
def test_labels_that_are_none(labels):
    with pytest.raises(BalanceError):
        count_labels(labels)
