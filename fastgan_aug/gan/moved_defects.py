"""Slices of one head with the defects of others, by a label rule (`data.augment.SideRule`).

Where a value says that one side of a slice is affected, the other side, mirrored, tells what the
affected one would have been: their ratio is the defect. It can be put on any head of the same
level, and two of them on both sides of one. So hundreds of one-sided slices say what eight
two-sided ones cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastgan_aug.data.augment import SideCells
from fastgan_aug.gan.descriptors import columns_at, midlines, outlines, resampled

SEAM = 1 / 64  # of the side: the width over which one side passes into the other
BLUR = 1.5 / 64  # of the side: sigma before a ratio is taken, so that noise is none
INSIDE = 0.15  # of the maximum, of the healthy head: outside there is no ratio to take
SMALLEST, LARGEST = 0.1, 1.3  # what is left of the counts at most and at least
PART = 256  # slices made at a time


@dataclass(frozen=True)
class Frames:
    """Where heads are and how large.

    Attributes:
        axis: (N, 1) column of the axis of symmetry.
        outline: (N, 3) of ``descriptors.outlines``.
    """

    axis: Tensor
    outline: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> Frames:
        """Of (N, S, S) counts in [0, 1]."""
        return cls(midlines(counts)[:, None], outlines(counts))

    def take(self, rows: Tensor) -> Frames:
        """Those of some rows."""
        return Frames(self.axis[rows], self.outline[rows])


@dataclass(frozen=True)
class Lenders:
    """The heads of one level, and the defects that were found on them.

    Attributes:
        heads: (H, S, S) counts of heads without a defect, maximum 1: the healthy slices, and the
            healthy sides of the others, mirrored.
        head_frames: Theirs.
        defects: (N, S, S) what is left of the counts, at lower columns; 1 elsewhere.
        defect_frames: Of the slices that they were found on.
        higher: (N,) whether a defect was found at higher columns.
    """

    heads: Tensor
    head_frames: Frames
    defects: Tensor
    defect_frames: Frames
    higher: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, healthy: Tensor, one_sided: Tensor) -> Lenders:
        """Takes defects off.

        Args:
            healthy: (H, S, S) counts in [0, 1]; there may be none.
            one_sided: (N, S, S), one or more.
        """
        turned, higher = _affected_low(one_sided)
        size = turned.shape[-1]
        at, axis = _places(turned), midlines(turned)[:, None]
        mirrored = columns_at(turned, 2 * axis - at)
        share = torch.sigmoid((at - axis) / (SEAM * size))[:, None]
        whole = torch.lerp(mirrored, turned, share)
        smooth = _blurred(whole)
        left = (_blurred(turned) / smooth.clamp_min(1e-3)).clamp(SMALLEST, LARGEST)
        defects = torch.where(smooth > INSIDE, left, 1.0)
        whole = whole / whole.amax((1, 2), keepdim=True).clamp_min(1e-6)
        heads = torch.cat([healthy, whole])
        return cls(heads, Frames.of(heads), defects, Frames.of(whole), higher)

    @torch.no_grad()
    def slices(self, number: int, sides: int, random: np.random.Generator) -> Tensor:
        """New slices, each of a head and of one or two defects drawn at random.

        One defect stays on the side that it was found on. Two are of different slices.

        Args:
            number: How many.
            sides: 1 or 2; two want two defects or more.
            random: Draws them.

        Returns:
            (number, S, S) counts in [0, 1], maximum 1.
        """
        count = len(self.defects)
        head = torch.from_numpy(random.integers(len(self.heads), size=number))
        first = random.integers(count, size=number)
        made = []
        second = (first + random.integers(1, max(count, 2), number)) % count
        for at in range(0, number, PART):
            part = slice(at, at + PART)
            frames = self.head_frames.take(head[part])
            one = torch.from_numpy(first[part])
            if sides == 1:
                left = self._moved(one, frames, self.higher[one])
            else:
                lower = torch.zeros(len(one), dtype=torch.bool)
                left = self._moved(one, frames, lower)
                left = left * self._moved(torch.from_numpy(second[part]), frames, ~lower)
            counts = self.heads[head[part]] * left
            made.append(counts / counts.amax((1, 2), keepdim=True).clamp_min(1e-6))
        return torch.cat(made) if made else self.heads[:0]

    def _moved(self, rows: Tensor, onto: Frames, higher: Tensor) -> Tensor:
        """Defects in the frames of other heads, mirrored where they belong at higher columns."""
        own, at = self.defect_frames.take(rows), _places(self.defects)
        height, width = (own.outline[:, 1:] - onto.outline[:, 1:]).exp()[:, None].unbind(2)
        lines = (at - onto.outline[:, :1]) * height + own.outline[:, :1]
        away = (at - onto.axis) * width
        columns = own.axis + torch.where(higher[:, None], -away, away)
        return resampled(self.defects[rows] - 1, lines, columns) + 1


def lenders_of(
    images: NDArray[np.float32], cells: NDArray[np.int64], group: SideCells
) -> Lenders | None:
    """What the slices of a group of cells lend; None where fewer than two show one side affected.

    Args:
        images: (N, S, S) float32 in [0, 1], real slices.
        cells: (N,) cell of each.
        group: The cells.
    """
    if (cells == group.one).sum() < 2:
        return None
    healthy, one_sided = (torch.from_numpy(images[cells == k]) for k in (group.none, group.one))
    return Lenders.of(healthy, one_sided)


def moved_slices(
    images: NDArray[np.float32],
    cells: NDArray[np.int64],
    groups: Sequence[SideCells],
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As many new slices as bring the affected cells up to the number of their healthy one.

    A cell without any slice of its own gets none: what was never seen stays unseen.

    Args:
        images: (N, S, S) float32 in [0, 1], real slices.
        cells: (N,) cell of each.
        groups: Cells by how many sides are affected (`affected_cells`).
        random: Chooses heads and defects.

    Returns:
        (M, S, S) float32 in [0, 1], maximum 1, and (M,) their cells.
    """
    made, of = [images[:0]], [cells[:0]]
    for group in groups:
        lenders = lenders_of(images, cells, group)
        wanted = int((cells == group.none).sum())
        for sides, cell in ((1, group.one), (2, group.both)):
            own = int((cells == cell).sum())
            if lenders is None or not own or own >= wanted:
                continue
            made.append(lenders.slices(wanted - own, sides, random).numpy())
            of.append(np.full(wanted - own, cell, np.int64))
    return np.concatenate(made), np.concatenate(of)


def _affected_low(counts: Tensor) -> tuple[Tensor, Tensor]:
    """The slices, mirrored where higher columns have fewer counts; and whether they were."""
    axis = midlines(counts)
    # A column under the axis is of both sides.
    side = (_places(counts) - axis[:, None]).clamp(-0.5, 0.5)
    higher = (counts.sum(1) * side).sum(1) < 0
    return torch.where(higher[:, None, None], counts.flip(-1), counts), higher


def _places(counts: Tensor) -> Tensor:
    return torch.arange(counts.shape[-1], dtype=counts.dtype)


def _blurred(counts: Tensor) -> Tensor:
    """Gaussian blur of (N, S, S); the edge is repeated."""
    sigma = BLUR * counts.shape[-1]
    radius = int(3 * sigma + 0.5)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=counts.dtype) / sigma) ** 2)
    line = line / line.sum()
    padded = F.pad(counts[:, None], (radius,) * 4, mode="replicate")
    across = F.conv2d(padded, line[None, None, None])
    return F.conv2d(across, line[None, None, :, None])[:, 0]
