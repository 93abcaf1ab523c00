from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from clinical import SIZE, write_labels, write_nifti, write_nm, write_series
from toy import COUNTS, make_toy_folder
from typer.testing import CliRunner

from fastgan_aug.cli.data import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import PseudonymKey, default_key_path
from fastgan_aug.errors import DataError, UnknownFactorValue


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "160")


def invoke(*words: object) -> Result:
    arguments = ["import", *(str(word) for word in words)]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def run(*words: object, code: int = 0) -> str:
    result = invoke(*words)
    assert result.exit_code == code, result.output
    return result.output


def test_a_folder_is_imported_under_a_new_key_that_is_kept(tmp_path: Path):
    root, out = make_toy_folder(tmp_path / "toy"), tmp_path / "toy.parquet"
    words = (root, "--factor", "shape", "--size", 32, "--patient", "donor", "--z", "slice")
    said = run(*words, "--out", out)
    dataset = Dataset.read(out)
    assert dataset.digest in said
    assert {str(c): n for c, n in dataset.class_counts.items()} == COUNTS
    assert "never share it" in said
    assert dataset.meta.pseudonym_key == PseudonymKey.read(default_key_path()).id
    again = run(*words, "--out", tmp_path / "again.parquet")
    assert "never share it" not in again
    assert dataset.digest in again


