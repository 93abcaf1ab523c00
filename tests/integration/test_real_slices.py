"""Real slices, where there are some beside the repository; nothing of them is kept in it.

FASTGAN_AUG_REAL_SLICES names another folder of images with a labels.csv of the same columns.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from downstream.fold import patients_per_class
from fastgan_aug.cli.nested_command import Nested
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import PseudonymKey

BESIDE = Path(__file__).parents[3] / "shared" / "data" / "real-spect"
FOLDER = Path(os.environ.get("FASTGAN_AUG_REAL_SLICES", BESIDE))
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (FOLDER / "labels.csv").is_file(),
        reason="no real slices here; FASTGAN_AUG_REAL_SLICES names their folder",
    ),
]


def command(configuration: Path, *arguments: str | Path) -> str:
    line = [sys.executable, "-m", "fastgan_aug.cli.main", "data", *map(str, arguments)]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"COLUMNS": "120", "XDG_CONFIG_HOME": str(configuration)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (FOLDER / "labels.csv").open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "real.parquet"
    said = command(
        out.parent,
        *("import", FOLDER, "--labels", "labels.csv", "--factor", "level", "--factor", "pattern"),
        *("--z", "slice_index", "--out", out),
    )
    assert f"Wrote {out}" in said
    return out


def test_every_slice_is_imported(imported: Path, rows: list[dict[str, str]]) -> None:
    dataset = Dataset.read(imported)
    assert len(dataset) == len(rows)
    key = PseudonymKey.read(imported.parent / "fastgan-aug" / "pseudonym.key")
    assert set(dataset.patients) == {key.patient(row["patient_id"]) for row in rows}
    assert dataset.meta.pseudonym_key == key.id
    labelled = Counter(f"{r['level']}/{r['pattern']}" for r in rows if r["level"] and r["pattern"])
    assert {str(c): n for c, n in dataset.class_counts.items() if n} == dict(labelled)
    assert int((~dataset.labelled).sum()) == len(rows) - sum(labelled.values())
    assert np.isfinite(dataset.images).all()
    assert dataset.images.max() == 1
    assert dataset.meta.laterality == "unverified"


def test_describe_prints_the_table_of_cells(imported: Path, rows: list[dict[str, str]]) -> None:
    dataset = Dataset.read(imported)
    said = command(imported.parent, "describe", imported)
    for cell, count in dataset.class_counts.items():
        (line,) = [one for one in said.splitlines() if str(cell) in one]
        assert str(count) in line.split()
    neighbours = next(line for line in said.splitlines() if "neighbours" in line)
    assert str(int((~dataset.labelled).sum())) in neighbours.split()
    assert dataset.digest in said
    assert imported.with_suffix(".html").stat().st_size > 1000


@pytest.fixture(scope="module")
def phantom(imported: Path) -> Path:
    folder = imported.parent
    counts = "".join(f'"{c}" = 2\n' for c in ("BG/normal", "BG/unilateral", "COR/normal"))
    (folder / "few.toml").write_text(f"[phantom]\npatients = 6\n[phantom.counts]\n{counts}")
    command(folder, "phantom", "--config", folder / "few.toml", "--out", folder / "few.parquet")
    return folder / "few.parquet"


@pytest.mark.parametrize("edges", [("--pixel-mm-b", "3.75"), ()])
def test_a_phantom_is_seen_beside_real_slices(
    phantom: Path, imported: Path, edges: tuple[str, ...]
) -> None:
    said = json.loads(command(imported.parent, "compare", phantom, imported, *edges, "--json"))
    overall = {row["measure"]: row for row in said if row["group"] == "all"}
    unit, frequencies = (
        ("cycles/mm", (0.02, 0.05, 0.1)) if edges else ("cycles/pixel", (0.08, 0.2, 0.4))
    )
    powers = [f"power at {frequency:g} {unit}" for frequency in frequencies]
    for name in (*powers, "MC", "LR", "width", "grey over white"):
        row = overall[name]
        assert row["n"][0] == 6
        assert row["n"][1] > 0
        figures = [*row["first"], *row["second"], row["difference"], row["ks"]]
        assert all(figure is not None and math.isfinite(figure) for figure in figures), (name, row)
        assert row["first"] == sorted(row["first"]), "quartiles"
        assert min(*row["first"], *row["second"]) > 0
    assert (phantom.parent / "few-beside-real.html").stat().st_size > 1000


def test_the_nested_proof_tests_every_class_in_every_fold(imported: Path) -> None:
    dataset = Dataset.read(imported)
    patients = patients_per_class(dataset, "pattern")
    config = Config.of({"name": "real", "downstream": {"folds": 100}})
    parts = Nested(imported, config, imported.parent / "nested").parts()
    assert len(parts) == min(patients.values())
    tested: list[str] = []
    for part in parts:
        fold = part.fold()
        tested += fold.test.patients
        for side in (fold.train, fold.test):
            assert patients_per_class(side, "pattern").keys() == patients.keys()
        held = patients_per_class(fold.validation, "pattern")
        assert not held or held.keys() == patients.keys(), "never without one of the classes"
    assert sorted(tested) == sorted(dataset.take(dataset.labelled).patients)
