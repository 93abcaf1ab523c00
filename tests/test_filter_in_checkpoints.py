"""A fit keeps a filter of the predicted factor in its checkpoints."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from toy import toy_dataset

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, training_part, validation_part
from fastgan_aug.gan.checkpoint import FILTER, checkpoints, read_meta
from fastgan_aug.quality.likeness.features import fixed_view
from fastgan_aug.quality.sample_filter import SampleFilter
from serving.offline import OfflineClient


@pytest.mark.parametrize(("factor", "classes"), [(None, 2), ("shape", 4)])
def test_a_fit_keeps_its_filter_in_every_checkpoint(
    factor: str | None, classes: int, tmp_path: Path
) -> None:
    """The same one in each, of the factor that is predicted; no test or validation patients."""
    config = Config.of(
        {
            "name": "toy", "data": {"test_fraction": 0.25},
            "network": {"size": 32, "latent": 8, "embedding": 8, "generator_width": 4,
                        "discriminator_width": 4},
            "training": {"images": 32, "batch": 8, "checkpoint_every": 16, "keep": 2},
            "selection": {"filter": True, "samples": 0, "validation_fraction": 0.25},
            "engine": {"kind": "local", "workers": 1}, "downstream": {"factor": factor},
        }
    )  # fmt: skip
    dataset = with_second_factor(toy_dataset(tmp_path))
    train, _ = training_part(config, dataset)
    result = local.fit(FitJob(config, train, tmp_path / "run"), lambda *_: None)
    found = [read_meta(folder).files[FILTER] for folder in checkpoints(tmp_path / "run")]
    assert len(found) == 2
    assert len(set(found)) == 1
    assert OfflineClient(result.checkpoint).model()["filter"] == found[0]
    kept = SampleFilter.load(result.checkpoint / FILTER)
    seen, _ = validation_part(config, train)
    assert 0 < seen.labelled.sum() < train.labelled.sum() < dataset.labelled.sum()
    assert np.array_equal(kept.features, kept.view(seen.images[seen.labelled]))
    assert np.array_equal(kept.view.standard.mean, fixed_view(seen).standard.mean)
    position = -1 if factor is None else dataset.meta.space.names.index(factor)
    assert kept.classes.max() + 1 == classes
    for one, other in itertools.product(range(len(dataset.meta.space.cells)), repeat=2):
        alike = [dataset.meta.space.cells[cell].values[position] for cell in (one, other)]
        assert (kept.classes[one] == kept.classes[other]) == (alike[0] == alike[1])


def with_second_factor(dataset: Dataset) -> Dataset:
    """The set with one more factor, last, of two values that have nothing to do with the first."""
    space = ConditionSpace.of({"shape": ["disc", "ring", "bar", "cross"], "half": ["A", "B"]})
    halves = pa.array(np.where(np.arange(len(dataset.table)) % 2, "A", "B"))
    table = dataset.table.append_column("half", halves)
    return Dataset(table, replace(dataset.meta, space=space))
