"""Fitting an `Appearance` to the training slices, and matching it to the generator that uses it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastgan_aug.errors import DataError
from fastgan_aug.gan.appearance import (
    ASYMMETRIC,
    COARSE,
    DESCRIPTORS,
    EXAMPLES,
    FIRST,
    KNOTS,
    LINEAR,
    STEP,
    SYMMETRIC,
    Appearance,
)
from fastgan_aug.gan.batch import TrainingData
from fastgan_aug.gan.descriptors import SIDES, midlines, outlines
from fastgan_aug.gan.moved_defects import lenders_of
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.randomness import latents

LEAST = 8  # slices of a cell from which its own spread is believed
GUESSED = 2  # slices that the mean count as which is guessed for a cell with fewer
PRIOR = 2 * DESCRIPTORS  # slices that the correlations of other cells count as
ALONE = 8  # where there are no other cells: slices that independence counts as
NUGGET = 0.01  # of independence in them, so that none is perfect
PART = 512  # slices described at a time
BORROWED = 2 * SIDES  # slices that what all cells say of components and sides counts as
DAMPING = 0.05  # of the variance of each side, in that regression
SAME = 1e-5  # an SD below which a number is the same for all: what is left is rounding
CALIBRATION, WIDEST = 128, 1.4  # slices per cell; largest change of a spread, as a ratio


@torch.no_grad()
def fit_appearance(data: TrainingData, given: Mapping[str, Tensor] | None = None) -> Appearance:
    """Fits the model to the labelled slices, and to their mirror images where these keep the label.

    Each cell has its own marginals; its correlations are shrunk towards those of the cells that
    share an element of its condition, the more so the more alike these are. A cell with fewer than
    LEAST slices gets normal marginals about a mean of its slices and of what its elements' other
    cells say: moved from the overall mean by their own means. Cells that a rule of sides speaks of
    get EXAMPLES of slices with moved defects, with the mean and the spread of the cell.

    Args:
        data: The training slices.
        given: ``prior.COMPONENTS`` by name, which are then taken as they are: a network that was
            fitted to them knows no others. None fits these too.

    Returns:
        The model, on the CPU.
    """
    if not len(data.rows):
        raise DataError("the training data has no labelled slice", do="label some slices")
    cell = torch.from_numpy(data.cell[data.rows])
    own = torch.bincount(cell, minlength=len(data.vectors))
    turns = torch.from_numpy(data.flippable)[cell]
    slices = _Slices(data.images, torch.from_numpy(data.rows), turns)
    cell = torch.cat([cell, cell[turns]])
    vectors = data.vectors.cpu()
    cells, elements = vectors.shape
    model = Appearance(data.images.shape[-1], cells, elements, EXAMPLES if data.groups else 0)
    model.vectors.copy_(vectors)
    for name, tensor in (given or {}).items():
        model.get_buffer(name).copy_(tensor)
    if not given:
        _fit_components(model, slices)
    found = torch.cat([model.describe(part) for part in slices.parts()]).double()
    overall = found.mean(0).float()
    if not given:
        model.centre.copy_(overall)
        model.scale.copy_(_spread(found))
    groups = {k: found[cell == k] for k in range(len(vectors)) if own[k] >= LEAST}
    for k in range(len(vectors)):
        if k in groups:
            model.cell_mean[k] = groups[k].mean(0)
            model.cell_sd[k] = _spread(groups[k], model.scale)
        else:
            mean, model.cell_sd[k] = _predicted(k, groups, vectors, model, overall)
            few = found[cell == k].float().sum(0) * own[k] / max(int((cell == k).sum()), 1)
            model.cell_mean[k] = (few + GUESSED * mean) / (own[k] + GUESSED)
    apart = _follow(model, groups)
    known = {k: _spread(group, model.scale) for k, group in apart.items()}
    spreads = [known.get(k, _mean_spread(k, known, vectors, model)) for k in range(len(vectors))]
    correlations = {k: _correlations(group) for k, group in apart.items()}
    for k in range(len(vectors)):
        model.knots[k] = _marginals(apart.get(k), spreads[k])
        model.mixing[k] = _mixing(k, correlations, own, vectors)
    _keep(model, found, apart, spreads)
    _exemplify(model, data)
    return model


def _exemplify(model: Appearance, data: TrainingData) -> None:
    """Describes slices with moved defects; those of cells with few lenders are not worth it."""
    real = data.rows[: len(data.rows) - data.made]
    cells, random = data.cell[real], np.random.default_rng(0)
    rows = torch.from_numpy(real).to(data.images.device)
    images = ((data.images[rows][:, 0] + 1) / 2).cpu().numpy()
    for group in data.groups:
        if (cells == group.one).sum() < LEAST:
            continue
        lenders = lenders_of(images, cells, group)
        assert lenders is not None
        for sides, k in ((1, group.one), (2, group.both)):
            if not (cells == k).any():
                continue
            made = torch.split(lenders.slices(EXAMPLES, sides, random)[:, None] * 2 - 1, PART)
            numbers = torch.cat([model.describe(part) for part in made])
            stretch = (model.cell_sd[k] / _spread(numbers)).clamp(1 / WIDEST, WIDEST)
            model.examples[k] = (numbers - numbers.mean(0)) * stretch
            model.exemplary[k] = 1


@dataclass(frozen=True)
class _Slices:
    """The labelled slices, then the mirror images of those that may be turned, part by part."""

    images: Tensor
    rows: Tensor
    turns: Tensor

    def parts(self) -> Iterator[Tensor]:
        """(at most PART, 1, S, S) on the CPU."""
        for rows in torch.split(self.rows, PART):
            yield self.images[rows.to(self.images.device)].cpu()
        turned = self.rows[self.turns]
        for rows in torch.split(turned, PART) if len(turned) else ():
            yield self.images[rows.to(self.images.device)].cpu().flip(-1)


def _fit_components(model: Appearance, slices: _Slices) -> None:
    """Mean, and principal components of the symmetric and the antisymmetric halves of pictures."""
    usual = [outlines((part[:, 0].float() + 1) / 2)[:, 1:] for part in slices.parts()]
    model.extent.copy_(torch.cat(usual).mean(0))
    left = torch.inf
    for aligned in (1.0, 0.0):  # pictures without an object are not moved and stretched
        model.aligned.fill_(aligned)
        mean, basis, unexplained = _principal(model, slices)
        if unexplained >= left:
            model.aligned.fill_(1.0)
            return
        left = unexplained
        model.mean.copy_(mean)
        model.basis.copy_(basis)


def _principal(model: Appearance, slices: _Slices) -> tuple[Tensor, Tensor, float]:
    """Mean picture, components of both halves, and the variance that these leave."""
    counts = [(part[:, 0].float() + 1) / 2 for part in slices.parts()]
    pictures = torch.cat([model.coarse(c, model.frame(c, midlines(c))) for c in counts])
    square = pictures.reshape(-1, COARSE, COARSE)
    turned = square.flip(-1).reshape(pictures.shape)
    mean = (pictures + turned).mean(0) / 2
    halves = ((pictures + turned) / 2 - mean, (pictures - turned) / 2)
    kept = zip(halves, (SYMMETRIC, ASYMMETRIC), strict=True)
    basis = torch.cat([_components(half.double(), n) for half, n in kept])
    apart = pictures.double() - mean
    return mean, basis, float(apart.square().sum() - (apart @ basis.T).square().sum())


def _components(centred: Tensor, count: int) -> Tensor:
    """(count, D) leading eigenvectors of (N, D); 0 where the data spans fewer."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    leading = vectors.T.flip(0)[:count]
    # An eigenvector's sign is arbitrary: its largest element is made positive, of the left half's,
    # since the right half holds the same once more.
    left = leading.reshape(-1, COARSE, COARSE)[..., : COARSE // 2].flatten(1)
    sign = left.gather(1, left.abs().argmax(1, keepdim=True)).sign()
    real = values.flip(0)[:count] > 1e-9 * values[-1].clamp_min(1e-12)
    kept: Tensor = leading * sign * real[:, None]
    return kept


def _spread(found: Tensor, typical: Tensor | float = 0.0) -> Tensor:
    """(DESCRIPTORS,) SD, at least a twentieth of the typical one: few slices may all be alike."""
    spread = found.std(0, correction=0).float()
    return torch.maximum(spread, torch.as_tensor(typical) / 20).clamp_min(1e-4)


def _predicted(
    k: int, groups: dict[int, Tensor], vectors: Tensor, model: Appearance, overall: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and SD of a cell that has too few slices, from the other cells of its elements."""
    mean = overall.clone()
    for mates in _mates(k, groups, vectors):
        every = torch.cat([groups[j] for j in mates])
        mean += every.mean(0).float() - overall
    return mean, _mean_spread(k, {j: model.cell_sd[j] for j in groups}, vectors, model)


def _mean_spread(k: int, spreads: dict[int, Tensor], vectors: Tensor, model: Appearance) -> Tensor:
    """(DESCRIPTORS,) root mean square SD of the other cells of a cell's elements."""
    squares = [spreads[j].square() for mates in _mates(k, spreads, vectors) for j in mates]
    return torch.stack(squares).mean(0).sqrt() if squares else model.scale


def _mates(k: int, groups: Collection[int], vectors: Tensor) -> list[list[int]]:
    """Per element of a cell's condition, the other cells that have it; if none, all others."""
    elements, others = vectors[k].nonzero().flatten().tolist(), [j for j in groups if j != k]
    found = [[j for j in others if vectors[j, e] > 0] for e in elements]
    return [mates for mates in found if mates] or [mates for mates in [others] if mates]


def _marginals(found: Tensor | None, spread: Tensor) -> Tensor:
    """(DESCRIPTORS, KNOTS) quantiles at standard normal values, of mean 0 and exactly that SD."""
    normal = (FIRST + STEP * torch.arange(KNOTS)).double()
    shape = normal.repeat(DESCRIPTORS, 1)
    if found is not None:
        level = torch.special.ndtr(normal).numpy()
        place = (np.arange(len(found)) + 0.5) / len(found)
        columns = found.sort(0).values.T.numpy()
        shape = torch.from_numpy(np.stack([np.interp(level, place, c) for c in columns]))
    at = torch.special.ndtri((torch.arange(2000).double() + 0.5) / 2000)
    where = (at - FIRST) / STEP
    left = where.floor().clamp(0, KNOTS - 2)
    low, high = shape[:, left.long()], shape[:, left.long() + 1]
    value = low + (high - low) * (where - left)
    centre, width = value.mean(1, keepdim=True), value.std(1, correction=0, keepdim=True)
    straight = width < 1e-9
    shape = torch.where(straight, normal.expand_as(shape), shape)
    centre, width = torch.where(straight, 0.0, centre), torch.where(straight, 1.0, width)
    knots: Tensor = (shape - centre) / width * spread[:, None]
    return knots.float()


def _correlations(found: Tensor) -> Tensor:
    """(DESCRIPTORS, DESCRIPTORS) of normal scores; a constant column is correlated with none."""
    ranks = found.argsort(0).argsort(0).double()
    scores = torch.special.ndtri((ranks + 0.5) / len(found))
    scores = scores * (found.std(0, correction=0) > SAME)
    variance = scores.square().mean(0).clamp_min(1e-12)
    matrix: Tensor = scores.T @ scores / len(found) / (variance[:, None] * variance[None]).sqrt()
    matrix.fill_diagonal_(1.0)
    return matrix


def _mixing(k: int, correlations: dict[int, Tensor], own: Tensor, vectors: Tensor) -> Tensor:
    """Factor of a cell's correlations; those among the few sides are almost its own."""
    shrunk = _shrunk(k, correlations, own, vectors)
    factor = torch.linalg.cholesky(shrunk)
    if k in correlations:
        block = slice(LINEAR, LINEAR + SIDES)
        theirs, mine = shrunk[block, block], correlations[k][block, block]
        count = float(own[k])
        mixed = (count * mine + BORROWED * theirs) / (count + BORROWED)
        mixed = mixed + 1e-6 * torch.eye(SIDES, dtype=torch.float64)
        turn = torch.linalg.cholesky(mixed) @ torch.linalg.inv(torch.linalg.cholesky(theirs))
        factor[block] = turn @ factor[block]
    mixing: Tensor = factor
    return mixing


def _shrunk(k: int, correlations: dict[int, Tensor], own: Tensor, vectors: Tensor) -> Tensor:
    """A cell's correlations, shrunk towards its mates'; those that are alike weigh the most."""
    unit = torch.eye(DESCRIPTORS, dtype=torch.float64)
    mine = correlations.get(k)
    pools = [
        torch.stack([correlations[j] * own[j] for j in mates]).sum(0) / own[mates].sum()
        for mates in _mates(k, correlations, vectors)
    ]
    target = unit
    if pools:
        far = [1.0 if mine is None else max(float((mine - p).norm()), 1e-3) for p in pools]
        weights = [distance**-4 for distance in far]
        mixed = torch.stack([w * p for w, p in zip(weights, pools, strict=True)]).sum(0)
        target = (1 - NUGGET) * mixed / sum(weights) + NUGGET * unit
    if mine is None:
        return target
    count, prior = float(own[k]), PRIOR if pools else ALONE
    return (count * mine + prior * target) / (count + prior) + 1e-6 * unit


def _follow(model: Appearance, groups: dict[int, Tensor]) -> dict[int, Tensor]:
    """How components follow the sides: a regression in each cell, shrunk towards that in all.

    Returns:
        Per cell (N, DESCRIPTORS), how far slices are off the mean: of the components, what does not
        follow.
    """
    apart = {k: group - group.mean(0) for k, group in groups.items()}
    if not apart:
        return apart
    every = torch.cat(list(apart.values()))
    all_sides, all_parts = every[:, LINEAR:][:, :SIDES], every[:, :LINEAR]
    pooled = _damped(all_sides.T @ all_sides / len(every)), all_sides.T @ all_parts / len(every)
    model.follow.copy_(torch.linalg.solve(*pooled).T)
    for k, group in apart.items():
        sides, parts = group[:, LINEAR:][:, :SIDES], group[:, :LINEAR]
        squares = _damped(sides.T @ sides) + BORROWED * pooled[0]
        follow = torch.linalg.solve(squares, sides.T @ parts + BORROWED * pooled[1]).T
        model.follow[k] = follow
        apart[k] = torch.cat([parts - sides @ follow.T, group[:, LINEAR:]], 1)
    return apart


def _damped(squares: Tensor) -> Tensor:
    """Against differences of almost equal sides, which few slices exaggerate."""
    return squares + torch.diag(squares.diagonal() * DAMPING + 1e-9)


def _keep(
    model: Appearance, found: Tensor, apart: dict[int, Tensor], spreads: list[Tensor]
) -> None:
    """Conditions what does not follow the sides on saying nothing of them (kriging).

    44 slices do not tell how 64 components go together; drawn almost one by one they would add up
    to an asymmetry that no slice has.
    """
    parts, sides = found[:, :LINEAR], found[:, LINEAR:][:, :SIDES]
    parts, sides = parts - parts.mean(0), sides - sides.mean(0)
    ridge = torch.diag(model.scale[:LINEAR].double().square())  # as of one slice more
    slope = torch.linalg.solve(parts.T @ parts + ridge, parts.T @ sides).T
    said = {k: group[:, :LINEAR] @ slope.T for k, group in apart.items()}
    every = torch.cat([*said.values(), sides[:1] * 0])
    pooled = every.T @ every / len(every) + 1e-8 * torch.eye(SIDES, dtype=torch.float64)
    for k, spread in enumerate(spreads):
        own = said.get(k, every[:0])
        rest = (own.T @ own + BORROWED * pooled) / (len(own) + BORROWED)
        factor = spread[:, None].double() * model.mixing[k].double()
        rests, given = factor[:LINEAR], factor[LINEAR:][:SIDES]
        shared = rests @ (slope @ rests).T
        gain = torch.linalg.solve(slope @ shared + rest, shared.T).T
        unit = torch.eye(LINEAR, dtype=torch.float64)
        follow, keep = model.follow[k].double(), unit - gain @ slope
        follow = follow + gain @ (unit[:SIDES, :SIDES] - slope @ follow)
        # Together they are to have the cell's spread.
        wanted = model.cell_sd[k, :LINEAR].double()
        follow *= (wanted / (follow @ given).norm(dim=1).clamp_min(1e-9)).clamp(max=1)[:, None]
        left = (wanted.square() - (follow @ given).square().sum(1)).clamp_min(0).sqrt()
        stretch = left / (keep @ rests).norm(dim=1).clamp_min(1e-9)
        model.follow[k] = follow
        model.keep[k] = keep * stretch.clamp(max=WIDEST)[:, None]


@torch.no_grad()
def calibrate(generator: Generator, random: np.random.Generator) -> None:
    """Makes the spread of generated slices what was wanted of them, in place.

    What is wanted is not quite what comes: wishes that contradict each other are met half-way, and
    the spread shrinks. Each marginal is stretched and shifted by what is missing.

    Args:
        generator: In evaluation mode, with an appearance.
        random: Of the slices it is measured on.
    """
    model = generator.appearance
    if model is None:
        return
    device = model.vectors.device
    for k, vector in enumerate(model.vectors):
        noise = latents(random, CALIBRATION, generator.latent_size).to(device)
        condition = vector.expand(CALIBRATION, -1)
        wanted = generator.wanted(noise, condition)
        made = torch.cat([
            model.describe(generator(n, c))
            for n, c in zip(torch.split(noise, 64), torch.split(condition, 64), strict=True)
        ])  # fmt: skip
        # Both of the same latents: their chance is not taken for the generator's fault.
        stretch = (wanted.std(0) / made.std(0).clamp_min(1e-9)).clamp(1 / WIDEST, WIDEST)
        model.knots[k] = model.knots[k] * stretch[:, None]
        model.examples[k] *= stretch
        model.cell_mean[k] += (wanted - made).mean(0)
