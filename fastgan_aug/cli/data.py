"""`fastgan-aug data`: make, import and describe data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastgan_aug.data.dataset import Dataset

app = typer.Typer(
    help="Make, import and describe data sets (one Parquet file, a row a slice).",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_OUT = typer.Option("--out", "-o", help="Parquet file to write.")


@app.command(epilog="Example: fastgan-aug data phantom --out phantom.parquet --seed 1")
def phantom(
    out: Annotated[Path, _OUT],
    config: Annotated[
        str | None,
        typer.Option(help="Configuration (name or TOML) whose \\[phantom] section is drawn; "
                     "without it the counts of Werner et al. 2022, Table 1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the configuration's.")] = None,
) -> None:  # fmt: skip
    """Draw a digital phantom of brain perfusion SPECT."""
    from dataclasses import replace

    from rich.progress import Progress

    from fastgan_aug.data.phantom import PhantomConfig, make_phantom

    settings = PhantomConfig()
    if config is not None:
        from fastgan_aug.config import load_config

        settings = load_config(config).phantom or PhantomConfig()
    if seed is not None:
        settings = replace(settings, seed=seed)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Drawing patients", total=settings.patients)
        dataset = make_phantom(settings, lambda done, _: progress.update(task, completed=done))
    dataset.write(out)
    _print_cells(dataset, console)
    _print_written(dataset, out, console)


@app.command(
    name="import",
    epilog="Example: fastgan-aug data import scans/ --labels labels.csv --factor level "
    "--factor pattern --z slice_index --out scans.parquet",
)
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
    _print_cells(dataset, console)
    _print_written(dataset, out, console)


@app.command(epilog="Example: fastgan-aug data describe phantom.parquet --sheet phantom.png")
def describe(
    path: Annotated[Path, typer.Argument(help="Data set, a Parquet file.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write; by default PATH with .png.")
    ] = None,
    per_cell: Annotated[int, typer.Option(min=1, help="Example slices of each cell.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the choice of examples.")] = 0,
) -> None:
    """Print cells, facts and digest; write a contact sheet."""
    from fastgan_aug.data.contact_sheet import contact_sheet
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.storage import replace_when_complete

    dataset = Dataset.read(path)
    console = Console()
    _print_cells(dataset, console)
    _print_facts(dataset, console)
    target = sheet or path.with_suffix(".png")
    with replace_when_complete(target) as temporary:
        temporary.write_bytes(contact_sheet(dataset, per_cell, seed))
    console.print(f"Contact sheet: {target}", highlight=False, soft_wrap=True)


def _factors(options: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """``["level", "pattern=normal,ill"]`` to names and declared values."""
    names, values = [], {}
    for option in options:
        name, equals, listed = option.partition("=")
        names.append(name)
        if equals:
            values[name] = [value.strip() for value in listed.split(",")]
    return names, values


def _print_written(dataset: Dataset, out: Path, console: Console) -> None:
    console.print(f"Wrote {out}: {len(dataset)} slices", highlight=False, soft_wrap=True)
    console.print(f"Digest {dataset.digest}", highlight=False, soft_wrap=True)


def _print_cells(dataset: Dataset, console: Console) -> None:
    from fastgan_aug.data.schema import NEIGHBOUR

    table = Table("cell", title="Slices, patients and scans of each cell")
    for name in ("slices", "patients", "scans"):
        table.add_column(name, justify="right")
    patients, scans = dataset.column("patient_id"), dataset.column("scan_id")

    def line(name: str, rows: NDArray[np.bool_]) -> None:
        people, visits = set(patients[rows]), set(scans[rows])
        count = len(patients[rows])
        style = None if count else "dim"
        table.add_row(name, str(count), str(len(people)), str(len(visits)), style=style)

    for i, cell in enumerate(dataset.meta.space.cells):
        line(str(cell), dataset.cell_index == i)
    table.add_section()
    line("all labelled", dataset.labelled)
    line("neighbours", dataset.column("role") == NEIGHBOUR)
    console.print(table)


def _print_facts(dataset: Dataset, console: Console) -> None:
    meta = dataset.meta
    pixel = "unknown" if meta.pixel_mm is None else f"{meta.pixel_mm:g} mm"
    synthetic = int(dataset.column("synthetic").sum())
    units = ", ".join(sorted(set(dataset.table["unit"].to_pylist())))
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("source", meta.source),
        ("slices", f"{len(dataset)}, of which {synthetic} synthetic"),
        ("size", f"{meta.size} x {meta.size} pixels of {pixel}"),
        ("normalisation", f"{meta.normalisation}; scale in {units}"),
        ("laterality", meta.laterality),
        ("grouping", meta.grouping),
        ("digest", dataset.digest),
    ):
        facts.add_row(f"[bold]{name}[/bold]", value)
    console.print(facts)
