"""The client alone: installed in an empty environment, it asks the running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_demo import Demo

from fastgan_aug.gan.prior import CARD, WEIGHTS
from fastgan_aug.storage import file_digest
from serving.client import BalancedBatch

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
HEAVY = {"torch", "ray", "mlflow", "fastapi", "sklearn", "scikit-learn", "scipy", "pandas"}
ASK = """
import json, sys
from serving.client import request_balanced_batch
counts, version, url, out = json.loads(sys.argv[1]), *sys.argv[2:]
batch = request_balanced_batch(counts, model=version, url=url)
batch.to_parquet(out)
print(batch.images.shape, batch.provenance.run_id)
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Neither this environment's packages nor the checkout may help.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, check=False,
        env=clean, cwd=cwd,
    )  # fmt: skip


@pytest.fixture(scope="session")  # not "module": the demo's tests are moved to the end
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that holds nothing but `pip install .`."""
    folder = tmp_path_factory.mktemp("client")
    # This environment's pip installs there: to make one of its own takes as long as the rest.
    made = run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    probe = run(
        *PIP, "download", "--no-deps", "--retries", "0", "--timeout", "10",
        "--dest", folder / "probe", "hatchling", cwd=folder,
    )  # fmt: skip
    if probe.returncode:
        pytest.skip(f"no package index can be reached: {probe.stderr.strip().splitlines()[-1:]}")
    into = (*PIP, "--python", python, "install", "--no-compile")
    done = run(*into, "-c", ROOT / "constraints.txt", ROOT, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return python


def test_the_client_installs_without_the_heavy_packages(installed: Path) -> None:
    listed = run(*PIP, "--python", installed, "list", "--format", "json", cwd=installed.parent)
    assert listed.returncode == 0, listed.stderr
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"fastgan-aug", "httpx", "numpy", "pyarrow"} <= names
    assert not names & HEAVY
    assert len(names) < 25, sorted(names)


def test_importing_the_client_imports_nothing_heavy(installed: Path) -> None:
    done = run(installed, "-X", "importtime", "-c", "import serving.client", cwd=installed.parent)
    assert done.returncode == 0, done.stderr
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line]
    assert "pyarrow" in imported
    assert not {name.partition(".")[0] for name in imported} & HEAVY


def test_the_installed_client_gets_the_batch(demo: Demo, installed: Path, tmp_path: Path) -> None:
    batch = BalancedBatch.read(demo.folder / "batch.parquet")
    counts = {cell: row.present for cell, row in batch.plan.asked.items()}
    done = run(
        installed, "-c", ASK, json.dumps(counts), demo.version, demo.url,
        tmp_path / "batch.parquet", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert demo.results["run_id"] in done.stdout
    again = BalancedBatch.read(tmp_path / "batch.parquet")
    assert again.images.tobytes() == batch.images.tobytes()


def test_what_the_client_alone_cannot_do_is_told(installed: Path, tmp_path: Path) -> None:
    helped = run(installed, "-m", "fastgan_aug.cli.main", "--help", cwd=tmp_path)
    assert "sample" in helped.stdout, helped.stderr
    done = run(installed, "-m", "fastgan_aug.cli.main", "demo", cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    code = "from serving.client import Client; Client.offline('checkpoint')"
    done = run(installed, "-c", code, cwd=tmp_path)
    assert "torch is not installed" in done.stderr
    assert "pip install 'fastgan-aug[method]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_holds_the_prior(installed: Path) -> None:
    said = run(
        installed, "-c", "import fastgan_aug, pathlib; print(pathlib.Path(fastgan_aug.__file__))",
        cwd=installed.parent,
    )  # fmt: skip
    folder = Path(said.stdout.strip()).parent / "prior"
    card = json.loads((folder / CARD).read_text())
    assert file_digest(folder / WEIGHTS) == card["sha256"]
    assert (folder / WEIGHTS).stat().st_size < 8e6
