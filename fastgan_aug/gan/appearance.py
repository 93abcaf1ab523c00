"""`Appearance`: a statistical model of what the slices of each cell look like (Cootes et al. 2001).

A slice is described by few numbers: its frame (place and size), principal components of its coarse
picture within that frame, those that are symmetric about its own axis and those that are not, and
`descriptors`. For each cell the model holds how these numbers are distributed; where a rule tells
how slices can be made of others (`moved_defects`), it holds the numbers of many that were, since no
smooth distribution says that a defect is in one place of many. The generator draws them from its
latent, is given them and the coarse picture they mean, and adds everything else; in
training it is held to them. So the differences between the slices of a cell, and between cells,
need not be found by a discriminator that sees four slices of a cell at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastgan_aug.gan.descriptors import (
    FRAME,
    SIDES,
    SPECTRUM,
    midlines,
    outlines,
    resampled,
    resampled_by_products,
    ring_weights,
    side_descriptors,
    spectrum_descriptors,
)

COARSE = 32  # rows and columns of the coarse picture
SYMMETRIC = ASYMMETRIC = 32  # principal components
LINEAR = SYMMETRIC + ASYMMETRIC
DESCRIPTORS = LINEAR + SIDES + SPECTRUM + FRAME
# Of each number's error: the endpoints are few and have to be right; 64 others agree on the rest.
# The last, the frame, has no gradient.
WEIGHTS = torch.tensor([1.0] * LINEAR + [10.0] * 2 + [3.0] * (SIDES + SPECTRUM - 2) + [0.0] * FRAME)
FURTHEST = 1 / 8  # of the size: how far off the middle a slice is followed
LARGEST = 0.5  # log: how much larger or smaller than usual
# Standard normal values at which a marginal is kept; straight lines between and beyond.
FIRST, STEP, KNOTS = -2.0, 0.5, 9
EXAMPLES = 512  # slices with moved defects that a cell's numbers are drawn from
SMOOTHED = 0.3  # of the cell's spread: how far a draw may be off an example


class Appearance(nn.Module):
    """The model, in buffers: it is fitted before the training (`fit_appearance`), not by it.

    Args:
        size: Rows and columns of a slice, a multiple of COARSE.
        cells: How many cells.
        condition: Elements of a condition vector.
        examples: For each cell; 0 where no rule makes any.
    """

    vectors: Tensor  # (cells, C) condition of each cell
    aligned: Tensor  # 1 where slices are brought to one place and size, 0 where that is no help
    extent: Tensor  # (2,) usual log SD of rows and of columns of an outline
    mean: Tensor  # (COARSE**2,) mean coarse picture
    basis: Tensor  # (LINEAR, COARSE**2) orthonormal rows; 0 where there are fewer components
    centre: Tensor  # (DESCRIPTORS,) over all cells
    scale: Tensor  # (DESCRIPTORS,) SD over all cells
    cell_mean: Tensor  # (cells, DESCRIPTORS) of the slices
    cell_sd: Tensor  # (cells, DESCRIPTORS)
    knots: Tensor  # (cells, DESCRIPTORS, KNOTS) how far off the mean each standard normal value is
    follow: Tensor  # (cells, LINEAR, SIDES) how the components follow the sides
    keep: Tensor  # (cells, LINEAR, LINEAR) takes what the rest of them would say of the sides away
    weights: Tensor  # WEIGHTS
    rings: Tensor  # of the spectrum
    _offset: Tensor  # (S,) of each row or column from the middle
    mixing: Tensor  # (cells, DESCRIPTORS, DESCRIPTORS) Cholesky factor of the correlations
    examples: Tensor  # (cells, examples, DESCRIPTORS) how far off the mean made slices are
    exemplary: Tensor  # (cells,) 1 where there are such
    _edges: Tensor  # (examples - 1,) standard normal values between equally likely examples

    def __init__(self, size: int, cells: int, condition: int, examples: int = 0) -> None:
        super().__init__()
        self.size, self.shrink, self._middle = size, size // COARSE, (size - 1) / 2
        normal = FIRST + STEP * torch.arange(KNOTS)
        self.register_buffer("vectors", torch.zeros(cells, condition))
        self.register_buffer("aligned", torch.ones(()))
        self.register_buffer("extent", torch.full((2,), size / 4.0).log())
        self.register_buffer("mean", torch.zeros(COARSE**2))
        self.register_buffer("basis", torch.zeros(LINEAR, COARSE**2))
        self.register_buffer("centre", torch.zeros(DESCRIPTORS))
        self.register_buffer("scale", torch.ones(DESCRIPTORS))
        self.register_buffer("cell_mean", torch.zeros(cells, DESCRIPTORS))
        self.register_buffer("cell_sd", torch.ones(cells, DESCRIPTORS))
        self.register_buffer("knots", normal.repeat(cells, DESCRIPTORS, 1))
        self.register_buffer("follow", torch.zeros(cells, LINEAR, SIDES))
        self.register_buffer("keep", torch.eye(LINEAR).repeat(cells, 1, 1))
        self.register_buffer("weights", WEIGHTS.clone(), persistent=False)
        self.register_buffer("rings", ring_weights(size), persistent=False)
        self.register_buffer("_offset", torch.arange(size) - self._middle, persistent=False)
        self.register_buffer("mixing", torch.eye(DESCRIPTORS).repeat(cells, 1, 1))
        self.register_buffer("examples", torch.zeros(cells, examples, DESCRIPTORS))
        self.register_buffer("exemplary", torch.zeros(cells))
        levels = torch.arange(1, max(examples, 1), dtype=torch.float64) / max(examples, 1)
        self.register_buffer("_edges", torch.special.ndtri(levels).float(), persistent=False)

    def describe(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) in [-1, 1] to (B, DESCRIPTORS), float32, differentiable."""
        with torch.autocast(images.device.type, enabled=False):
            counts = (images[:, 0].float() + 1) / 2
            axis = midlines(counts)
            frame = self.frame(counts, axis)
            parts = (self.coarse(counts, frame) - self.mean) @ self.basis.T
            sides = side_descriptors(counts, axis)
            spectrum = spectrum_descriptors(counts, self.rings)
            return torch.cat([parts, sides, spectrum, frame], 1)

    def draw(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Descriptors of slices that might be.

        Args:
            noise: (B, DESCRIPTORS) N(0, 1).
            condition: (B, C).

        Returns:
            (B, DESCRIPTORS), distributed as in the cell.
        """
        with torch.autocast(noise.device.type, enabled=False):
            cell = self._cell(condition)
            normal = (self.mixing[cell] * noise.float()[:, None]).sum(2)
            place = (normal - FIRST) / STEP
            left = place.floor().clamp(0, KNOTS - 2)
            knots, at = self.knots[cell], left.long()[..., None]
            low, high = knots.gather(2, at)[..., 0], knots.gather(2, at + 1)[..., 0]
            apart = low + (high - low) * (place - left)
            # Components that were drawn one by one would be by far too asymmetric: they follow the
            # sides that were drawn, and what is left of them says nothing of the sides.
            sides = apart[:, LINEAR : LINEAR + SIDES]
            parts = (self.keep[cell] * apart[:, None, :LINEAR]).sum(2)
            parts = parts + (self.follow[cell] * sides[:, None]).sum(2)
            apart = torch.cat([parts, apart[:, LINEAR:]], 1)
            if self.examples.shape[1]:
                # Comparisons are exact: which example it is hangs on no last bit.
                which = (noise[:, :1].float() > self._edges).sum(1)
                near = (1 - SMOOTHED**2) ** 0.5 * self.examples[cell, which] + SMOOTHED * apart
                apart = torch.where(self.exemplary[cell][:, None] > 0, near, apart)
            return self.cell_mean[cell] + apart

    def picture(self, descriptors: Tensor) -> Tensor:
        """(B, DESCRIPTORS) to (B, 1, S, S) counts: what the principal components say alone."""
        with torch.autocast(descriptors.device.type, enabled=False):
            fine = self._fine(self.mean + descriptors[:, :LINEAR] @ self.basis)[:, 0]
            row, height, width, column = descriptors[:, -FRAME:, None].unbind(1)
            rows = (self._offset - row) * (-height).exp() + self._middle
            columns = (self._offset - column) * (-width).exp() + self._middle
            moved = resampled if self.training else resampled_by_products
            return moved(fine, rows, columns)[:, None]

    def standard(self, descriptors: Tensor) -> Tensor:
        """(B, DESCRIPTORS) in units of the SD over all cells, about their mean."""
        return (descriptors - self.centre) / self.scale

    def error(self, images: Tensor, wanted: Tensor, condition: Tensor) -> Tensor:
        """How far slices are from what was wanted: a Huber loss in units of the cell's SD.

        The unit is at least a tenth of the SD over all cells.

        Args:
            images: (B, 1, S, S) in [-1, 1].
            wanted: (B, DESCRIPTORS).
            condition: (B, C).

        Returns:
            Scalar.
        """
        # Of a cell whose slices hardly differ, not every trifle counts as much as a cell's spread.
        spread = torch.maximum(self.cell_sd[self._cell(condition)], self.scale / 10)
        off = (self.describe(images) - wanted) / spread
        each = F.smooth_l1_loss(off, torch.zeros_like(off), reduction="none")
        return (each * self.weights).sum(1).mean() / DESCRIPTORS

    def residuals(self, images: Tensor) -> list[Tensor]:
        """What the principal components leave of slices, at several scales.

        Args:
            images: (B, 1, S, S) in [-1, 1].

        Returns:
            (B, D) of several D.
        """
        counts = (images[:, 0].float() + 1) / 2
        picture = self.coarse(counts, self.frame(counts, midlines(counts)))
        apart = picture - self.mean
        left = apart - (apart @ self.basis.T) @ self.basis
        square = left.reshape(-1, 1, COARSE, COARSE)
        views = [left, F.avg_pool2d(square, 2).flatten(1)]
        if self.shrink > 1:
            smooth = F.avg_pool2d(counts[:, None], self.shrink).flatten(1)
            views.append((counts - self._fine(smooth)[:, 0]).flatten(1))
        return views

    def _cell(self, condition: Tensor) -> Tensor:
        return (condition[:, None] - self.vectors[None]).abs().sum(-1).argmin(1)

    def coarse(self, counts: Tensor, frame: Tensor) -> Tensor:
        """Means of squares of pixels, of slices brought to one place and size.

        Args:
            counts: (B, S, S).
            frame: (B, FRAME).

        Returns:
            (B, COARSE**2).
        """
        row, height, width, column = frame[:, :, None].unbind(1)
        rows = self._offset * height.exp() + row + self._middle
        columns = self._offset * width.exp() + column + self._middle
        return F.avg_pool2d(resampled(counts, rows, columns)[:, None], self.shrink).flatten(1)

    def frame(self, counts: Tensor, axis: Tensor) -> Tensor:
        """Where slices are and how large; no gradient flows through it.

        Args:
            counts: (B, S, S).
            axis: (B,) of ``midlines``.

        Returns:
            (B, FRAME): rows off the middle; log height and log width over the usual ones; columns
            that the axis is off the middle. All 0 where slices are not aligned.
        """
        found, furthest = outlines(counts), self.size * FURTHEST
        row = (found[:, :1] - self._middle).clamp(-furthest, furthest)
        column = (axis[:, None] - self._middle).clamp(-furthest, furthest)
        extent = (found[:, 1:] - self.extent).clamp(-LARGEST, LARGEST)
        return self.aligned * torch.cat([row, extent, column], 1)

    def _fine(self, coarse: Tensor) -> Tensor:
        square = coarse.reshape(-1, 1, COARSE, COARSE)
        return F.interpolate(square, (self.size, self.size), mode="bilinear")
