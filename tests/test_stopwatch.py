from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_local_engine import toy_config

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.stopwatch import TIMES, RunTimes, Stopwatch, Times
from fastgan_aug.errors import CheckpointError
from fastgan_aug.gan.checkpoint import read_meta


def running(folder: Path, budget: float | None = None, ago: float = 0.0) -> Stopwatch:
    watch = Stopwatch(folder, budget, time.time() - ago)
    watch.left()
    return watch


def test_it_runs_from_the_first_look_on(tmp_path: Path) -> None:
    watch = Stopwatch(tmp_path, 5.0, time.time() - 30)
    assert watch.seconds == 0
    assert 4.9 < watch.left() <= 5
    watch.keep(8)
    assert 29 < RunTimes.read(tmp_path).start < 32
    assert running(tmp_path).left() == math.inf


def test_a_part_inside_another_counts_once(tmp_path: Path) -> None:
    watch = running(tmp_path)
    with watch.timing("checkpoint"):
        time.sleep(0.1)
        with watch.timing("report"):
            time.sleep(0.2)
    watch.keep(8)
    last = RunTimes.read(tmp_path).last
    assert 0.1 <= last.checkpoint < 0.2 <= last.report
    assert last.checkpoint + last.report <= last.seconds
    assert last.overhead == pytest.approx((last.checkpoint + last.report) / last.seconds)


def test_a_resumed_run_goes_on_from_its_checkpoint_and_forgets_what_came_after(
    tmp_path: Path,
) -> None:
    points = tuple(Times(n, s, 1.0, 2.0, 3.0) for n, s in ((32, 10.0), (64, 20.0), (96, 30.0)))
    RunTimes(1.0, 7.0, points).write(tmp_path)
    watch = Stopwatch(tmp_path, 25.0, time.time())
    watch.resume(70)
    assert 4.9 < watch.left() <= 5
    watch.keep(104)
    run = RunTimes.read(tmp_path)
    assert [point.images_seen for point in run.points] == [32, 64, 104]
    assert (run.last.checkpoint, run.last.report, run.last.score) == (1.0, 2.0, 3.0)
    assert run.start < 5, "the start is the latest fit's"


def test_workers_that_replace_lost_ones_keep_the_start_of_their_fit(tmp_path: Path) -> None:
    asked = time.time() - 100
    RunTimes(asked, 7.0, (Times(32, 10.0),)).write(tmp_path)
    watch = Stopwatch(tmp_path, None, asked)
    watch.resume(32)
    watch.left()
    watch.keep(40)
    assert RunTimes.read(tmp_path).start == 7.0


def test_another_worker_than_the_first_writes_nothing(tmp_path: Path) -> None:
    watch = Stopwatch(tmp_path, 5.0, time.time(), writes=False)
    watch.left()
    watch.keep(8)
    assert not (tmp_path / TIMES).exists()


@pytest.mark.parametrize("text", ["", "{}", '{"asked": 1, "start": 2, "points": [{"x": 1}]}', "[]"])
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / TIMES).write_text(text)
    with pytest.raises(CheckpointError, match="remove it"):
        RunTimes.read(tmp_path)


def test_a_budget_is_of_the_whole_run(toy: Dataset, tmp_path: Path) -> None:
    config = toy_config(images=10**8, log_every=10**6, checkpoint_every=10**6)
    job = FitJob(config, training_part(config, toy)[0], tmp_path / "run", seconds=1.5)
    first = read_meta(local.fit(job, lambda seen, values: None).checkpoint)
    spent = RunTimes.read(job.folder).last
    assert 1.4 < spent.seconds - spent.checkpoint - spent.score < 4
    assert first.images_seen == spent.images_seen
    assert first.lineage.config_digest == config.digest, "the limit of images is still the same"

    resumed = replace(job, resume=True)
    assert read_meta(local.fit(resumed, lambda seen, values: None).checkpoint) == first
    told: list[dict[str, float]] = []
    longer = replace(resumed, seconds=spent.seconds + 1.5)
    local.fit(longer, lambda seen, values: told.append({"seen": seen, **values}))
    assert told[0]["seen"] > first.images_seen
    assert told[-1]["seconds"] > spent.seconds + 1.2
    assert math.isfinite(told[0]["score"]), "the first checkpoint has one"
    points = json.loads((job.folder / TIMES).read_text())["points"]
    assert [point["images_seen"] for point in points] == [spent.images_seen, told[-1]["seen"]]
