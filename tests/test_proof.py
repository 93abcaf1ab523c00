"""Laws of `benchmarks.proof` that need no phantom."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_classifier_pieces import experiment_on

from benchmarks.proof import run_setting
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import ConfigError


@pytest.mark.parametrize("name", ["validation", "test", "oracle"])
def test_predictions_are_not_held_against_a_set_that_was_drawn_anew(
    toy: Dataset, tmp_path: Path, name: str
) -> None:
    experiment = experiment_on(toy, tmp_path)
    fresh = {"validation": "a", "test": "b", "oracle": "c"}
    record = {"checkpoint_digest": "d", "fresh": fresh}
    for _ in range(2):
        assert run_setting(experiment, [record], 1, budget=0) is None, "the same goes on"
    with pytest.raises(ConfigError, match="folds"):
        run_setting(experiment, [record | {"fresh": fresh | {name: "e"}}], 1, budget=0)
