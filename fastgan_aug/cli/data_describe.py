"""`fastgan-aug data describe` and `fastgan-aug data compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastgan_aug.cli.data_tables import print_cells, print_facts
from fastgan_aug.cli.own_input import keep_inputs

if TYPE_CHECKING:
    from fastgan_aug.quality.clinical.comparison import Comparison


def describe(
    path: Annotated[Path, typer.Argument(help="Data set, a Parquet file.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML page to write; by default PATH with .html.")
    ] = None,
    per_cell: Annotated[int, typer.Option(min=1, help="Example slices of each cell.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the choice of examples.")] = 0,
) -> None:
    """Print cells, facts and digest; write a page to look at.

    The page stands alone: counts, examples, mean and SD maps, distributions, findings, provenance.
    """
    from fastgan_aug.cli.data_validate import summary
    from fastgan_aug.cli.describe_page import write_describe_page
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.data.validation.validate import validate

    target = out or path.with_suffix(".html")
    keep_inputs(target, [path])
    dataset = Dataset.read(path)
    console = Console()
    print_cells(dataset, console)
    print_facts(dataset, console)
    findings = validate(dataset)
    console.print(f"Validation: {summary(findings)}", highlight=False)
    write_describe_page(dataset, findings, target, per_cell, seed)
    console.print(f"Page: {target}", highlight=False, soft_wrap=True)


def compare(
    first: Annotated[Path, typer.Argument(help="Data set, a Parquet file (a phantom, say).")],
    second: Annotated[Path, typer.Argument(help="Data set to see it beside (real slices, say).")],
    pixel_mm_a: Annotated[
        float | None, typer.Option(min=0.01, help="Pixel edge of the first, where it has none.")
    ] = None,
    pixel_mm_b: Annotated[
        float | None, typer.Option(min=0.01, help="Pixel edge of the second, where it has none.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML page to write; by default FIRST-beside-SECOND.html.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """See two data sets side by side: spectrum, width, mean counts, asymmetry, contrast.

    Prints the figures of all slices together; the page has them for each shared value too.
    """
    from fastgan_aug.cli.compare_page import write_compare_page
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.quality.clinical.comparison import measure, pixel_edges

    target = out or first.with_name(f"{first.stem}-beside-{second.stem}.html")
    keep_inputs(target, [first, second])
    datasets = Dataset.read(first), Dataset.read(second)
    pixels = pixel_edges(*datasets, pixel_mm_a, pixel_mm_b)
    edges = pixels or (None, None)
    measured = measure(datasets[0], edges[0]), measure(datasets[1], edges[1])
    names = first.stem, second.stem
    table = write_compare_page(datasets, names, pixels, measured, target)
    console = Console()
    if json_:
        from dataclasses import asdict

        console.print_json(data=[_without_nan(asdict(row)) for row in table])
        return
    _print_comparison(table, names, console)
    if pixels is None:
        console.print(
            "A pixel edge is unknown: lengths are shares of the picture. "
            "Give it with --pixel-mm-a or --pixel-mm-b.", highlight=False,
        )  # fmt: skip
    console.print(f"Page: {target}", highlight=False, soft_wrap=True)


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and isnan(value) else value

    return {name: plain(value) for name, value in row.items()}


def _print_comparison(
    comparisons: Sequence[Comparison], names: tuple[str, str], console: Console
) -> None:
    """The figures of all slices, and of what tells the values of a factor apart."""
    from fastgan_aug.cli.page import figure

    table = Table("", *map(escape, names), "difference", "KS", title="Median (middle half)")
    for row in comparisons:
        if row.group != "all" and not row.measure.startswith("p99"):
            continue
        group = "" if row.group == "all" else f", {row.group}"
        unit = f" \\[{row.unit}]" if row.unit else ""
        sides = [
            f"{figure(m)} ({figure(low)}–{figure(high)})"
            for low, m, high in (row.first, row.second)
        ]
        table.add_row(
            f"{escape(row.measure)}{unit}{escape(group)}", *sides,
            figure(row.difference), figure(row.ks),
        )  # fmt: skip
    console.print(table)
