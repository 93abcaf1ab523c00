"""`fastgan-aug data export` and `fastgan-aug data withdraw`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fastgan_aug.cli.data_tables import print_written
from fastgan_aug.cli.own_input import keep_inputs

if TYPE_CHECKING:
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.mlflow_sightings import Sighting

_OUT = typer.Option("--out", "-o", help="File (parquet, npz) or folder (png, nifti, dicom).")
_FORMAT = typer.Option("--format", "-f", help="parquet, npz, png, nifti or dicom.")
ADVICE = {
    True: "saw the patient: retrain without them, then move the alias to the new version",
    False: "did not see the patient",
    None: "cannot tell",
}


def export(
    data: Annotated[Path, typer.Argument(help="A generated batch or a phantom (Parquet).")],
    out: Annotated[Path, _OUT],
    file_format: Annotated[str, _FORMAT],
    cell: Annotated[
        list[str] | None, typer.Option(help="Only the slices of this cell; repeat it.")
    ] = None,
) -> None:
    """Write synthetic slices in formats that others read, each marked as synthetic.

    Slices of real patients are refused: no export goes without the mark.
    """
    from fastgan_aug.data.exporters.export import export as write

    keep_inputs(out, [data])
    dataset = _of_cells(_read(data), cell or [])
    console = Console()
    with console.status("Writing"):
        write(dataset, out, file_format)
    _say(
        console,
        f"Wrote {out}: {len(dataset)} slices as {file_format}, marked synthetic, from data set "
        f"{dataset.digest}",
    )


def withdraw(
    pseudonym: Annotated[str, typer.Argument(help="The patient's pseudonym in the data set.")],
    data: Annotated[Path, typer.Option(help="Data set (Parquet), rewritten without them.")],
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow, whose versions are looked at."),
    ] = None,
    no_models: Annotated[
        bool, typer.Option("--no-models", help="Remove without asking any MLflow who saw them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it, change nothing.")] = False,
) -> None:
    """Remove a patient from a data set, and list the model versions that saw them.

    No model and no alias is touched: what to do with them is said. Versions are listed even where
    the data set holds the patient no longer.
    """
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.withdrawal import without_patient
    from fastgan_aug.errors import DataError

    if no_models:
        tracking_uri = None
    elif tracking_uri is None and not dry_run:
        raise typer.BadParameter(
            "give MLflow's address, or --no-models: the versions that saw the patient are part of "
            "a withdrawal",
            param_hint="--tracking-uri",
        )
    console = Console()
    before = Dataset.read(data)
    # Before anything is changed, so that what cannot be looked up is not removed.
    sightings = _sightings(before, pseudonym, tracking_uri)
    try:
        after = without_patient(before, pseudonym)
    except DataError:  # removed before, or the only patient: who saw them is told all the same
        if sightings is not None:
            _print_sightings(sightings, console)
        raise
    gone = f"{len(before) - len(after)} of {len(before)} slices of {pseudonym}"
    if dry_run:
        _say(console, f"Would remove {gone} from {data}; nothing was changed")
    else:
        after.write(data)
        _say(console, f"Removed {gone}. Copies of the old file are yours to delete")
        print_written(after, data, console)
    _print_sightings(sightings, console)


def _read(path: Path) -> Dataset:
    """A data set, or a generated batch as one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fastgan_aug.data.dataset import Dataset
    from serving.batch import BalancedBatch
    from serving.protocol import METADATA_KEY

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return Dataset.read(path)  # says what is wrong with it
    return BalancedBatch.read(path).to_dataset() if METADATA_KEY in metadata else Dataset.read(path)


def _of_cells(dataset: Dataset, cells: list[str]) -> Dataset:
    import numpy as np

    if not cells:
        return dataset
    space = dataset.meta.space
    wanted = [space.index(space.parse(name)) for name in cells]
    return dataset.take(np.isin(dataset.cell_index, wanted))


def _sightings(dataset: Dataset, pseudonym: str, uri: str | None) -> list[Sighting] | None:
    if uri is None:
        return None
    from fastgan_aug.data.pseudonyms import patient_digest
    from fastgan_aug.engines.mlflow_sightings import sightings

    return sightings(patient_digest(pseudonym), dataset.meta.pseudonym_key, uri)


def _print_sightings(found: list[Sighting] | None, console: Console) -> None:
    if found is None:
        _say(
            console,
            "Model versions were not looked at. MLflow tells which of them saw the patient where "
            "--tracking-uri gives its address, after the removal too",
        )
        return
    table = Table("version", "aliases", "the patient", title="Registered model versions")
    for sighting in found:
        said = ADVICE[sighting.saw] + (f": {sighting.why}" if sighting.why else "")
        version = sighting.version
        style = {True: "bold red", False: None, None: "yellow"}[sighting.saw]
        table.add_row(version.uri, ", ".join(version.aliases) or "none", said, style=style)
    console.print(table)
    seen, unknown = (sum(s.saw is answer for s in found) for answer in (True, None))
    _say(
        console,
        f"{seen} of {len(found)} versions saw the patient; of {unknown} it cannot be told. "
        "Nothing was changed there: retrain (`fastgan-aug train`), register, move the alias "
        "(`fastgan-aug promote`), then delete the old versions in MLflow",
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
