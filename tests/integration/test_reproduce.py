"""`reproduce` on a toy budget: killed, continued, and the same as if it never was."""

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
from test_cli_reproduce import pair

from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
IMAGES = 256


@pytest.fixture(scope="module")
def root(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    toy.write(folder / "toy.parquet")
    for name, config in pair().items():
        (folder / f"{name}.toml").write_text(as_toml(config), encoding="utf-8")
    return folder


def as_toml(config: Config) -> str:
    lines = ['name = "toy"', "[data]"]
    keep = config.data.keep.get("shape")
    lines += [f"keep = {{ shape = {json.dumps(keep)} }}"] if keep else []
    values = config.to_dict()
    for section in ("network", "training", "selection"):
        lines.append(f"[{section}]")
        lines += [f"{k} = {json.dumps(v)}" for k, v in values[section].items()]
    return "\n".join(lines)


def begin(root: Path, out: str, *options: str) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "fastgan_aug.cli.main", "reproduce", "--budget", str(IMAGES)),
        *("--data", str(root / "toy.parquet"), "--out", str(root / out)),
        *("--config-a", str(root / "A.toml"), "--config-b", str(root / "B.toml"), *options),
    ]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    return said


def table(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "table.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def whole(root: Path) -> Path:
    finish(begin(root, "whole"))
    return root / "whole"


def test_it_leaves_a_table_and_a_page_that_stand_alone(whole: Path) -> None:
    found = table(whole)
    assert {line["generator"] for line in found["lines"]} == {"A", "B"}
    assert {line["scope"] for line in found["lines"]} == {"pooled"}  # one factor: nothing to pool
    assert {row["cell"] for row in found["beyond"]} == {"overall", "disc", "ring"}
    assert found["how"]["command"].startswith(f"fastgan-aug reproduce --budget {IMAGES}")
    assert len(found["how"]["dataset_digest"]) == 64
    text = (whole / "table.md").read_text(encoding="utf-8")
    assert found["says"] in text
    assert found["how"]["fits"][0]["checkpoint_digest"] in text
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") > 10


def test_done_pieces_are_not_done_again(root: Path, whole: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if "pieces" in p.parts}
    (whole / "table.md").unlink()
    assert "every fit is done already" in finish(begin(root, "whole"))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (whole / "table.md").is_file()


@pytest.mark.slow
def test_a_killed_one_continues_to_the_same_table(root: Path, whole: Path) -> None:
    killed = begin(root, "killed")
    deadline = time.monotonic() + 200
    while not list((root / "killed").glob("fits/*/images-*")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)  # the fits' processes too
    killed.communicate(timeout=30)
    finish(begin(root, "killed"))
    ours, theirs = table(root / "killed"), table(whole)
    assert ours["lines"] == theirs["lines"]
    assert ours["beyond"] == theirs["beyond"]


@pytest.mark.slow
def test_ray_workers_give_the_same_table(root: Path, whole: Path) -> None:
    finish(begin(root, "ray", "--ray"))
    assert table(root / "ray")["lines"] == table(whole)["lines"]
