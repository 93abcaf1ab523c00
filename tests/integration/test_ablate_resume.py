"""`ablate` on a toy budget: killed, continued, and the same as if it never was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from toy_ablation import VARIANTS, write_toy_ablation

from fastgan_aug.data.dataset import Dataset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
COSTS = {"seconds", "images_per_second"}  # what a clock decides


@pytest.fixture(scope="module")
def table(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_ablation(tmp_path_factory.mktemp("ablate"), toy)


def begin(table: Path, out: str, *options: str) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "fastgan_aug.cli.main", "ablate", str(table)),
        *("--data", str(table.parent / "toy.parquet"), "--out", str(table.parent / out)),
        *("--seeds", "0,1", "--images", "256", *options),
    ]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    return said


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Every run's record, without its costs."""
    files = sorted((folder / "runs").glob("*.json"))
    return {
        file.stem: {k: v for k, v in json.loads(file.read_text()).items() if k not in COSTS}
        for file in files
    }


@pytest.fixture(scope="module")
def whole(table: Path) -> Path:
    finish(begin(table, "whole", "--workers", "2"))
    return table.parent / "whole"


def test_it_leaves_a_table_that_can_be_kept_and_a_page_that_stands_alone(whole: Path) -> None:
    assert set(records(whole)) == {f"{name}-seed{seed}" for name in VARIANTS for seed in (0, 1)}
    found = json.loads((whole / "table.json").read_text(encoding="utf-8"))
    assert [row["variant"] for row in found["rows"]][-1] == "diverging"
    assert all(row["seeds"] == [0, 1] for row in found["rows"])
    assert found["rows"][0]["figures"]["kid"]["low"] <= found["rows"][0]["figures"]["kid"]["high"]
    text = (whole / "table.md").read_text(encoding="utf-8")
    how = found["how"]
    for word in (found["ranking"], how["command"], how["dataset_digest"], how["holdout_digest"]):
        assert word in text
    assert how["command"].endswith("--data toy.parquet --images 256 --seeds 0,1")
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") == 3 * 16  # real, and two variants that made slices
    assert not list((whole / "fits").glob("*"))


def test_finished_runs_are_not_done_again(table: Path, whole: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (whole / "runs").iterdir()}
    (whole / "table.md").unlink()
    assert "every run is done already" in finish(begin(table, "whole"))
    assert {p: p.stat().st_mtime_ns for p in (whole / "runs").iterdir()} == before
    assert (whole / "table.md").is_file()


@pytest.mark.slow
def test_a_killed_one_continues_and_redoes_no_finished_run(table: Path, whole: Path) -> None:
    out = table.parent / "killed"
    killed = begin(table, "killed", "--workers", "1")
    wait_until(killed, lambda: list(out.glob("runs/*.json")))
    finished = {p: p.stat().st_mtime_ns for p in out.glob("runs/*.json")}
    wait_until(killed, lambda: list(out.glob("fits/no-average-seed0/images-*")))
    os.killpg(killed.pid, signal.SIGKILL)  # the runs' processes too
    killed.communicate(timeout=30)
    said = finish(begin(table, "killed", "--workers", "1"))
    assert "runs are done already" in said
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    assert records(out) == records(whole)


@pytest.mark.slow
def test_ray_workers_give_the_same_runs(table: Path, whole: Path) -> None:
    finish(begin(table, "ray", "--ray", "--only", "default"))
    ours, theirs = records(table.parent / "ray"), records(whole)
    assert ours == {key: theirs[key] for key in ("default-seed0", "default-seed1")}


def wait_until(process: subprocess.Popen[str], holds: Any) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)
