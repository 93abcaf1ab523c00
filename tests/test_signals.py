"""Ending a command that runs until Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_tasks import gone, until

CODE = """
import os, signal
from fastgan_aug.cli.signals import sigterm_as_ctrl_c
sigterm_as_ctrl_c()
try:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
except KeyboardInterrupt:
    print("tidied up")
"""


def test_sigterm_lets_a_command_tidy_up() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True
    )
    assert ran.stdout == "tidied up\n"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_sigterm_leaves_nothing_of_a_phantom_half_drawn(tmp_path: Path) -> None:
    (tmp_path / "many.toml").write_text(
        '[phantom]\npatients = 4000\n[phantom.counts]\n"BG/normal" = 4000\n'
    )
    (out := tmp_path / "out").mkdir()
    words = ("--config", tmp_path / "many.toml", "--workers", "2", "--out", out / "p.parquet")
    drawing = subprocess.Popen(
        [sys.executable, "-m", "fastgan_aug.cli.main", "data", "phantom", *words],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert until(lambda: any(out.iterdir())), "the temporary file"
        assert until(lambda: len(children(drawing.pid)) >= 2)
        workers = children(drawing.pid)
        drawing.terminate()
        said = drawing.communicate(timeout=60)[1].decode()
    finally:
        drawing.kill()
    assert drawing.returncode not in (0, -signal.SIGTERM)
    assert "Traceback" not in said
    assert not list(out.iterdir())
    assert until(lambda: all(map(gone, workers)), 10)


def children(pid: int) -> list[int]:
    """The processes that one started and has not waited for."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
