"""`fastgan-aug token`: a token for the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register_commands(app: typer.Typer) -> None:
    """Adds ``token`` to the command line."""
    app.command(epilog="Example: fastgan-aug token lab --file tokens.toml")(token)


def token(
    name: Annotated[str, typer.Argument(help="Whose it is; limits are counted by name.")],
    role: Annotated[str, typer.Option(help="generate, or admin: also status.")] = "generate",
    file: Annotated[
        Path | None, typer.Option(help="File of tokens to add it to; left out: print the entry.")
    ] = None,
    requests_per_minute: Annotated[float | None, typer.Option(help="Of each replica.")] = None,
    images_per_minute: Annotated[float | None, typer.Option(help="Of each replica.")] = None,
) -> None:
    """Make a bearer token, shown this once: only its hash is kept.

    A name may have two: add the new one, let the callers change, then remove the old entry.
    """
    from serving.server.tokens import add_to_file, entry_text, make_token

    limits = {
        "requests_per_minute": requests_per_minute,
        "images_per_minute": images_per_minute,
    }
    secret, entry = make_token(name, role, **limits)
    out, told = Console(soft_wrap=True, highlight=False), Console(stderr=True, highlight=False)
    if file is None:
        told.print("The entry for the file of tokens:\n")
        told.print(entry_text(entry), markup=False)
    else:
        add_to_file(entry, file)
        told.print(f"Added to {file}.", markup=False)
    told.print("The token, shown this once:")
    out.print(secret, markup=False)
