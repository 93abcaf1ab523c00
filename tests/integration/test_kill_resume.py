"""A training that is killed at any moment and resumed is the training that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.job import tracked_run_id
from fastgan_aug.engines.mlflow_client import connect, local_uri
from fastgan_aug.gan.checkpoint import GENERATOR, STATE, checkpoints, read_meta

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
IMAGES, LOG_EVERY = 480, 8
CONFIG = f"""
name = "toy-shapes"
[network]
size = 32
latent = 8
embedding = 16
generator_width = 4
discriminator_width = 4
[training]
images = {IMAGES}
batch = 8
log_every = {LOG_EVERY}
checkpoint_every = 96
ema_half_life = 50
keep = 2
[augment]
flip = {{ shape = ["disc", "ring"] }}
"""


class Training:
    """`fastgan-aug train` in a process of its own, with a log."""

    def __init__(self, root: Path, out: Path, uri: str, *options: str) -> None:
        self.out, self.log = out, out.with_suffix(".log")
        command = [
            *(sys.executable, "-m", "fastgan_aug.cli.main", "train", "--tracking-uri", uri),
            *("--config", str(root / "toy.toml"), "--data", str(root / "toy.parquet")),
            *("--out", str(out), *options),
        ]
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def images_seen(self) -> int:
        """What its curves have told until now."""
        spool = self.out / "tracking" / "entries.jsonl"
        told = spool.read_text(encoding="utf-8").splitlines() if spool.is_file() else []
        for line in reversed(told):
            if '"kind": "metrics"' in line and line.endswith("}"):
                return int(json.loads(line)["step"])
        return 0

    def kill_at(self, images: int, pause: float) -> None:
        """SIGKILL, ``pause`` seconds after ``images`` were seen."""
        deadline = time.monotonic() + 120
        while self.images_seen() < images:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        time.sleep(pause)
        self.process.kill()
        assert self.process.wait(30) == -signal.SIGKILL, self.said()

    def finish(self) -> None:
        assert self.process.wait(180) == 0, self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@pytest.fixture
def root(toy: Dataset, tmp_path: Path) -> Path:
    toy.write(tmp_path / "toy.parquet")
    (tmp_path / "toy.toml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


@pytest.fixture
def trainings(root: Path) -> Iterator[list[Training]]:
    started: list[Training] = []
    yield started
    for training in started:
        training.process.kill()


def test_three_kills_change_nothing(root: Path, trainings: list[Training]) -> None:
    chance = random.Random(10)  # draws one moment before the first checkpoint
    moments = sorted(chance.sample(range(LOG_EVERY, IMAGES - 120), 3))
    whole = Training(root, root / "whole", local_uri(root / "whole"))
    trainings.append(whole)  # beside the others: there are two cores
    uri = local_uri(root / "killed")
    for images in moments:
        options = ["--resume"] if images != moments[0] else []
        trainings.append(Training(root, root / "killed", uri, *options))
        trainings[-1].kill_at(images, chance.uniform(0, 0.15))
    last = Training(root, root / "killed", uri, "--resume")
    trainings.append(last)
    last.finish()
    whole.finish()

    ours, theirs = checkpoints(last.out), checkpoints(whole.out)
    assert [p.name for p in ours] == [p.name for p in theirs]
    assert ours[-1].name == f"images-{IMAGES:09d}"
    for mine, undisturbed in zip(ours, theirs, strict=True):
        for file in (GENERATOR, STATE):
            assert (mine / file).read_bytes() == (undisturbed / file).read_bytes(), file
        assert read_meta(mine).files == read_meta(undisturbed).files
    assert not list(last.out.glob("images-*.tmp-*")), "nothing half-written is left"

    # One run in MLflow, its curves without a gap and without a point told twice.
    client, run_id = connect(uri), tracked_run_id(last.out)
    experiment = client.get_experiment_by_name("fastgan-aug")
    assert [r.info.run_id for r in client.search_runs([experiment.experiment_id])] == [run_id]
    assert client.get_run(run_id).info.status == "FINISHED"
    points = client.get_metric_history(run_id, "loss_real")
    assert [p.step for p in points] == list(range(LOG_EVERY, IMAGES + 1, LOG_EVERY))


def test_a_kill_while_the_database_is_made_leaves_a_place_to_use(tmp_path: Path) -> None:
    uri = local_uri(tmp_path)
    program = f"from fastgan_aug.engines.mlflow_client import connect; connect({uri!r})"
    with subprocess.Popen([sys.executable, "-c", program]) as maker:
        deadline = time.monotonic() + 60
        while not _any_filled(tmp_path):
            assert maker.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        maker.kill()
    assert connect(uri).search_experiments()


def _any_filled(folder: Path) -> bool:
    """Whether a file holds anything; SQLite's journals come and go meanwhile."""
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            if file.stat().st_size:
                return True
    return False
