"""Each fuzzer for a few seconds from its kept seeds, and longer when asked for."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TARGETS = ("dicom", "nifti", "pictures", "npz", "labels")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed"
)


def fuzz(target: str, seconds: int, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"  # the kept seeds are read, what is found goes elsewhere
    corpus.mkdir()
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [
            sys.executable, HERE / "targets" / f"fuzz_{target}.py", "-seed=1",
            f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2500",
            f"-artifact_prefix={tmp_path}/", corpus, HERE / "seeds" / target,
        ],
        capture_output=True, timeout=seconds + 120, cwd=tmp_path, env=environment,
    )  # fmt: skip
    said = ran.stderr.decode(errors="replace")
    if ran.returncode and (kept := os.environ.get("FASTGAN_AUG_FUZZ_ARTIFACTS")):
        for found in tmp_path.glob("*-*"):
            shutil.copy(found, kept)
    assert ran.returncode == 0, said[-3000:]
    assert "Done" in said


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_seconds_find_nothing(target: str, tmp_path: Path):
    fuzz(target, 5, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_minute_finds_nothing(target: str, tmp_path: Path):
    fuzz(target, 60, tmp_path)
