from __future__ import annotations

import contextlib
import traceback
from pathlib import Path

import pytest
from clinical import write_labels
from hypothesis import given
from hypothesis import strategies as st

from fastgan_aug.data.importers.labels import (
    Labels,
    one_value,
    read_labels,
    require_once,
    require_patients,
)
from fastgan_aug.errors import DataError, FastGANAugError, MissingPatientIds, UnknownFactorValue

NAME = "SMITH_JOHN_19520101"


def read(root: Path, *lines: str, columns: str = "file,kind", **options: object) -> Labels:
    write_labels(root, *lines, columns=columns)
    chosen = {"factors": ["kind"], "columns": ["file"]} | options
    return read_labels(root, Path("labels.csv"), **chosen)  # type: ignore[arg-type]


def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path: Path):
    labels = read(tmp_path, "", '"a\nb",x', "c,y")
    assert [label.line for label in labels.lines] == [4, 5]


def test_a_line_is_labelled_where_every_factor_has_a_value(tmp_path: Path):
    labels = read(
        tmp_path, "a,x,1", "b,,1", "c,x, ", columns="file,kind,grade", factors=["kind", "grade"]
    )
    assert [label.values for label in labels.lines] == [("x", "1"), (None, None), (None, None)]
    assert [label.labelled for label in labels.lines] == [True, False, False]
    assert labels.space.to_dict() == {"kind": ["x"], "grade": ["1"]}


def test_declared_values_stand_as_declared(tmp_path: Path):
    labels = read(tmp_path, "a,x", values={"kind": ["y", "x"]})
    assert labels.space.to_dict() == {"kind": ["y", "x"]}


def test_spreadsheets_are_read(tmp_path: Path):
    (tmp_path / "labels.csv").write_bytes("\ufefffile,kind,extra,\r\n a , x ,,\r\n".encode())
    labels = read_labels(tmp_path, Path("labels.csv"), factors=["kind"], columns=["file"])
    row = labels.lines[0].row
    assert {name: row[name] for name in ("file", "kind", "extra")} == {
        "file": "a", "kind": "x", "extra": "",
    }  # fmt: skip


@given(st.lists(st.sampled_from(["a,x,p", '"a,b",x,p', f"a,{NAME},{NAME},x", "a,x"]), min_size=1))
def test_a_line_of_other_cells_than_the_header_is_refused(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
):
    root = tmp_path_factory.mktemp("csv")
    odd = [i for i, line in enumerate(lines, 2) if line in (f"a,{NAME},{NAME},x", "a,x")]
    if len(odd) == len(lines):
        with pytest.raises(DataError, match="no line of the labels has 3 cells") as caught:
            read(root, *lines, columns="file,kind,who")
        assert NAME not in "".join(traceback.format_exception(caught.value))
        return
    labels = read(root, *lines, columns="file,kind,who")
    assert [item.where for item in labels.refused] == [f"line {i}" for i in odd]
    assert sorted(odd + [label.line for label in labels.lines]) == list(range(2, len(lines) + 2))
    assert all(item.refused in ("it has 4 cells, the header 3", "it has 2 cells, the header 3")
               for item in labels.refused)  # fmt: skip
    assert labels.space.to_dict() == {"kind": ["x"]}
    assert NAME not in repr(labels)


def test_a_column_named_twice_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="1 names of columns stand more than once") as caught:
        read(tmp_path, "a,x,y", columns=f"{NAME},kind,{NAME}")
    assert NAME not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("csv", "error"),
    [
        (b"", DataError),
        (b"file,kind\n", DataError),
        (b"\xff\xfe\xff", DataError),
        (f"{NAME},y\n{NAME},x\n".encode(), DataError),
        (f"{NAME}.png,y\n{NAME}.png,x\n".encode(), DataError),
        (f"file,kind\n{NAME},\n".encode(), DataError),
        (f"file,kind\na,{NAME}\n".encode(), UnknownFactorValue),
        (b'file,kind\n"' + b"a" * 200_000 + b'",x\n', DataError),
    ],
)
def test_what_is_no_table_of_labels_is_refused_without_its_content(
    tmp_path: Path, csv: bytes, error: type[Exception]
):
    (tmp_path / f"{NAME}.csv").write_bytes(csv)
    with pytest.raises(error) as caught:
        read_labels(
            tmp_path, Path(f"{NAME}.csv"), factors=["kind"], columns=["file"],
            values={"kind": ["y"]} if error is UnknownFactorValue else {},
        )  # fmt: skip
    assert NAME not in "".join(traceback.format_exception(caught.value))


@given(st.binary(max_size=200))
def test_any_bytes_give_labels_or_a_typed_error(tmp_path_factory: pytest.TempPathFactory, b: bytes):
    path = tmp_path_factory.mktemp("csv") / "labels.csv"
    for content in (b, b"file,kind\n" + b):
        path.write_bytes(content)
        with contextlib.suppress(FastGANAugError):
            read_labels(path.parent, path, factors=["kind"], columns=["file"])


def test_a_missing_file_is_refused_without_its_path(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_labels(tmp_path, Path(f"{NAME}.csv"), factors=["kind"], columns=[])
    assert NAME not in "".join(traceback.format_exception(caught.value))


def test_values_for_no_factor_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no factors"):
        read(tmp_path, "a,x", values={"other": ["x"]})


def test_patients_must_be_told_apart_at_all(tmp_path: Path):
    require_patients(read(tmp_path, "a,x,", "b,x,p", columns="file,kind,patient"), "patient")
    for columns in ("file,kind,patient", "file,kind,other"):
        with pytest.raises(MissingPatientIds, match="patient"):
            require_patients(read(tmp_path, "a,x,", columns=columns), "patient")


def test_no_slice_is_named_twice(tmp_path: Path):
    labels = read(tmp_path, "a,1,x", "a,2,x", "a,1,y", ",1,x", ",1,x", columns="file,slice,kind")
    with pytest.raises(DataError, match=r"2 rows .* line 2"):
        require_once(labels, ["file", "slice"])
    require_once(read(tmp_path, "a,x", "b,x"), ["file"])


def test_lines_of_one_volume_agree(tmp_path: Path):
    labels = read(tmp_path, "a,x", "a,y")
    assert one_value(labels.lines, "file") == "a"
    with pytest.raises(DataError, match="2 values of kind"):
        one_value(labels.lines, "kind")
