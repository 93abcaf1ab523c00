"""`fastgan-aug`: assembles the commands and prints what went wrong."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console

from fastgan_aug.cli import (
    ablate,
    data,
    demo,
    downstream,
    evaluate,
    registry,
    reproduce,
    select,
    service,
    token,
    train,
)
from fastgan_aug.errors import FastGANAugError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Synthetic slices that fill the rare classes of a small image set, and the proof of what "
    "they are worth. Begin with [bold]fastgan-aug demo[/bold].",
)
app.add_typer(data.app, name="data")
for room in (
    demo,
    train,
    select,
    evaluate,
    ablate,
    reproduce,
    registry,
    service,
    token,
    downstream,
):
    room.register_commands(app)


@app.callback()
def _options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is done, to stderr."),
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Runs the command line; an expected error is one message and exit code 1."""
    try:
        app()
    except FastGANAugError as error:
        _explain(error)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in (
            "fastgan_aug",
            "serving",
            "downstream",
        ):
            raise
        Console(stderr=True).print(
            f"[bold red]error[/] this command needs the package {error.name!r}. "
            "What to do: pip install 'fastgan-aug\\[cluster]'"
        )
        sys.exit(1)


def _explain(error: FastGANAugError) -> None:
    console = Console(stderr=True)
    console.print(f"[bold red]error[/] ({error.code}) ", end="")
    console.print(error.what, markup=False, soft_wrap=True)
    if error.allowed:
        console.print(f"  allowed: {error.allowed}", markup=False, soft_wrap=True)
    if error.do:
        console.print(f"  what to do: {error.do}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
