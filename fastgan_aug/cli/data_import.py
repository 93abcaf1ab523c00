"""`fastgan-aug data import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastgan_aug.cli.data_tables import print_cells, print_written

_OUT = typer.Option("--out", "-o", help="Parquet file to write.")


def import_(
    root: Annotated[Path, typer.Argument(help="Folder of the images (or of images/).")],
    out: Annotated[Path, _OUT],
    factor: Annotated[
        list[str],
        typer.Option(help="Label column, or NAME=VALUE,VALUE to declare its values; repeat it."),
    ],
    labels: Annotated[
        Path, typer.Option(help="CSV with a row per image; looked up here, then in ROOT.")
    ] = Path("labels.csv"),
    size: Annotated[int, typer.Option(min=8, help="Rows and columns; others are resampled.")] = 64,
    patient: Annotated[str, typer.Option(help="Column of patient pseudonyms.")] = "patient_id",
    scan: Annotated[str | None, typer.Option(help="Column of scans.")] = None,
    z: Annotated[
        str | None, typer.Option(help="Column of positions towards the vertex, mm or index.")
    ] = None,
    file: Annotated[str, typer.Option(help="Column of file names.")] = "file",
    laterality: Annotated[
        str,
        typer.Option(help="'radiological' only if column 0 is known to be the patient's right."),
    ] = "unverified",
    source: Annotated[
        str, typer.Option(help="Where the images come from, without identifiers.")
    ] = "folder of images",
) -> None:
    """Import a folder of PNG, TIFF or .npy images with a CSV of labels.

    Rows without a value for every factor become neighbours: they serve the augmentation only.
    """
    from fastgan_aug.data.folder import import_folder

    names, values = _factors(factor)
    console = Console()
    with console.status("Reading images"):
        dataset = import_folder(
            root, labels, factors=names, values=values, size=size, patient_column=patient,
            scan_column=scan, z_column=z, file_column=file, laterality=laterality, source=source,
        )  # fmt: skip
    dataset.write(out)
    print_cells(dataset, console)
    print_written(dataset, out, console)


def _factors(options: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """``["level", "pattern=normal,ill"]`` to names and declared values."""
    names, values = [], {}
    for option in options:
        name, equals, listed = option.partition("=")
        names.append(name)
        if equals:
            values[name] = [value.strip() for value in listed.split(",")]
    return names, values
