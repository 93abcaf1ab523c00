"""The table of an import: what became of each item, and how to find it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from fastgan_aug.data.importers.importing import Import, Item


def print_items(imported: Import, console: Console, *, dry_run: bool) -> None:
    """Prints an item a row; lines that were taken without a remark share one."""
    table = Table("item", title="What would be taken" if dry_run else "What was taken")
    for name in ("slices", "labelled", "neighbours"):
        table.add_column(name, justify="right")
    table.add_column("why refused, or what to know", overflow="fold")
    listed = [item for item in imported.items if item.slices or item.refused or item.warnings]
    for item in listed:
        _add(table, item)
    plain = [i for i in imported.items if not (i.slices or i.refused or i.warnings)]
    if plain:
        labelled, beside = sum(i.labelled for i in plain), sum(i.neighbours for i in plain)
        name = f"{len(plain)} {'others' if listed else 'items'}"
        table.add_row(name, "", _count(labelled), _count(beside), "taken")
    console.print(table)
    _print_how_to_find(imported, console)
    for warning in imported.warnings:
        console.print(Text(f"warning: {warning}", "yellow"), soft_wrap=True)


def _add(table: Table, item: Item) -> None:
    counts = [_count(n) for n in (item.slices, item.labelled, item.neighbours)]
    remark = Text(f"refused: {item.refused}", "red") if item.refused else None
    said = Text("; ".join(item.warnings) or "taken", "yellow" if item.warnings else "")
    table.add_row(item.where, *counts, remark or said)


def _count(number: int) -> str:
    return str(number) if number else ""


def _print_how_to_find(imported: Import, console: Console) -> None:
    """Items are numbers, since names of files may be names of patients."""
    kinds = {item.where.partition(" ")[0].rstrip("s") for item in imported.items}
    if "file" in kinds:
        console.print(
            "File 7, for example, is: find ROOT/ -type f | LC_ALL=C sort | sed -n 7p",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    if "line" in kinds:
        console.print("Lines are those of the labels, the header being line 1.", highlight=False)


def print_outcome(imported: Import, console: Console, *, dry_run: bool) -> None:
    """Prints how much was refused, where something was."""
    refused, items = len(imported.refused), len(imported.items)
    if imported.dataset is None:
        console.print(
            Text(f"Nothing could be taken: {refused} of {items} items were refused.", "bold red"),
            soft_wrap=True,
        )
    elif refused:
        others = "the others would be taken" if dry_run else "the others are in"
        said = f"{refused} of {items} items were refused; {others}."
        console.print(Text(said, "bold yellow"), soft_wrap=True)
