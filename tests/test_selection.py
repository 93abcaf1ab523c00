"""The score that chooses a checkpoint: laws of its ranking, and of the run it watches."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gan_toy import Recording, toy_data, toy_state
from safetensors.torch import load_file
from scipy import ndimage
from test_local_engine import toy_config

from fastgan_aug.config import Config
from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, score_run, training_part, validation_part
from fastgan_aug.engines.scoring import (
    SCORES,
    best_checkpoint,
    kept_scores,
    read_scores,
    write_scores,
)
from fastgan_aug.errors import CheckpointError, ConfigError, DataError
from fastgan_aug.gan.checkpoint import GENERATOR, STATE, checkpoints, read_meta
from fastgan_aug.gan.settings import TrainingConfig
from fastgan_aug.gan.training import train
from fastgan_aug.quality.selection import CellScore, Judge, Score, exhausted, ranked

CELL = CellScore("disc", 0.1, 1.0, 0.0, 0.1)


def score(images: int, value: float, share: float | None = None) -> Score:
    chance = None if share is None else 0.55
    return Score(images, f"{images:064d}", value, (CELL,), share, chance, "validation")


def selecting(images: int = 96, **selection: object) -> Config:
    values = toy_config(images=images).to_dict()
    values["selection"] |= selection
    return Config.of(values)


@pytest.fixture(scope="module")
def parts(toy: Dataset) -> tuple[Dataset, Dataset]:
    return split_by_patient(toy, 0.4, 0)


def played(dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    cells = [str(c) for c in itertools.compress(dataset.cells, dataset.labelled)]
    return dataset.images[dataset.labelled], cells


def fit(config: Config, toy: Dataset, folder: Path, *, resume: bool = False) -> Path:
    job = FitJob(config, training_part(config, toy)[0], folder, resume=resume)
    return local.fit(job, lambda seen, values: None).checkpoint


# -- the score ---------------------------------------------------------------------------------


def test_other_real_slices_score_best_and_every_fault_scores_worse(
    parts: tuple[Dataset, Dataset],
) -> None:
    judge = Judge(parts[0], parts[1], 2)
    images, cells = played(parts[1])
    good = judge.compare(images, cells, 0, "").value
    assert good < 0.1
    blurred = ndimage.gaussian_filter(images, (0, 1.5, 1.5))
    dim = np.clip(images, 0, None) ** 1.3
    other_cells = cells[::-1]
    assert judge.compare(blurred, cells, 0, "").value > good + 0.1
    assert judge.compare(dim, cells, 0, "").value > good + 0.1
    assert judge.compare(images, other_cells, 0, "").value > good + 0.1
    assert judge.compare(np.zeros_like(images), cells, 0, "").value > good + 1


def test_the_reasons_are_in_natural_units(parts: tuple[Dataset, Dataset]) -> None:
    judge = Judge(parts[0], parts[1], 2)
    images, cells = played(parts[1])
    found = judge.compare(images, cells, 7, "d")
    assert [c.cell for c in found.cells] == [str(c) for c in judge.cells]
    for cell in found.cells:
        assert cell.mc == pytest.approx(1)
        assert cell.asymmetry == pytest.approx(0)
    assert found.worst.value == max(c.value for c in found.cells)
    assert Score.of(json.loads(json.dumps(found.to_dict()))) == found


def test_a_copier_is_told_from_validation_patients_and_comes_last(
    parts: tuple[Dataset, Dataset],
) -> None:
    judge = Judge(parts[0], parts[1], 2)
    copies = judge.compare(*played(parts[0]), 1, "copies")
    honest = judge.compare(*played(parts[1]), 2, "honest")
    assert copies.nn_share is not None
    assert copies.nn_share > 0.7  # not all training slices are in each balanced draw
    assert copies.memorises
    assert not honest.memorises
    assert ranked([copies, replace(honest, value=100.0)])[0].checkpoint == "honest"


def test_without_validation_patients_it_says_so(parts: tuple[Dataset, Dataset]) -> None:
    found = Judge(parts[0], None, 2).compare(*played(parts[0]), 0, "")
    assert (found.reference, found.nn_share, found.memorises) == ("training", None, False)


def test_cells_without_two_patients_are_left_out(parts: tuple[Dataset, Dataset]) -> None:
    train_part, validation = parts
    crosses = validation.labelled & np.asarray([str(c) == "cross" for c in validation.cells])
    first = validation.column("patient_id")[crosses][0]
    one_cross = validation.take(~crosses | (validation.column("patient_id") == first))
    assert "cross" not in map(str, Judge(train_part, one_cross, 2).cells)


# -- ranking and stopping --------------------------------------------------------------------------


def test_ranking_takes_the_smaller_score_then_the_earlier() -> None:
    scores = [score(30, 0.2), score(10, 0.5), score(20, 0.2), score(40, 0.1, share=0.9)]
    assert [s.images_seen for s in ranked(scores)] == [20, 30, 10, 40]


@pytest.mark.parametrize(
    ("values", "patience", "ends"),
    [
        ([3, 2, 1], 1, False),
        ([3, 1, 2], 1, True),
        ([1, 2, 3], 3, False),
        ([1, 2, 3, 4], 3, True),
        ([1, 2, 3, 4], 0, False),
        ([], 1, False),
    ],
)
def test_patience_counts_scorings_without_a_better_one(
    values: list[float], patience: int, ends: bool
) -> None:
    assert exhausted([score(10 * i, v) for i, v in enumerate(values)], patience) is ends


def test_memorisation_that_rises_ends_a_run_whose_distance_still_falls() -> None:
    falling = [score(1, 3, 0.5), score(2, 2, 0.52), score(3, 1, 0.7), score(4, 0.5, 0.8)]
    assert exhausted(falling, 2)
    assert not exhausted([replace(s, nn_share=0.5) for s in falling], 2)


def test_one_observer_ends_the_training_at_a_checkpoint() -> None:
    training = TrainingConfig(images=96, batch=8, log_every=16, checkpoint_every=32)
    state, observer = toy_state(training), Recording(stop_after=1)
    train(state, toy_data(), AugmentConfig(), training, observer)
    assert observer.checkpoints == [32]
    train(state, toy_data(), AugmentConfig(), training, observer)
    assert observer.checkpoints == [32]


# -- the run -----------------------------------------------------------------------------------


def test_scoring_changes_no_weight(toy: Dataset, tmp_path: Path) -> None:
    scored = fit(selecting(samples=4), toy, tmp_path / "scored")
    plain = fit(selecting(samples=0), toy, tmp_path / "plain")
    for name in (GENERATOR, STATE):
        ours, theirs = load_file(scored / name), load_file(plain / name)
        assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert not (tmp_path / "plain" / SCORES).exists()
    assert [s.images_seen for s in read_scores(tmp_path / "scored")] == [32, 64, 96]


def test_the_best_stays_beside_the_newest(toy: Dataset, tmp_path: Path) -> None:
    config = Config.of(
        selecting(best=1).to_dict()
        | {"training": toy_config(images=160).to_dict()["training"] | {"keep": 1}}
    )
    fit(config, toy, tmp_path / "run")
    scores = read_scores(tmp_path / "run")
    best = ranked(scores)[0]
    assert {p.name for p in checkpoints(tmp_path / "run")} == {
        "images-000000160",
        f"images-{best.images_seen:09d}",
    }
    chosen = best_checkpoint(tmp_path / "run")
    assert chosen is not None
    assert read_meta(chosen).digest == best.checkpoint


def test_a_resumed_run_has_the_whole_ones_scores(toy: Dataset, tmp_path: Path) -> None:
    fit(selecting(128, best=2), toy, tmp_path / "whole")
    fit(selecting(64, best=2), toy, tmp_path / "resumed")
    (tmp_path / "resumed" / SCORES).unlink()  # killed before it was written: both are scored again
    fit(selecting(128, best=2), toy, tmp_path / "resumed", resume=True)
    ours, theirs = (read_scores(tmp_path / name) for name in ("resumed", "whole"))
    assert [(s.images_seen, s.cells) for s in ours] == [(s.images_seen, s.cells) for s in theirs]
    assert [p.name for p in checkpoints(tmp_path / "resumed")] == [
        p.name for p in checkpoints(tmp_path / "whole")
    ]


def test_a_run_ends_early_and_a_resumed_one_stays_ended(toy: Dataset, tmp_path: Path) -> None:
    values = selecting(patience=1, best=1).to_dict()
    stuck = {"generator_learning_rate": 1e-13, "discriminator_learning_rate": 1e-13}
    values["training"] |= stuck | {"images": 9_600}
    config = Config.of(values)
    newest = fit(config, toy, tmp_path / "run")
    scores = read_scores(tmp_path / "run")
    assert exhausted(scores, 1)
    assert scores[-1].images_seen < 1_000
    assert fit(config, toy, tmp_path / "run", resume=True) == newest


def test_validation_patients_choose_but_are_not_trained_on(toy: Dataset, tmp_path: Path) -> None:
    config = selecting(validation_fraction=0.3)
    given, _ = training_part(config, toy)
    fitted, validation = validation_part(config, given)
    assert validation is not None
    assert not set(fitted.patients) & set(validation.patients)
    checkpoint = fit(config, toy, tmp_path / "run")
    lineage = read_meta(checkpoint).lineage
    assert lineage.class_counts == {str(c): n for c, n in fitted.class_counts.items()}
    assert lineage.patient_digests == given.patient_digests
    assert read_scores(tmp_path / "run")[-1].reference == "validation"
    with pytest.raises(CheckpointError, match=r"selection\.validation_fraction"):
        fit(selecting(200), toy, tmp_path / "run", resume=True)


def test_old_runs_are_scored_later_as_they_would_have_been(toy: Dataset, tmp_path: Path) -> None:
    fit(selecting(samples=4), toy, tmp_path / "run")
    before = read_scores(tmp_path / "run")
    write_scores(tmp_path / "run", [])
    assert kept_scores(tmp_path / "run") == []
    assert score_run(tmp_path / "run", toy) == before[-2:]  # the first was not kept
    with pytest.raises(DataError, match="not trained on this data set"):
        score_run(tmp_path / "run", toy.of_patients(toy.patients[5:]))


def test_a_damaged_checkpoint_is_passed_over(toy: Dataset, tmp_path: Path) -> None:
    fit(selecting(samples=4), toy, tmp_path / "run")
    write_scores(tmp_path / "run", [])
    (checkpoints(tmp_path / "run")[0] / GENERATOR).write_bytes(b"broken")
    assert [s.images_seen for s in score_run(tmp_path / "run", toy)] == [96]


def test_damaged_scores_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / SCORES).write_text("[{]")
    with pytest.raises(CheckpointError, match="select RUN --data DATA"):
        read_scores(tmp_path)


def test_one_sample_has_no_distance() -> None:
    with pytest.raises(ConfigError, match=r"selection\.samples = 1"):
        Config.of({"name": "x", "selection": {"samples": 1}})
