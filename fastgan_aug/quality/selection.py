"""Choosing the checkpoint: a cheap score of the served generator, in place of a person's eye.

Seeds and real slices stay the same over a run, so that scores differ by the weights alone. Real
slices are those of validation patients, who were not trained on. Where there are none the score
rests on the training slices themselves: then a generator that copies them scores best, no
nearest-neighbour share can be told, and the score says so. Test patients never choose.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.conditions import Cell
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.copies.privacy import PIXELS, RealSlices, nn_share, pixel_distances
from fastgan_aug.quality.likeness.features import F64, FixedView, Sample, fixed_vector, fixed_view
from fastgan_aug.quality.likeness.kid import kid

VALIDATION, TRAINING = "validation", "training"
SAMPLES = 32
"""Images for each cell of a run that was not told how many."""
UNVALIDATED = (
    "no validation patients: checkpoints are chosen by their likeness to the training slices "
    "themselves, which favours one that copies them, and no nearest-neighbour share can tell. Set "
    "selection.validation_fraction (0.1, say) in the configuration to hold patients out"
)
"""Said wherever a checkpoint is chosen without patients who were not trained on."""
MEMORISED = 0.6
"""Nearest-neighbour share from which on a checkpoint counts as copying, if chance gives less."""
_FEWEST = 2  # patients in a cell for a KID
_DRAWS = 50  # of the share's interval: cheap, and fine enough to choose by
_MC, _ASYMMETRY = 0, 2  # columns of the fixed vector: log MC and |log LR|


@dataclass(frozen=True)
class CellScore:
    """One cell of one checkpoint.

    Attributes:
        cell: The cell.
        kid: On the fixed vector; unbiased, so a little below 0 is as good as 0.
        mc: Mean counts, synthetic over real (of geometric means).
        asymmetry: Mean \\|log LR\\|, synthetic minus real.
        value: ``kid`` plus the squared distances of both means, in standard deviations of the
            training slices: the smaller, the better.
    """

    cell: str
    kid: float
    mc: float
    asymmetry: float
    value: float


@dataclass(frozen=True)
class Score:
    """One checkpoint.

    Attributes:
        images_seen: Of the checkpoint.
        checkpoint: Its digest.
        value: Mean of the cells' values; the smaller, the better.
        cells: Each cell that real patients can be compared in.
        nn_share: Share of synthetic slices nearer to training than to validation slices; None
            without validation patients.
        chance: Largest share that chance gives; None as well.
        reference: ``validation`` or ``training``: whose slices it was held against.
    """

    images_seen: int
    checkpoint: str
    value: float
    cells: tuple[CellScore, ...]
    nn_share: float | None
    chance: float | None
    reference: str

    @property
    def memorises(self) -> bool:
        """Whether it copies: the share is beyond chance and beyond ``MEMORISED``."""
        if self.nn_share is None or self.chance is None:
            return False
        return self.nn_share > max(self.chance, MEMORISED)

    @property
    def worst(self) -> CellScore:
        """The cell that is furthest off."""
        return max(self.cells, key=lambda cell: cell.value)

    @property
    def order(self) -> tuple[bool, float]:
        """Smaller is better; one that copies comes after all that do not."""
        return self.memorises, self.value

    def curves(self) -> dict[str, float]:
        """What is drawn over the images seen."""
        values = {"score": self.value} | {f"score/{c.cell}": c.value for c in self.cells}
        return values | ({} if self.nn_share is None else {"nn_share": self.nn_share})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``of`` reads them back."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Of ``to_dict``."""
        return cls(**values | {"cells": tuple(CellScore(**c) for c in values["cells"])})


def ranked(scores: Sequence[Score]) -> list[Score]:
    """The best first; of equals the earlier one."""
    return sorted(scores, key=lambda score: (*score.order, score.images_seen))


def exhausted(scores: Sequence[Score], patience: int) -> bool:
    """Whether the last ``patience`` scorings gave no better checkpoint; never with 0.

    One that copies is never better than one that does not: memorisation that rises ends a run too.
    """
    if not patience or not scores:
        return False
    by_age = sorted(scores, key=lambda score: score.images_seen)
    best = by_age.index(ranked(by_age)[0])
    return len(by_age) - 1 - best >= patience