def test_a_dry_run_says_all_and_writes_nothing(tmp_path: Path):
    root = tmp_path / "scans"
    write_nm(root / "a.dcm")
    write_nm(root / "JANE DOE.dcm", BurnedInAnnotation="YES")
    write_labels(root, "a.dcm,2,x", "a.dcm,99,x", "JANE DOE.dcm,1,x")
    before = sorted(tmp_path.rglob("*"))
    said = run(root, "--factor", "kind", "--size", SIZE, "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    assert "JANE" not in said
    table = [line.split("│") for line in said.splitlines() if "│" in line]
    rows = {cells[1].strip(): [c.strip() for c in cells[2:6]] for cells in table}
    assert rows["file 2"] == ["6", "1", "2", "taken"]
    assert rows["file 1"][3] == "refused: text is burned into its pixels"
    assert rows["line 3"][3] == "refused: there is no slice 99: they are 0 to 5"
    assert "file 1, which was refused" in rows["line 4"][3]
    assert "3 of 4 items were refused" in said
    assert "LC_ALL=C sort | sed -n 7p" in said


@pytest.mark.parametrize("how", ["auto", "given"])
@pytest.mark.parametrize("kind", ["dicom", "series", "nifti", "folder", "npz"])
def test_each_format_is_told_by_the_labels_and_imported(tmp_path: Path, kind: str, how: str):
    root, out = tmp_path / "in", tmp_path / "out.parquet"
    columns = "file,slice,kind,patient_id"
    options: tuple[object, ...] = ("--factor", "kind", "--size", SIZE)
    if kind == "dicom":
        write_nm(root / "a.dcm")
        write_labels(root, "a.dcm,4,x")
    elif kind == "series":
        write_series(root / "scan")
        write_labels(root, "scan,4,x")
    elif kind == "nifti":
        write_nifti(root / "a.nii.gz")
        write_labels(root, "a.nii.gz,4,x,p", columns=columns)
    elif kind == "folder":
        root.mkdir()
        np.save(root / "a.npy", np.arange(SIZE**2).reshape(SIZE, SIZE))
        write_labels(root, "a.npy,4,x,p", columns=columns)
    else:
        root = tmp_path / "a.npz"
        images = np.arange(2 * SIZE**2).reshape(2, SIZE, SIZE).astype(np.uint8)
        np.savez(root, train_images=images, train_labels=np.asarray([[0], [1]]))
        options = ("--factor", "kind=x,y", "--size", SIZE)
    asked = ("--format", "dicom" if kind == "series" else kind) if how == "given" else ()
    run(root, *options, *asked, "--out", out)
    dataset = Dataset.read(out)
    assert len(dataset) == {"folder": 1, "npz": 2}.get(kind, 3)
    assert dataset.meta.pseudonym_key == PseudonymKey.read(default_key_path()).id


def test_nothing_taken_is_exit_1_and_writes_nothing(tmp_path: Path):
    root, out = tmp_path / "in", tmp_path / "out.parquet"
    (root / "x").mkdir(parents=True)
    (root / "x" / "a.dcm").write_bytes(b"junk")
    write_labels(root, "x/a.dcm,1,x")
    said = run(root, "--factor", "kind", "--out", out, code=1)
    assert "Nothing could be taken: 2 of 2 items were refused" in said
    assert not out.exists()


def test_a_key_that_is_given_is_used_and_must_be_there(tmp_path: Path):
    root = make_toy_folder(tmp_path / "toy")
    words = (root, "--factor", "shape", "--patient", "donor", "--out", tmp_path / "o.parquet")
    with pytest.raises(DataError, match="key"):
        invoke(*words, "--key", tmp_path / "k")
    (tmp_path / "k").write_text("07" * 32)
    run(*words, "--key", tmp_path / "k")
    expected = PseudonymKey(bytes([7]) * 32).id
    assert Dataset.read(tmp_path / "o.parquet").meta.pseudonym_key == expected
    assert not default_key_path().exists()


def test_images_without_patients_are_taken_with_a_warning(tmp_path: Path):
    root, out = make_toy_folder(tmp_path / "toy"), tmp_path / "o.parquet"
    said = run(root, "--factor", "shape", "--no-patients", "--out", out)
    assert "nothing may be claimed" in said
    assert Dataset.read(out).meta.grouping == "none"


def test_bad_input_raises_its_own_error_and_writes_nothing(tmp_path: Path):
    root, out = make_toy_folder(tmp_path / "toy"), tmp_path / "out.parquet"
    with pytest.raises(UnknownFactorValue):
        invoke(root, "--factor", "shape=disc,ring", "--patient", "donor", "--out", out)
    with pytest.raises(DataError, match="nothing at the path"):
        invoke(tmp_path / "missing", "--factor", "shape", "--out", out)
    write_labels(root, "a.png,1,x", "b.nii,1,x")
    with pytest.raises(DataError, match="several formats"):
        invoke(root, "--factor", "kind", "--out", out)
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--factor", "kind"),
        ("--out", "o.parquet"),
        ("--factor", "kind", "--factor", "kind=x", "--dry-run"),
        ("--factor", "kind", "--dry-run", "--format", "dicom", "--z", "slice"),
        ("--factor", "kind", "--dry-run", "--format", "nifti", "--no-patients"),
        ("--factor", "a", "--factor", "b", "--dry-run", "--format", "npz"),
        ("--factor", "kind", "--dry-run", "--format", "npz", "--labels", "l.csv"),
        ("--factor", "kind", "--dry-run", "--format", "folder", "--no-patients", "--patient", "p"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, words: tuple[str, ...]):
    write_labels(tmp_path, "a.dcm,1,x")
    assert invoke(tmp_path, *words).exit_code == 2


@pytest.mark.parametrize("name", ["a.dcm", "a.png", "a.nii.gz", "labels.csv"])
@pytest.mark.parametrize("asked", ["auto", "dicom", "nifti", "folder"])
def test_a_single_file_is_no_folder(tmp_path: Path, name: str, asked: str):
    write_labels(tmp_path, "a.dcm,1,x")
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="single file") as error:
        invoke(tmp_path / name, "--factor", "kind", "--dry-run", "--format", asked)
    assert "folder that holds the file" in error.value.do


def test_no_output_replaces_what_is_imported(tmp_path: Path):
    root = make_toy_folder(tmp_path / "toy")
    (tmp_path / "k").write_text("07" * 32)
    words = (root, "--factor", "shape", "--patient", "donor", "--key", tmp_path / "k")
    picture = next(path for path in root.rglob("*") if path.is_file() and path.suffix != ".csv")
    for out in (root / "labels.csv", picture, tmp_path / "k"):
        content = out.read_bytes()
        with pytest.raises(DataError, match="would be lost"):
            invoke(*words, "--out", out)
        assert out.read_bytes() == content
    for _ in range(2):  # an older import may be replaced, below the folder too
        run(*words, "--out", root / "toy.parquet")


def test_help_shows_examples():
    said = run("--help")
    assert "Examples" in said
    assert "--dry-run" in said
