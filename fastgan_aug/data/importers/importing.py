"""What an import gives: a data set of what could be taken, and why each other item was refused."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastgan_aug.data.dataset import Dataset


@dataclass(frozen=True)
class Item:
    """One file, series or line of the labels.

    Names of files may hold names of patients: an item is named by its number alone.

    Attributes:
        where: ``file 3`` (of all files below the root, sorted by path) or ``line 12`` of the
            labels.
        labelled: Slices taken with a label.
        neighbours: Slices taken as neighbours only.
        refused: Why nothing was taken of it; empty where something was.
        warnings: What the user should know of what was taken.
        slices: Slices of the volume, taken or not; 0 where the item is no volume.
    """

    where: str
    labelled: int = 0
    neighbours: int = 0
    refused: str = ""
    warnings: tuple[str, ...] = ()
    slices: int = 0


@dataclass(frozen=True)
class Import:
    """The outcome of an import.

    Attributes:
        dataset: What could be taken; None where nothing could.
        items: What became of each item, refused ones included.
        warnings: What the user should know of the whole.
    """

    dataset: Dataset | None
    items: list[Item] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    @property
    def refused(self) -> list[Item]:
        """The items of which nothing was taken."""
        return [item for item in self.items if item.refused]