class Judge:
    """Holds checkpoints of one run against the same real slices.

    Args:
        train: Real slices that were trained on.
        validation: Those of patients who were not; None where there are none.
        samples: Images made for each cell and scoring, 2 or more.

    Attributes:
        cells: Those that are scored: trained on, with slices of two real patients or more; none
            where the data are too few to choose by.
        reference: ``validation`` or ``training``.
    """

    def __init__(self, train: Dataset, validation: Dataset | None, samples: int) -> None:
        self.reference = TRAINING if validation is None else VALIDATION
        self.samples = samples
        self._view: FixedView = fixed_view(train)
        known = train if validation is None else validation
        labelled = known.labelled
        self._raw = fixed_vector(known.images[labelled])
        self._real = Sample.of(self._view.standard(self._raw), _cells(known), _owners(known))
        self._near = None if validation is None else _neighbours(train, validation)
        counts = train.class_counts
        self.cells: list[Cell] = [c for c, n in counts.items() if n and self._comparable(str(c))]

    def score(self, synthesizer: Synthesizer) -> Score:
        """Scores a checkpoint; draws from no random stream of the training."""
        cells = [cell for cell in self.cells for _ in range(self.samples)]
        seeds = np.arange(1, len(cells) + 1, dtype=np.uint64)
        images = synthesizer.generate(cells, seeds)
        meta = synthesizer.meta
        return self.compare(images, [str(c) for c in cells], meta.images_seen, meta.digest)

    def compare(
        self,
        images: NDArray[np.float32],
        cells: Sequence[str],
        images_seen: int,
        checkpoint: str,
    ) -> Score:
        """Scores images.

        Args:
            images: (M, S, S) float32 in [0, 1].
            cells: (M,) the cell of each; two or more of each cell in ``self.cells``.
            images_seen: Of the checkpoint that made them.
            checkpoint: Its digest.
        """
        raw = fixed_vector(images)
        made = Sample.of(self._view.standard(raw), cells)
        found = tuple(self._cell(str(cell), made, raw) for cell in self.cells)
        share, chance = self._share(images)
        value = float(np.mean([c.value for c in found]))
        return Score(images_seen, checkpoint, value, found, share, chance, self.reference)

    def _comparable(self, cell: str) -> bool:
        return len(np.unique(self._real.owners[self._real.cells == cell])) >= _FEWEST

    def _cell(self, cell: str, made: Sample, raw: F64) -> CellScore:
        ours, theirs = made.cells == cell, self._real.cells == cell
        real, synthetic = self._real.take(theirs), made.take(ours)
        distance = kid(real, synthetic).value
        apart = synthetic.features.mean(axis=0) - real.features.mean(axis=0)
        mine, known = raw[ours], self._raw[theirs]
        return CellScore(
            cell=cell,
            kid=distance,
            mc=float(np.exp(_mean(mine[:, _MC]) - _mean(known[:, _MC]))),
            asymmetry=_mean(mine[:, _ASYMMETRY]) - _mean(known[:, _ASYMMETRY]),
            value=float(distance + apart[_MC] ** 2 + apart[_ASYMMETRY] ** 2),
        )

    def _share(self, images: NDArray[np.float32]) -> tuple[float | None, float | None]:
        if self._near is None:
            return None, None
        distances = pixel_distances(images, self._near.images, moved=False)
        metric = nn_share(distances, self._near, view=PIXELS, draws=_DRAWS)
        return metric.value, metric.bound


def _neighbours(train: Dataset, validation: Dataset) -> RealSlices:
    sides = [(d.images[d.labelled], _cells(d), _owners(d)) for d in (train, validation)]
    return RealSlices.of(*sides)


def _cells(dataset: Dataset) -> list[str]:
    return [str(c) for c in itertools.compress(dataset.cells, dataset.labelled)]


def _owners(dataset: Dataset) -> list[str]:
    return list(dataset.column("patient_id")[dataset.labelled].astype(str))


def _mean(values: F64) -> float:
    """Of the finite ones; 0 (of a logarithm) where there are none: the KID tells of blanks."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0
