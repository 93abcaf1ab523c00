"""The CSV of labels: its lines, the factors they name, and the conditions they make.

Cells may hold names of patients or of their files: no error shows one, only the number of its line.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.importers.importing import Item
from fastgan_aug.errors import DataError, MissingPatientIds, UnknownFactorValue

_FILE_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".nii", ".gz", ".dcm")


@dataclass(frozen=True)
class Label:
    """One line of the labels.

    Attributes:
        line: Its number, the header being line 1.
        row: Text of each column, stripped.
        values: One value per factor; all None where any is empty (a neighbour).
    """

    line: int
    row: Mapping[str, str]
    values: tuple[str | None, ...]

    @property
    def labelled(self) -> bool:
        """Whether every factor has a value."""
        return None not in self.values

    @property
    def synthetic(self) -> bool:
        """Whether a column ``synthetic`` marks the slice, as exports of this project have it."""
        return self.row.get("synthetic", "").lower() in ("true", "yes", "1")


@dataclass(frozen=True)
class Labels:
    """All lines, and the conditions they name.

    Attributes:
        space: Factors, each with its declared values or those found, in order of appearance.
        lines: In the order of the file.
        refused: Lines that have more or fewer cells than the header.
    """

    space: ConditionSpace
    lines: list[Label]
    refused: list[Item] = field(default_factory=list)


def labels_path(root: Path, labels_csv: Path) -> Path:
    """The CSV: here, or else in ``root``."""
    return labels_csv if labels_csv.is_file() else root / labels_csv


def read_labels(
    root: Path,
    labels_csv: Path,
    *,
    factors: Sequence[str],
    columns: Sequence[str],
    values: Mapping[str, Sequence[str]] | None = None,
) -> Labels:
    """Reads the labels.

    Args:
        root: Where a CSV that is no file here is looked for.
        labels_csv: UTF-8, with a header.
        factors: Columns that label a slice, in the order of the condition vector.
        columns: Other columns that must be there.
        values: Declared values per factor; a factor left out takes the values found.

    Raises:
        DataError: the CSV is missing, empty, lacks a column or has one twice, or a factor is empty
            on every line.
        UnknownFactorValue: a value that ``values`` does not declare.
    """
    rows, numbers, refused = read_rows(root, labels_csv)
    check_columns(rows, [*columns, *factors])
    space = _space(rows, numbers, factors, values or {})
    lines = []
    for row, number in zip(rows, numbers, strict=True):
        named = tuple(row[name] for name in factors)
        lines.append(Label(number, row, named if all(named) else (None,) * len(named)))
    return Labels(space, lines, refused)


def read_rows(root: Path, labels_csv: Path) -> tuple[list[dict[str, str]], list[int], list[Item]]:
    """The rows, the line of the CSV on which each ends, and the lines that are refused.

    A line with more or fewer cells than the header is refused: a comma that is not in quotes,
    as in a name, would move its cells below the names of others.

    Raises:
        DataError: no such file, no CSV, no header, a column twice, or no row that fits the header.
    """
    try:
        with labels_path(root, labels_csv).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            found = [(cells, reader.line_num) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        # Not the error itself: it carries the path, and a decoding error the whole file.
        raise DataError(
            f"the labels cannot be read ({type(error).__name__})",
            allowed="a UTF-8 CSV with a header, here or in the folder of the images",
            do="check the path given as labels",
        ) from None
    if len(found) < 2:
        raise DataError("the labels have no rows", allowed="a header and one row per slice")
    header = found[0][0]
    _check_header(header)
    fitting = [(cells, line) for cells, line in found[1:] if len(cells) == len(header)]
    refused = [
        Item(f"line {line}", refused=f"it has {len(cells)} cells, the header {len(header)}")
        for cells, line in found[1:]
        if len(cells) != len(header)
    ]
    if not fitting:
        raise DataError(
            f"no line of the labels has {len(header)} cells, as the header has",
            allowed="as many cells on each line as there are columns",
            do="put cells that hold a comma in quotes",
        )
    rows = [{k: v.strip() for k, v in zip(header, c, strict=True)} for c, _ in fitting]
    return rows, [line for _, line in fitting], refused


def _check_header(header: Sequence[str]) -> None:
    if any(name.lower().endswith(_FILE_SUFFIXES) for name in header):
        raise DataError(
            "the first line of the labels names an image",
            allowed="a header and one row per slice",
            do="put the names of the columns on the first line",
        )
    # Not their names: the first line may be a row of data. Spreadsheets leave some without any.
    if twice := sum(n > 1 for name, n in Counter(header).items() if name):
        raise DataError(
            f"{twice} names of columns stand more than once on the first line of the labels",
            allowed="a name of its own for each column",
            do="rename or remove the repeated columns",
        )


def check_columns(rows: list[dict[str, str]], wanted: Sequence[str]) -> None:
    """Verifies that the header names these columns.

    Raises:
        DataError: it does not. The header itself is not shown: it may be a row of data.
    """
    missing = [name for name in wanted if name not in rows[0]]
    if missing:
        raise DataError(
            f"none of the {len(rows[0])} columns of the labels is named "
            + " or ".join(map(repr, missing)),
            allowed="a header with the names of the columns, exactly as given",
            do="name the right columns, or add them to the CSV",
        )


def require_patients(labels: Labels, column: str) -> None:
    """Verifies that the labels tell patients apart at all; single gaps are refused line by line.

    Raises:
        MissingPatientIds: there is no such column, or it is empty on every line.
    """
    if not any(label.row.get(column) for label in labels.lines):
        there = column in labels.lines[0].row
        raise MissingPatientIds(
            f"the column {column!r} of the labels is "
            + (f"empty (first: line {labels.lines[0].line})" if there else "missing"),
            allowed="the patient of every slice",
            do="name the column that tells the patients apart, or fill it: splits by patient are "
            "what every claim rests on",
        )


def require_once(labels: Labels, columns: Sequence[str]) -> None:
    """Verifies that no two lines name the same slice.

    Raises:
        DataError: two do.
    """
    named = [tuple(label.row[c] for c in columns) for label in labels.lines]
    listed = Counter(named)
    twice = [
        label.line
        for label, name in zip(labels.lines, named, strict=True)
        if listed[name] > 1 and all(name)
    ]
    if twice:
        raise DataError(
            f"{len(twice)} rows name a slice that another row names too (first: line {twice[0]})",
            allowed="one row per slice",
            do="remove the repeated rows: a slice on both sides of a split would be a leak",
        )


def one_value(lines: Sequence[Label], column: str) -> str:
    """The one value that all ``lines`` have in ``column``.

    Raises:
        DataError: they have several, or some have none.
    """
    texts = {label.row[column] for label in lines}
    if len(texts) > 1:
        raise DataError(f"its lines name {len(texts)} values of {column}, or leave some empty")
    return texts.pop()


def _space(
    rows: list[dict[str, str]],
    numbers: list[int],
    factors: Sequence[str],
    values: Mapping[str, Sequence[str]],
) -> ConditionSpace:
    if undeclared := set(values) - set(factors):
        raise DataError(
            f"values are declared for {sorted(undeclared)}, which are no factors",
            allowed=", ".join(factors),
            do="name them as factors too",
        )
    declared: dict[str, Sequence[str]] = {}
    for name in factors:
        found = list(dict.fromkeys(row[name] for row in rows if row[name]))
        declared[name] = values.get(name, found)
        _check_declared([row[name] for row in rows], numbers, name, declared[name])
        if not declared[name]:
            raise DataError(
                f"the column {name!r} is empty on every row",
                do="label some slices, or name another factor",
            )
    return ConditionSpace.of(declared)


def _check_declared(
    column: list[str], numbers: list[int], name: str, declared: Sequence[str]
) -> None:
    unknown = [
        line for text, line in zip(column, numbers, strict=True) if text and text not in declared
    ]
    if unknown:
        raise UnknownFactorValue(
            f"{len(unknown)} rows have a value of {name} that is not declared "
            f"(first: line {unknown[0]})",
            allowed=", ".join(declared),
            do=f"correct the {name} column, or declare the values",
        )
