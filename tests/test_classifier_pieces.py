"""Laws of the nested experiment's pieces: done once, resumed, leak nothing, chance on noise."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from test_arms import RULES, replayed

from downstream import classifier_pieces
from downstream.arms.catalogue import arms_named
from downstream.classifier_pieces import (
    Experiment,
    do_piece,
    opened,
    run_pieces,
    seconds_left,
    start,
    truths_of,
)
from downstream.fold import Fold, deal_patients, nested_fold
from downstream.judging import JudgeSettings, judge
from downstream.outcome import Outcome
from downstream.report import Judgement
from downstream.service import oracle_source
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.engines.tasks import map_in_processes
from fastgan_aug.errors import ConfigError, DataError, LeakageError

QUICK = DownstreamConfig(seeds=[0, 1, 2], steps=30, batch=32, width=6, bootstrap=100, folds=3)
NAMES = ("real", "real + synthetic")


@pytest.fixture(autouse=True)
def nothing_open() -> None:
    """Folds of one number are the same to the process's memory of the last one."""
    opened.cache_clear()


@dataclass(frozen=True)
class Opened:
    """A fold that lies in memory, with a source that copies training slices."""

    number: int
    dataset: Dataset = field(compare=False)
    opened: list[int] = field(default_factory=list, compare=False)

    def __call__(self) -> Fold:
        self.opened.append(self.number)
        dealt = deal_patients(self.dataset, "shape", 3, 0)
        fold = nested_fold(self.dataset, list(dealt[self.number]), self.number, 0, "shape")
        train = fold.train.take(fold.train.labelled)
        fold = replace(fold, synthetic=replayed(train), seen=SeenPatients.of(train))
        fold.check()
        return fold


class OpenedTooLong(Opened):
    """In the worker that opened it the time is over: no test has to wait until it is."""

    def __call__(self) -> Fold:
        classifier_pieces.time = SimpleNamespace(time=lambda: math.inf)  # type: ignore[assignment]
        return super().__call__()


def experiment_on(dataset: Dataset, out: Path, config: DownstreamConfig = QUICK) -> Experiment:
    out.mkdir(exist_ok=True)
    folds = [Opened(number, dataset) for number in range(3)]
    return Experiment(folds, arms_named(NAMES), config, RULES, out)


def judged(experiment: Experiment, dataset: Dataset) -> Judgement:
    classes = dataset.meta.space.factors[0].values
    report = judge(
        experiment.outcomes, truths_of(experiment), experiment.arms, classes,
        JudgeSettings(bootstrap=100),
    )  # fmt: skip
    return report.judgements[0]


def shuffled(dataset: Dataset, seed: int = 1) -> Dataset:
    """The data set with the labels of whole donors dealt anew."""
    donors, labels = dataset.column("patient_id").astype(str), dataset.column("shape")
    own = {d: v for d, v in zip(donors, labels, strict=True) if v is not None}
    moved = np.random.default_rng(seed).permutation(list(own.values()))
    given = dict(zip(own, map(str, moved), strict=True))
    values = [None if v is None else given[d] for d, v in zip(donors, labels, strict=True)]
    position = dataset.table.column_names.index("shape")
    column = pa.array(values, pa.string())
    return Dataset(dataset.table.set_column(position, "shape", column), dataset.meta)


def test_pieces_are_done_once_whatever_ends_them(toy: Dataset, tmp_path: Path) -> None:
    short = QUICK.model_copy(update={"steps": 2, "seeds": [0, 1]})
    experiment = experiment_on(toy, tmp_path, short)
    assert len(experiment.waiting) == len(experiment.pieces) == 3 * 2 * 2
    assert run_pieces(experiment, budget=0) == 12
    do_piece(experiment.pieces[0])
    written = experiment.pieces[0].path.stat().st_mtime_ns
    assert experiment.complete_seeds == []
    told: list[tuple[str, int, int]] = []
    assert run_pieces(experiment, progress=lambda *event: told.append(event)) == 0
    assert [done for _, done, _ in told] == list(range(2, 13))
    assert experiment.complete_seeds == [0, 1]
    assert experiment.pieces[0].path.stat().st_mtime_ns == written, "not done again"
    assert run_pieces(experiment) == 0
    assert {(o.fold, o.arm, o.seed) for o in experiment.outcomes} == {
        (k, name, seed) for k in range(3) for name in NAMES for seed in (0, 1)
    }
    assert seconds_left(experiment, experiment.folds[0]()) == 0


def test_pieces_that_wait_for_a_worker_are_not_begun_when_the_time_is_over(
    toy: Dataset, tmp_path: Path
) -> None:
    short = QUICK.model_copy(update={"steps": 1, "seeds": [0]})
    folds = [OpenedTooLong(number, toy) for number in range(3)]
    experiment = replace(experiment_on(toy, tmp_path, short), folds=folds)
    left = run_pieces(experiment, partial(map_in_processes, workers=2), budget=600)
    assert left == len(experiment.waiting)
    assert 1 <= 3 * 2 - left <= 2, "all were sent, a worker begins one"


def test_what_is_left_is_estimated_of_each_classifier(toy: Dataset, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"steps": 2, "classifiers": ["small-cnn", "boosting"]})
    experiment = experiment_on(toy, tmp_path, config)
    sample = experiment.folds[0]()
    assert seconds_left(experiment, sample) > 0, "measured"
    for name, seconds in (("small-cnn", 3.0), ("boosting", 50.0)):
        piece = next(p for p in experiment.pieces if p.classifier == name)
        do_piece(piece)
        replace(Outcome.read(piece.path), seconds=seconds).write(piece.path)
    each = 3 * 2 * 3 - 1  # of folds, arms and seeds
    assert seconds_left(experiment, sample) == each * 3 + each * 50


