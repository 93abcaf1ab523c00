from __future__ import annotations

import numpy as np
import pytest

from fastgan_aug.conditions import Cell, ConditionSpace
from fastgan_aug.errors import ConfigError, UnknownCell

SPACE = ConditionSpace.of({"colour": ["red", "blue"], "shape": ["disc", "ring", "bar"]})


def test_cells_are_the_product_with_the_last_factor_fastest():
    assert [str(c) for c in SPACE.cells][:4] == ["red/disc", "red/ring", "red/bar", "blue/disc"]


def test_a_cell_s_text_names_it():
    for cell in SPACE.cells:
        assert SPACE.parse(str(cell)) == cell
        assert SPACE.cells[SPACE.index(cell)] == cell


def test_a_vector_has_one_one_per_factor_and_differs_between_cells():
    vectors = SPACE.vectors
    assert vectors.shape == (6, SPACE.dimension) == (6, 5)
    assert (vectors.sum(1) == 2).all()
    assert len(np.unique(vectors, axis=0)) == 6


def test_a_factor_with_one_value_takes_no_element():
    space = ConditionSpace.of({"level": ["COR"], "pattern": ["n", "u", "b"]})
    np.testing.assert_array_equal(space.vectors, np.eye(3))
    assert ConditionSpace.of({"only": ["one"]}).vectors.tolist() == [[1.0]]


def test_a_space_survives_its_dictionary():
    assert ConditionSpace.of(SPACE.to_dict()) == SPACE


@pytest.mark.parametrize("text", ["red", "disc/red", "red/disc/x", "", "green/disc"])
def test_an_unknown_cell_is_refused_with_the_allowed_ones(text: str):
    with pytest.raises(UnknownCell, match="red/disc"):
        SPACE.parse(text)


@pytest.mark.parametrize("factors", [{}, {"a": []}, {"a": ["x", "x"]}, {"a": [""]}, {"a": ["b/c"]}])
def test_a_space_without_clear_values_is_refused(factors: dict[str, list[str]]):
    with pytest.raises(ConfigError):
        ConditionSpace.of(factors)


def test_cells_sort_and_hash_by_value():
    assert len({Cell(("a",)), Cell(("a",))}) == 1
    assert sorted([Cell(("b",)), Cell(("a",))])[0] == Cell(("a",))
