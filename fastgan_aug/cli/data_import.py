"""`fastgan-aug data import`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from fastgan_aug.cli.data_tables import print_cells, print_written
from fastgan_aug.cli.import_report import print_items, print_outcome
from fastgan_aug.cli.own_input import keep_inputs

if TYPE_CHECKING:
    from fastgan_aug.data.importers.importing import Import
    from fastgan_aug.data.pseudonyms import PseudonymKey

EPILOG = """Examples:

fastgan-aug data import slices/ --factor pattern --z slice_index --out scans.parquet

fastgan-aug data import dicom/ --labels chosen.csv --factor level --factor pattern --dry-run

fastgan-aug data import volumes/ --factor pattern=normal,ill --scan visit --out scans.parquet

fastgan-aug data import bloodmnist.npz --factor cell --out blood.parquet
"""


class Format(StrEnum):
    """What is imported."""

    auto = "auto"
    folder = "folder"
    dicom = "dicom"
    nifti = "nifti"
    npz = "npz"


# Options beyond those of every format, by the format that reads them.
_READ_BY = {
    "--patient": ("folder", "dicom", "nifti"),
    "--file": ("folder", "dicom", "nifti"),
    "--labels": ("folder", "dicom", "nifti"),
    "--scan": ("folder", "nifti"),
    "--z": ("folder",),
    "--pixel-mm": ("folder",),
    "--laterality": ("folder",),
    "--no-patients": ("folder", "npz"),
}


def import_(
    root: Annotated[
        Path, typer.Argument(help="Folder of images, DICOM or NIfTI files; or an .npz archive.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Parquet file to write.")
    ] = None,
    factor: Annotated[
        list[str] | None,
        typer.Option(help="Label column, or NAME=VALUE,VALUE to declare its values; repeat it."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with a row per image, or per slice of a volume (columns file and "
                     "slice, from 0 towards the vertex); here, or in ROOT. \\[default: labels.csv]",
                     show_default=False),
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="By default told by the names in the labels.")
    ] = Format.auto,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be taken; write nothing.")
    ] = False,
    size: Annotated[
        int, typer.Option(min=8, max=1024, help="Rows and columns; others are resampled.")
    ] = 64,
    patient: Annotated[
        str | None, typer.Option(help="Column of patients \\[default: patient_id]; DICOM headers "
                                 "tell them too.", show_default=False)
    ] = None,
    scan: Annotated[
        str | None, typer.Option(help="Column of scans (folder, NIfTI).")
    ] = None,
    z: Annotated[
        str | None,
        typer.Option(help="Column of positions towards the vertex: mm with --pixel-mm, else the "
                     "slice index (folder)."),
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Column of file names \\[default: file].", show_default=False)
    ] = None,
    pixel_mm: Annotated[
        float | None, typer.Option(help="Edge of the images' pixels in mm (folder).")
    ] = None,
    laterality: Annotated[
        str | None,
        typer.Option(help="'radiological' only if row 0 is known to be anterior and column 0 the "
                     "patient's right; by default 'unverified' (folder)."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="File of the secret key that makes pseudonyms; by default one of your "
                     "own, made on first use."),
    ] = None,
    no_patients: Annotated[
        bool, typer.Option("--no-patients", help="Each image is a group of its own: nothing may "
                           "be claimed from it (folder, npz).")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="Where the images come from, without identifiers.")
    ] = None,
) -> None:  # fmt: skip
    """Import a folder of images, DICOM, NIfTI or an NPZ archive, with labels from a CSV.

    One bad file never stops the rest: a table says why each was refused.
    Patients and scans become pseudonyms. Slices without a value for every
    factor, and those beside the chosen slices of a volume, become
    neighbours: they serve the augmentation only.
    """
    console = Console()
    if out is None and not dry_run:
        raise typer.BadParameter("--out is needed, or --dry-run", param_hint="--out")
    if out is not None:
        keep_inputs(out, _read_files(root, labels, key))
    kind = _kind(format_, root, labels, file or "file")
    given = {"--patient": patient, "--file": file, "--labels": labels, "--scan": scan, "--z": z,
             "--pixel-mm": pixel_mm, "--laterality": laterality,
             "--no-patients": no_patients or None}  # fmt: skip
    _check_options(kind, given, factor)
    names, values = _factors(factor or ["label"])
    options = {"factors": names, "values": values, "size": size, "key": _key(key, dry_run, console)}
    if source is not None:
        options["source"] = source
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Reading", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        imported = _import(kind, root, options, given, advance)
    print_items(imported, console, dry_run=dry_run)
    if imported.dataset is not None:
        print_cells(imported.dataset, console)
    if imported.dataset is not None and not dry_run and out is not None:
        imported.dataset.write(out)
        print_written(imported.dataset, out, console)
    print_outcome(imported, console, dry_run=dry_run)
    if imported.dataset is None:
        raise typer.Exit(1)


def _kind(asked: Format, root: Path, labels: Path | None, file_column: str) -> str:
    """The format: as asked, or as the names in the labels tell."""
    from fastgan_aug.data.importers.labels import check_columns, read_rows
    from fastgan_aug.data.importers.nifti import SUFFIXES
    from fastgan_aug.data.importers.pictures import IMAGE_SUFFIXES
    from fastgan_aug.errors import DataError

    if not root.exists():
        raise DataError("there is nothing at the path to import", do="check the path")
    if root.is_file() and asked != Format.npz:
        if asked != Format.auto or root.suffix.lower() != ".npz":
            raise DataError(
                "the path to import is a single file",
                allowed="a folder of images, DICOM or NIfTI files; or an .npz archive",
                do="give the folder that holds the file, and name the file in the labels",
            )
        return "npz"
    if asked != Format.auto:
        return asked.value
    rows, *_ = read_rows(root, labels or Path("labels.csv"))
    check_columns(rows, [file_column])
    names = [row[file_column].lower() for row in rows]
    kinds = {
        "nifti" if n.endswith(SUFFIXES) else "folder" if n.endswith(IMAGE_SUFFIXES) else "dicom"
        for n in names
    }
    if len(kinds) > 1:
        raise DataError(
            "the labels name files of several formats",
            allowed=f"images ({', '.join(IMAGE_SUFFIXES)}), NIfTI ({', '.join(SUFFIXES)}) or DICOM",
            do="say which with --format, or import them one after the other",
        )
    return kinds.pop()


def _read_files(root: Path, labels: Path | None, key: Path | None) -> Iterator[Path]:
    """All that an import may read; no format reads Parquet, so that its own may be replaced."""
    from fastgan_aug.data.importers.gathering import numbered_files
    from fastgan_aug.data.importers.labels import labels_path
    from fastgan_aug.data.pseudonyms import default_key_path

    yield from (root, labels_path(root, labels or Path("labels.csv")), key or default_key_path())
    yield from (path for _, path in numbered_files(root) if path.suffix.lower() != ".parquet")


def _check_options(kind: str, given: Mapping[str, Any], factor: list[str] | None) -> None:
    for name, value in given.items():
        if value is not None and kind not in _READ_BY[name]:
            read_by = ", ".join(_READ_BY[name])
            raise typer.BadParameter(f"{name} is for {read_by}; this is {kind}", param_hint=name)
    if given["--no-patients"] and given["--patient"] is not None:
        raise typer.BadParameter("with --no-patients there is no --patient", param_hint="--patient")
    if not factor and kind != "npz":
        raise typer.BadParameter("name at least one label column", param_hint="--factor")
    if kind == "npz" and factor and len(factor) > 1:
        raise typer.BadParameter("an archive has one factor", param_hint="--factor")


def _key(path: Path | None, dry_run: bool, console: Console) -> PseudonymKey:
    """The key at ``path``, which must exist; without one the user's own, made on first use."""
    import secrets

    from fastgan_aug.data.pseudonyms import PseudonymKey, default_key_path

    if path is not None:
        return PseudonymKey.read(path)
    place = default_key_path()
    if dry_run and not place.exists():
        return PseudonymKey(secrets.token_bytes(32))
    key, made = PseudonymKey.read_or_create(place)
    if made:
        console.print(
            f"[bold yellow]Made a pseudonym key[/] at {place}. Keep it safe and never share it: "
            "with it pseudonyms can be traced to patients, without it the same patient gets "
            "another pseudonym in the next import.", highlight=False, soft_wrap=True,
        )  # fmt: skip
    return key


