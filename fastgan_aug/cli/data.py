"""`fastgan-aug data`: make, import, check, look at and export data sets."""

from __future__ import annotations

import typer

from fastgan_aug.cli.data_describe import describe
from fastgan_aug.cli.data_import import import_
from fastgan_aug.cli.data_phantom import phantom

app = typer.Typer(
    help="Make, import, check, look at and export data sets (one Parquet file, a row a slice).",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command(epilog="Example: fastgan-aug data phantom --out phantom.parquet --seed 1")(phantom)
app.command(
    name="import",
    epilog="Example: fastgan-aug data import scans/ --labels labels.csv --factor level "
    "--factor pattern --z slice_index --out scans.parquet",
)(import_)
app.command(epilog="Example: fastgan-aug data describe phantom.parquet --sheet phantom.png")(
    describe
)
