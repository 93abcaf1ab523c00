"""Bulk on real Ray Data workers, and a run that is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.engines.mlflow_client import local_uri
from fastgan_aug.engines.ray_cluster import ray_cluster
from fastgan_aug.engines.ray_data import map_on_ray_data
from fastgan_aug.errors import DataError, EngineFailed
from serving.asking import request_of
from serving.batch import BalancedBatch
from serving.bulk import sample_into
from serving.offline import OfflineClient
from tests.served import ONE_COUNTS, ONE_FACTOR, lineage, registered, tiny_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
COUNTS = {"disc": 60, "ring": 40, "bar": 24}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS))


def images(folder: Path) -> bytes:
    parts = sorted(folder.glob("part-*.parquet"))
    return b"".join(BalancedBatch.read(part).images.tobytes() for part in parts)


def test_ray_workers_make_the_same_shards_and_tell_their_errors(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.bulk.SHARD", 10)

    class Failing:  # in here, so that it is sent whole: a worker does not find this file
        def open(self):
            return lambda row: 1 / row["number"]

    client, request = OfflineClient(checkpoint), request_of(COUNTS, seed=7)
    header = client.planned(request)
    other = tiny_checkpoint(tmp_path / "other", lineage(ONE_FACTOR, ONE_COUNTS), seed=4)
    engine = partial(map_on_ray_data, workers=2)
    with ray_cluster():
        counts = list(sample_into(tmp_path / "ray", header, checkpoint, engine))
        with pytest.raises(DataError, match="checkpoint"):
            list(sample_into(tmp_path / "refused", header, other, engine))
        with pytest.raises(EngineFailed, match="ZeroDivisionError"):
            list(map_on_ray_data(Failing(), [{"number": 0}], workers=1))
    assert counts[0] == 0
    assert counts[-1] == 56
    assert counts == sorted(counts)
    expected = client.request_balanced_batch(COUNTS, seed=7)
    assert images(tmp_path / "ray") == expected.images.tobytes()


def test_a_registered_version_fills_a_folder_and_a_file(tmp_path: Path) -> None:
    uri = local_uri(tmp_path)
    found = registered(tmp_path, uri, "toy-shapes", 1)
    ask = ["sample", "--counts", "disc=9,ring=2", "--tracking-uri", uri, "--name", "toy-shapes",
           "--model", "candidate", "--local"]  # fmt: skip
    for out in (tmp_path / "out", tmp_path / "out", tmp_path / "one.parquet"):
        done = CliRunner().invoke(app, [*ask, "--out", str(out)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    one, part = (
        BalancedBatch.read(path)
        for path in (tmp_path / "one.parquet", tmp_path / "out" / "part-00000.parquet")
    )
    assert one.images.tobytes() == part.images.tobytes()
    assert one.cells == ["ring"] * 7
    for batch in (one, part):
        origin = batch.provenance
        assert (origin.model, origin.version, origin.alias) == ("toy-shapes", "1", "candidate")
        assert origin.run_id == found.run_id


def test_a_run_that_is_killed_goes_on(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fastgan_aug.cli.main", "sample", "--counts", "disc=0",
               "--target", "6000", "--seed", "7", "--checkpoint", str(checkpoint), "--local",
               "--workers", "1", "--out", str(out)]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    begun = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not list(out.glob("part-*.parquet")) and begun.poll() is None:
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    first = out / "part-00000.parquet"
    kept = first.stat().st_mtime_ns
    assert not (out / "_manifest.json").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == kept
    expected = OfflineClient(checkpoint).request_balanced_batch({"disc": 0}, 6000, seed=7)
    assert images(out) == expected.images.tobytes()