def _import(
    kind: str, root: Path, options: dict[str, Any], given: Mapping[str, Any], progress: Any
) -> Import:
    """Calls the format's importer with the options that it reads."""
    from fastgan_aug.data.importers.dicom import import_dicom
    from fastgan_aug.data.importers.folder import import_folder
    from fastgan_aug.data.importers.nifti import import_nifti
    from fastgan_aug.data.importers.npz import import_npz

    if kind == "npz":
        (name,), values = options.pop("factors"), options.pop("values")
        return import_npz(root, factor=name, values=values.get(name), **options)
    labels = given["--labels"] or Path("labels.csv")
    columns: dict[str, Any] = {
        "patient_column": given["--patient"] or "patient_id",
        "file_column": given["--file"] or "file",
    }
    if kind == "dicom":
        return import_dicom(root, labels, **columns, **options, progress=progress)
    columns["scan_column"] = given["--scan"]
    if kind == "nifti":
        return import_nifti(root, labels, **columns, **options, progress=progress)
    if given["--no-patients"]:
        columns["patient_column"] = None
    if given["--laterality"] is not None:
        options["laterality"] = given["--laterality"]
    return import_folder(
        root, labels, **columns, **options, z_column=given["--z"], pixel_mm=given["--pixel-mm"],
        progress=progress,
    )  # fmt: skip


def _factors(options: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """``["level", "pattern=normal,ill"]`` to names and declared values."""
    names, values = [], {}
    for option in options:
        name, equals, listed = option.partition("=")
        if name in names:
            raise typer.BadParameter(f"{name!r} is named twice", param_hint="--factor")
        names.append(name)
        if equals:
            values[name] = [value.strip() for value in listed.split(",")]
    return names, values
