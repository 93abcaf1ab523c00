"""`data export` and `data withdraw` as a user types them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from test_export import batch, lines, scans  # noqa: F401
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import FORMATS
from fastgan_aug.errors import DataError, UnknownCell
from serving.batch import BalancedBatch


def data(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)], env={"COLUMNS": "200"})


@pytest.fixture
def phantom(scans: Dataset, tmp_path: Path) -> Path:  # noqa: F811
    scans.write(tmp_path / "phantom.parquet")
    return tmp_path / "phantom.parquet"


def test_a_phantom_and_a_batch_are_exported(
    phantom: Path,
    batch: BalancedBatch,  # noqa: F811
    tmp_path: Path,
) -> None:
    result = data("export", phantom, "--format", "nifti", "--out", tmp_path / "volumes")
    assert result.exit_code == 0, result.output
    assert "11 slices as nifti, marked synthetic" in result.output
    assert Dataset.read(phantom).digest in result.output
    batch.to_parquet(tmp_path / "batch.parquet")
    result = data(
        *("export", tmp_path / "batch.parquet", "-f", "png", "-o", tmp_path / "pictures"),
        *("--cell", "cross", "--cell", "ring"),
    )
    assert result.exit_code == 0, result.output
    rows = lines(tmp_path / "pictures")
    assert [row["shape"] for row in rows] == ["ring", "cross", "cross"]
    assert [row["seed"] for row in rows] == ["3", "4", "5"]


def test_bad_orders_are_typed_errors(toy: Dataset, phantom: Path, tmp_path: Path) -> None:
    toy.write(tmp_path / "real.parquet")
    out = tmp_path / "out"
    for words, kind in (
        ((tmp_path / "real.parquet", "-f", "png"), DataError),
        ((tmp_path / "missing.parquet", "-f", "png"), DataError),
        ((phantom, "-f", "gif"), DataError),
        ((phantom, "-f", "png", "--cell", "square"), UnknownCell),
    ):
        result = data("export", *words, "-o", out)
        assert isinstance(result.exception, kind), result.output
        assert not out.exists()


def test_a_withdrawn_patient_is_gone(toy: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "toy.parquet"
    toy.write(path)
    content = path.read_bytes()
    patient = toy.patients[3]
    result = data("withdraw", patient, "--data", path, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "Would remove" in result.output
    assert "--tracking-uri" in result.output
    assert path.read_bytes() == content

    result = data("withdraw", patient, "--data", path)
    assert result.exit_code == 2, "who saw them is part of a withdrawal"
    assert path.read_bytes() == content

    result = data("withdraw", patient, "--data", path, "--no-models")
    assert result.exit_code == 0, result.output
    after = Dataset.read(path)
    assert after.digest in result.output
    assert set(toy.patients) - set(after.patients) == {patient}
    assert len(after) == len(toy) - int((toy.column("patient_id") == patient).sum())
    others = toy.take(toy.column("patient_id") != patient)
    assert np.array_equal(after.images, others.images)
    assert patient.encode() not in path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["toy.parquet"], "nothing is left beside"

    result = data("withdraw", patient, "--data", path, "--no-models")
    assert isinstance(result.exception, DataError)
    assert "no patient" in result.exception.what


def test_the_only_patient_cannot_be_taken_out(toy: Dataset, tmp_path: Path) -> None:
    toy.of_patients(toy.patients[:1]).write(tmp_path / "one.parquet")
    result = data("withdraw", toy.patients[0], "--data", tmp_path / "one.parquet", "--no-models")
    assert isinstance(result.exception, DataError)
    assert "delete the file" in result.exception.do


@pytest.mark.parametrize("link", [False, True])
def test_no_output_replaces_its_own_input(phantom: Path, tmp_path: Path, link: bool) -> None:
    content, out = phantom.read_bytes(), phantom
    if link:
        out = tmp_path / "another.parquet"
        out.symlink_to(phantom)
    for words in (
        *(("export", phantom, "--format", name, "--out", out) for name in FORMATS),
        ("describe", phantom, "--out", out),
        ("compare", phantom, phantom, "--out", out),
    ):
        result = data(*words)
        assert isinstance(result.exception, DataError), result.output
        assert "would be lost" in result.exception.what
        assert phantom.read_bytes() == content
    page = phantom.rename(tmp_path / "phantom.html")  # what describe writes by default
    assert isinstance(data("describe", page).exception, DataError)
    assert page.read_bytes() == content
