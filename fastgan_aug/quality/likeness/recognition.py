"""Faithfulness both ways, cell by cell: is a slice recognised as the cell it was made for?

A classifier of the cells that learnt from real slices looks at synthetic ones, and one that learnt
from synthetic slices looks at real ones of patients nobody trained on. A generator that ignores
its condition fails the first; one that makes each cell a caricature passes the first and fails the
second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import Classifier, FitSettings, fit_classifier
from fastgan_aug.quality.metric import OVERALL, Metric

NAMES = ("real_on_synthetic", "synthetic_on_real")


@dataclass(frozen=True)
class Pictures:
    """Slices with their cells.

    Attributes:
        images: (N, S, S) float32 in [0, 1].
        cells: (N,) position of each one's cell in the space.
    """

    images: NDArray[np.float32]
    cells: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The slices of these rows."""
        return type(self)(self.images[rows], self.cells[rows])


@dataclass(frozen=True)
class Recogniser:
    """A classifier of the cells it was fitted on.

    Attributes:
        classifier: Its class i is the cell ``cells[i]``.
        cells: (C,) positions of the cells in the space, ascending.
    """

    classifier: Classifier
    cells: NDArray[np.int64]

    def hits(self, pictures: Pictures) -> NDArray[np.bool_]:
        """(N,) whether each slice is recognised as its own cell."""
        found = self.cells[self.classifier.predict(pictures.images)]
        return np.asarray(found == pictures.cells)


def fit_recogniser(pictures: Pictures, settings: FitSettings, *, seed: int) -> Recogniser:
    """Fits a classifier of the cells, every cell drawn equally often.

    Raises:
        DataError: no slice.
    """
    if not len(pictures.cells):
        raise DataError("there is no slice to learn from", do="give slices of the cells")
    cells, labels = np.unique(pictures.cells, return_inverse=True)
    classifier = fit_classifier(
        pictures.images,
        np.asarray(labels, np.int64),
        len(cells),
        settings,
        seed=seed,
        sampling=1.0 / np.bincount(labels)[labels],
    )
    return Recogniser(classifier, cells)


def recognition_metrics(
    by_real: Recogniser,
    by_synthetic: Recogniser,
    real: Pictures,
    synthetic: Pictures,
    names: Sequence[str],
    *,
    delta: float,
    why_not: Mapping[str, str] | None = None,
) -> list[Metric]:
    """``real_on_synthetic`` and ``synthetic_on_real``, each beside real on real as its floor.

    Overall is the mean over cells, so that rare cells count as much; it alone has a bound, the
    floor less ``delta``. Cells have exact binomial intervals.

    Args:
        by_real: Fitted on real slices of the training patients.
        by_synthetic: Fitted on synthetic slices.
        real: Real slices of other patients.
        synthetic: Synthetic slices.
        names: Of the space's cells.
        delta: Lost recall that still passes.
        why_not: ``{cell: why}`` of cells that must be judged and cannot be: NaN.
    """
    hits = {
        "floor": (real.cells, by_real.hits(real)),
        NAMES[0]: (synthetic.cells, by_real.hits(synthetic)),
        NAMES[1]: (real.cells, by_synthetic.hits(real)),
    }
    shared = np.intersect1d(real.cells, synthetic.cells)
    shared = np.intersect1d(shared, np.intersect1d(by_real.cells, by_synthetic.cells))
    left_out = why_not or {}
    found = [Metric.unjudged(name, cell, why) for name in NAMES for cell, why in left_out.items()]
    if not len(shared):
        why = "no cell has slices of both kinds"
        return [*(Metric.unjudged(name, OVERALL, why) for name in NAMES), *found]
    recalls = {k: [right[of == c] for c in shared] for k, (of, right) in hits.items()}
    floors = [float(r.mean()) for r in recalls.pop("floor")]
    note = "mean over cells of the share recognised; floor: real-trained on real"
    note += f"; without {', '.join(left_out)}" if left_out else ""
    for name, rights in recalls.items():
        overall = float(np.mean([r.mean() for r in rights]))
        floor = float(np.mean(floors))
        n = sum(map(len, rights))
        found.append(Metric(name, OVERALL, overall, n, floor=floor, bound=floor - delta,
                            lower=True, note=note))  # fmt: skip
        found += [
            _cell_metric(name, names[int(cell)], right, own)
            for cell, right, own in zip(shared, rights, floors, strict=True)
        ]
    return found


def _cell_metric(name: str, cell: str, right: NDArray[np.bool_], floor: float) -> Metric:
    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci()
    return Metric(name, cell, float(right.mean()), len(right), low=float(interval.low),
                  high=float(interval.high), floor=floor, lower=True)  # fmt: skip
