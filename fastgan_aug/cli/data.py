"""`fastgan-aug data`: make, import, check, look at and export data sets."""

from __future__ import annotations

import typer

from fastgan_aug.cli.data_describe import compare, describe
from fastgan_aug.cli.data_export import export, withdraw
from fastgan_aug.cli.data_import import EPILOG as IMPORT_EXAMPLES
from fastgan_aug.cli.data_import import import_
from fastgan_aug.cli.data_phantom import phantom
from fastgan_aug.cli.data_validate import validate
from fastgan_aug.cli.signals import sigterm_as_ctrl_c

app = typer.Typer(
    help="Make, import, check, look at and export data sets (one Parquet file, a row a slice).",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.callback()(sigterm_as_ctrl_c)
app.command(epilog="Example: fastgan-aug data phantom --out phantom.parquet --seed 1")(phantom)
app.command(name="import", epilog=IMPORT_EXAMPLES)(import_)
app.command(epilog="Example: fastgan-aug data validate train.parquet test.parquet")(validate)
app.command(epilog="Example: fastgan-aug data describe phantom.parquet --out phantom.html")(
    describe
)
app.command(
    epilog="Example: fastgan-aug data compare phantom.parquet scans.parquet --pixel-mm-b 3.75"
)(compare)
app.command(epilog="Example: fastgan-aug data export batch.parquet --format dicom --out batch")(
    export
)
app.command(
    epilog="Example: fastgan-aug data withdraw PXDK2ZAMFCCO5KXTT --data scans.parquet "
    "--tracking-uri http://127.0.0.1:5000 --dry-run"
)(withdraw)
