"""Export of synthetic data, never without the mark.

What leaves this project is a slice of nobody: generated, or of a phantom. Every file says so in the
way of its format, and tells where it comes from:

    parquet  one file; column `synthetic`, provenance in the schema metadata
    npz      one file; array `synthetic`, provenance as JSON in the array `provenance`
    png      a folder: 16-bit images/, labels.csv, provenance.json; text chunk `Synthetic`
    nifti    a folder: a volume per scan, labels.csv, provenance.json; header extension
    dicom    a folder: a file per scan or slice, labels.csv, provenance.json; Synthetic Data = YES

Phantoms are marked like generated slices, and an importer keeps the mark: what went out once never
comes back as test data. Parquet is a data set as it is; PNG, NIfTI and DICOM come back by the
importers of these formats and the labels beside them. NPZ does not come back: it is for other
programs, and `import_npz` reads MedMNIST's layout alone.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastgan_aug.code_version import code_version
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import FICTION
from fastgan_aug.errors import DataError
from fastgan_aug.storage import replace_when_complete

NOTICE = "SYNTHETIC DATA, NOT FOR DIAGNOSIS"
FORMATS = ("parquet", "npz", "png", "nifti", "dicom")
ONE_FILE = ("parquet", "npz")
LABELS, PROVENANCE = "labels.csv", "provenance.json"
# The labels' own columns: before and after those of the data set.
_BEFORE, _AFTER = ("file", "slice"), ("notice", "dataset")
# Every name that the writers give below an export's folder.
_MADE = re.compile(
    r"labels\.csv|provenance\.json|images(/\d{6,}\.png)?|\d{5,}\.nii\.gz|\d{6,}\.dcm", re.ASCII
)
Writer = Callable[[Path, Dataset, Mapping[str, Any]], None]


def export(dataset: Dataset, out: Path, file_format: str) -> None:
    """Writes synthetic slices in a format that others read.

    Args:
        dataset: Generated slices (``BalancedBatch.to_dataset``), or a phantom.
        out: File (parquet, npz) or folder (the others); replaced as a whole when complete.
        file_format: One of ``FORMATS``.

    Raises:
        DataError: a row is neither generated nor a phantom's, there is none, there is no such
            format, a factor has the name of a column of ``labels.csv``, or something else than an
            export stands at ``out``.
        StorageError: it cannot be written; nothing half-written is left.
    """
    if file_format not in FORMATS:
        raise DataError(f"there is no format {file_format!r}", allowed=", ".join(FORMATS))
    _check_fictional(dataset)
    _check_names(dataset, file_format)
    _check_place(out, file_format)
    provenance = provenance_of(dataset)
    marked = _marked(dataset, provenance)
    with replace_when_complete(out) as temporary:
        if file_format not in ONE_FILE:
            temporary.mkdir()
            document = json.dumps(provenance | {"format": file_format}, indent=1)
            (temporary / PROVENANCE).write_text(document + "\n", encoding="utf-8")
        _writer(file_format)(temporary, marked, provenance)


def provenance_of(dataset: Dataset) -> dict[str, Any]:
    """What every exported file tells of its origin, JSON values: mark, source, digest, model.

    With the cell and seed that files tell of each generated image it can be made again.
    """
    told: dict[str, Any] = {
        "synthetic": True,
        "notice": NOTICE,
        "source": dataset.meta.source,
        "dataset": dataset.digest,
        "exported_by": code_version(),
    }
    model = dataset.meta.extra.get("provenance")
    return told | ({"generated_by": model} if model else {})


def row_facts(dataset: Dataset, row: int) -> dict[str, Any]:
    """Cell and, where they are known, seed and number of one image; JSON values."""
    cell = dataset.cells[row]
    facts: dict[str, Any] = {"cell": None if cell is None else str(cell)}
    for name in ("seed", "index", "unseen"):
        if name in dataset.table.column_names:
            facts[name] = dataset.table[name][row].as_py()
    return facts


def write_labels(
    folder: Path, dataset: Dataset, files: Sequence[str], numbers: Sequence[int]
) -> None:
    """Writes ``labels.csv``: a line a slice, with which the export can be imported again.

    Args:
        folder: Where to.
        dataset: Marked slices.
        files: The file of each row.
        numbers: The number of each row's slice in that file or scan, from 0 towards the vertex.
    """
    told = [f.name for f in dataset.table.schema if not pa.types.is_nested(f.type)]
    columns = [dataset.table[name].to_pylist() for name in told]
    end = [NOTICE, dataset.meta.extra["export"]["dataset"]]
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*_BEFORE, *told, *_AFTER])
        for file, number, *values in zip(files, numbers, *columns, strict=True):
            writer.writerow([file, number, *("" if v is None else v for v in values), *end])


# -- what may leave, and its mark ------------------------------------------------------------------


def _check_fictional(dataset: Dataset) -> None:
    if not len(dataset):
        raise DataError("there is no slice to export", do="choose another data set or cell")
    real = int((~dataset.column("synthetic").astype(bool)).sum())
    if real and dataset.meta.pseudonym_key != FICTION:
        raise DataError(
            f"{real} of {len(dataset)} slices are neither generated nor a phantom's",
            allowed="slices marked synthetic, and phantoms (pseudonym key 'fiction'): an export "
            "says of every slice that it is synthetic",
            do="export a generated batch or a phantom; real slices stay in their Parquet file",
        )


def _check_names(dataset: Dataset, file_format: str) -> None:
    taken = [name for name in dataset.meta.space.names if name in (*_BEFORE, *_AFTER)]
    if taken and file_format not in ONE_FILE:
        raise DataError(
            f"factors are named {taken}, as columns of {LABELS} are that tell something else",
            allowed=f"any name but {', '.join((*_BEFORE, *_AFTER))}; any at all as "
            + " or ".join(ONE_FILE),
            do="choose one of these formats, or import the images again with the label renamed",
        )


def _check_place(out: Path, file_format: str) -> None:
    is_folder = file_format not in ONE_FILE
    if out.exists() and out.is_dir() != is_folder:
        raise DataError(
            f"{out} is a {'folder' if out.is_dir() else 'file'}",
            allowed=f"a {'folder' if is_folder else 'file'}, or a path where nothing is",
            do="choose another --out",
        )
    if is_folder and out.exists() and any(out.iterdir()) and not _is_export(out):
        raise DataError(
            f"{out} holds something else than an export, which would be lost",
            allowed="a new or empty folder, or an older export with nothing beside it",
            do="choose another --out",
        )


def _is_export(folder: Path) -> bool:
    """Whether a folder holds what an export makes, told by its notice, and nothing else."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    try:
        told = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    made = all(_MADE.fullmatch(name) for name in names)
    return made and isinstance(told, dict) and told.get("notice") == NOTICE