@pytest.mark.parametrize(
    ("name", "each_step", "expected"),
    [("small-cnn", 0.5, 2.5 + 399 * 0.5), ("small-cnn", -0.1, 1.9), ("boosting", 0.5, 2.5)],
)
def test_an_estimate_is_of_a_process_that_has_started(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, each_step: float,
    expected: float,
) -> None:  # fmt: skip
    """Its first fit takes longer, by imports; by chance more steps may take less time."""
    config = QUICK.model_copy(update={"steps": 400, "classifiers": [name], "seeds": [0]})
    experiment = replace(experiment_on(toy, tmp_path, config), arms=arms_named(["real"]))
    first = [60.0]

    def fit(*given: object) -> SimpleNamespace:
        steps = given[5].steps  # type: ignore[attr-defined]
        return SimpleNamespace(seconds=2 + each_step * steps + (first.pop() if first else 0))

    monkeypatch.setattr(classifier_pieces, "fit_and_predict", fit)
    assert seconds_left(experiment, experiment.folds[0]()) == pytest.approx(3 * expected)


FRESH = """
import sys
from pathlib import Path
from fastgan_aug.data.dataset import Dataset
from downstream.classifier_pieces import fitted
from test_classifier_pieces import QUICK, arms_named, experiment_on, replace, seconds_left

folder = Path(sys.argv[1])
config = QUICK.model_copy(update={"steps": 400, "classifiers": ["boosting"], "seeds": [0]})
experiment = experiment_on(Dataset.read(folder / "toy.parquet"), folder / "out", config)
experiment = replace(experiment, arms=arms_named(["real"]))
print(seconds_left(experiment, experiment.folds[0]()))
print(sum(fitted(piece).seconds for piece in experiment.pieces))
"""


def test_a_fresh_process_estimates_what_its_fits_take(toy: Dataset, tmp_path: Path) -> None:
    toy.write(tmp_path / "toy.parquet")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    told = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path], env=os.environ | {"PYTHONPATH": path}, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    estimated, took = map(float, told.split())
    assert 0 < estimated < 5 * took


def test_a_fold_is_opened_once_for_its_pieces_of_a_seed(toy: Dataset, tmp_path: Path) -> None:
    experiment = experiment_on(toy, tmp_path, QUICK.model_copy(update={"steps": 1}))
    run_pieces(experiment)
    assert [len(fold.opened) for fold in experiment.folds] == [3, 3, 3]  # type: ignore[attr-defined]


def test_what_a_budget_leaves_is_complete_seeds(toy: Dataset, tmp_path: Path) -> None:
    experiment = experiment_on(toy, tmp_path, QUICK.model_copy(update={"steps": 1}))
    for done, piece in enumerate(experiment.pieces):
        assert experiment.complete_seeds == list(range(done // (3 * 2)))
        do_piece(piece)
    assert experiment.complete_seeds == [0, 1, 2]


def test_a_folder_of_another_experiment_is_refused(toy: Dataset, tmp_path: Path) -> None:
    experiment = experiment_on(toy, tmp_path)
    start(experiment, [{"train": "a"}])
    start(replace(experiment, config=QUICK.model_copy(update={"seeds": [7]})), [{"train": "a"}])
    with pytest.raises(ConfigError, match="folds"):
        start(experiment, [{"train": "b"}])
    start(experiment, [{"train": "a"}, {"train": "c"}])  # a further fold
    start(experiment, [{"train": "a"}])
    with pytest.raises(ConfigError, match="folds"):
        start(experiment, [{"train": "a"}, {"train": "b"}])
    longer = QUICK.model_copy(update={"steps": 31})
    with pytest.raises(ConfigError, match="config"):
        start(replace(experiment, config=longer), [{"train": "a"}])


def test_random_labels_give_chance_and_true_ones_are_learnt(toy: Dataset, tmp_path: Path) -> None:
    """The toy has too few patients for a verdict: ``test_nested_leakage`` asks for those."""
    found = judged(_run(shuffled(toy), tmp_path / "noise"), toy)
    for arm in found.arms:
        assert arm.balanced_accuracy.low <= 0.25 <= arm.balanced_accuracy.high, arm.name
    learnt = judged(_run(toy, tmp_path / "truth"), toy)
    assert max(arm.balanced_accuracy.value for arm in learnt.arms) > 0.6


def _run(dataset: Dataset, out: Path) -> Experiment:
    experiment = experiment_on(dataset, out)
    run_pieces(experiment)
    return experiment


def test_the_oracle_gives_fresh_patients_of_the_cells_that_are_asked(toy: Dataset) -> None:
    fold = Opened(0, toy)()
    with pytest.raises(LeakageError):
        oracle_source(toy, fold.train)
    fresh, trained = fold.test.take(fold.test.labelled), fold.train
    source = oracle_source(fresh, trained)
    batch = source({"disc": 3, "cross": 1}, {"disc": 5, "cross": 3}, 0)
    assert sorted(batch.cells) == ["cross", "cross", "disc", "disc"]
    again = source({"disc": 3, "cross": 1}, {"disc": 5, "cross": 3}, 0)
    assert np.array_equal(batch.images, again.images)
    rows = {image.tobytes() for image in fresh.images}
    assert all(image.tobytes() in rows for image in batch.images)
    with pytest.raises(DataError, match="larger pool"):
        source({"cross": 0}, {"cross": 10_000}, 0)
