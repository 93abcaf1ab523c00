"""`fastgan-aug data validate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fastgan_aug.data.validation.finding import Finding

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def validate(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Data set, a Parquet file; several are the sides of a split."),
    ],
    json_: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON instead of a table.")
    ] = False,
) -> None:
    """Look a data set over: what must not be fitted, what weakens a claim, and what to do.

    Looks for empty and thin cells, constant, clipped and cut images, copies of a slice under two
    patients, scans or labels, mirrored slices, lost counts and positions. Several data sets must
    share no patient and no slice. The exit code is 1 where there are errors.
    """
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.validation.finding import ERROR
    from fastgan_aug.data.validation.validate import validate as look_over

    findings = look_over(*[Dataset.read(path) for path in paths])
    console = Console()
    if json_:
        from dataclasses import asdict

        console.print_json(data=[asdict(finding) for finding in findings])
    else:
        print_findings(findings, console)
    if any(finding.severity == ERROR for finding in findings):
        raise typer.Exit(1)


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """Prints a table of findings, and how many of each severity there are."""
    if not findings:
        console.print("[green]Nothing to report:[/] the data can be fitted.")
        return
    table = Table.grid(padding=(0, 2, 1, 0))
    for finding in findings:
        said = f"{escape(finding.what)}\n[dim]→ {escape(finding.advice)}[/]"
        style = _STYLES[finding.severity]
        where = f"{escape(finding.where)}\n[dim]{finding.code}[/]"
        table.add_row(f"[{style}]{finding.severity}[/]", where, said)
    console.print(table)
    console.print(summary(findings), highlight=False)


def summary(findings: Sequence[Finding]) -> str:
    """``1 error, 2 warnings, 0 notes: errors block a fit``."""
    from fastgan_aug.data.validation.finding import SEVERITIES, plural

    counts = {s: sum(f.severity == s for f in findings) for s in SEVERITIES}
    said = ", ".join(plural(count, severity) for severity, count in counts.items())
    return said + (": errors block a fit" if counts["error"] else ": the data can be fitted")


def print_warnings(findings: Sequence[Finding], console: Console) -> None:
    """Prints a line for each warning, as before a fit."""
    for finding in findings:
        if finding.severity == "warning":
            said = f"{escape(finding.where)}: {escape(finding.what)}"
            console.print(f"[yellow]warning[/] {said}", highlight=False, soft_wrap=True)