def _marked(dataset: Dataset, provenance: Mapping[str, Any]) -> Dataset:
    """Every row synthetic, patients of their own, the provenance in the metadata."""
    table, meta = dataset.table, dataset.meta
    columns: dict[str, pa.Array] = {"synthetic": pa.array([True] * len(dataset), pa.bool_())}
    if meta.pseudonym_key != FICTION:  # even a pseudonym of somebody real stays here
        for name in ("patient_id", "scan_id"):
            numbers = np.unique(dataset.column(name).astype(str), return_inverse=True)[1]
            ids = [f"synthetic-{dataset.digest[:8]}-{n:05d}" for n in numbers.tolist()]
            columns[name] = pa.array(ids, pa.string())
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    extra = dict(meta.extra) | {"export": dict(provenance)}
    return Dataset(table, replace(meta, pseudonym_key=FICTION, extra=extra))


# -- formats ---------------------------------------------------------------------------------------


def _writer(file_format: str) -> Writer:
    """The writer; only the libraries of the format asked for are loaded."""
    if file_format == "png":
        from fastgan_aug.data.exporters.png import write_png

        return write_png
    if file_format == "nifti":
        from fastgan_aug.data.exporters.nifti import write_nifti

        return write_nifti
    if file_format == "dicom":
        from fastgan_aug.data.exporters.dicom import write_dicom

        return write_dicom
    return _write_npz if file_format == "npz" else _write_parquet


def _write_parquet(path: Path, dataset: Dataset, provenance: Mapping[str, Any]) -> None:
    dataset.write(path)  # the provenance is in its metadata


def _write_npz(path: Path, dataset: Dataset, provenance: Mapping[str, Any]) -> None:
    """Arrays without objects, so that they load with ``allow_pickle`` off.

    ``images`` (N, S, S) float32; ``factors`` (F,) names, ``labels`` (N, F) values, empty where a
    slice has none; ``cells``; ``seeds`` of generated slices; the other columns by their names;
    ``provenance`` a JSON text.
    """
    names = list(dataset.meta.space.names)
    values = [["" if v is None else v for v in dataset.table[n].to_pylist()] for n in names]
    arrays: dict[str, Any] = {
        "images": dataset.images,
        "factors": np.asarray(names, np.str_),
        "labels": np.asarray(values, np.str_).T,
        "cells": np.asarray(["" if c is None else str(c) for c in dataset.cells], np.str_),
        "provenance": np.asarray(json.dumps(provenance), np.str_),
    }
    for field in dataset.table.schema:
        if field.name in {*names, *arrays} or pa.types.is_nested(field.type):
            continue
        column = dataset.column(field.name)
        if column.dtype == object:
            column = np.asarray(["" if v is None else str(v) for v in column], np.str_)
        arrays["seeds" if field.name == "seed" else field.name] = column
    with path.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
