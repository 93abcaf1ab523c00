"""Judging a generator: every figure, its floor, and the verdict of the gate.

Real slices of patients that the generator never saw are what synthetic ones are held against,
wherever a cell has enough of them, and there are as many synthetic as real ones, always. What a
training set itself decides (tables at the paper's numbers, privacy) is held against the training
slices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.code_version import code_version
from fastgan_aug.config import QualityConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.data.split import check_disjoint
from fastgan_aug.errors import DataError
from fastgan_aug.quality.collapse import collapse_metrics, duplicate_metrics
from fastgan_aug.quality.endpoint_metrics import (
    equivalence_metrics,
    sd_map_metrics,
    sensitivity_metrics,
)
from fastgan_aug.quality.endpoints import (
    SENSITIVITY,
    THRESHOLD,
    Endpoints,
    Measured,
    measure_dataset,
    measure_synthetic,
)
from fastgan_aug.quality.equivalence import (
    EquivalenceTable,
    at_training_counts,
    on_fresh_patients,
)
from fastgan_aug.quality.features import FeatureView, Sample, fit_classifier_view, fixed_view
from fastgan_aug.quality.gate import judge
from fastgan_aug.quality.kid import kid_metrics
from fastgan_aug.quality.membership import membership_metrics
from fastgan_aug.quality.metric import OVERALL, Metric
from fastgan_aug.quality.paper_table import paper_table
from fastgan_aug.quality.prdc import prdc_metrics
from fastgan_aug.quality.privacy import (
    PIXELS,
    RealSlices,
    closest_pairs,
    copy_rate,
    copy_threshold,
    feature_distances,
    nn_share,
    pixel_distances,
)
from fastgan_aug.quality.recognition import (
    Pictures,
    Recogniser,
    fit_recogniser,
    recognition_metrics,
)
from fastgan_aug.quality.report import QualityReport, Table, rows_of
from fastgan_aug.quality.spectrum import dispersion_spectrum

# A cell of the hold-out is compared with from so many slices and patients on.
ENOUGH_SLICES, ENOUGH_PATIENTS = 10, 4
PAIRS = 12  # in the gallery
GENERATOR = "generator"
PERCENTILES = (5, 25, 50, 75, 95)
_MEASURES: dict[str, Callable[[Endpoints], NDArray[np.float64]]] = {
    "mc": lambda e: e.mc,
    "lr": lambda e: np.exp(e.log_lr),
    "abs_log_lr": lambda e: e.abs_log_lr,
    "severity": lambda e: e.severity,
    "extent": lambda e: e.extent,
}

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""


def evaluate(
    train: Dataset,
    holdout: Dataset,
    synthetic_images: NDArray[np.float32],
    synthetic_cells: Sequence[str],
    settings: QualityConfig,
    *,
    reference: Dataset | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Judges synthetic slices; the same arguments give the same report.

    Tables of the report: ``cells`` (what each cell was compared with), ``training_counts`` and
    ``fresh_patients`` (equivalence), ``paper`` (as Werner et al. 2022 did it), ``distributions``
    (percentiles of the endpoints), ``dispersion`` (diversity by scale), ``pairs`` (closest pairs).

    Args:
        train: Labelled real slices that the generator learnt from.
        holdout: Real slices of other patients.
        synthetic_images: (M, S, S) float32 in [0, 1]; best as many of each cell as the largest of
            training, hold-out and reference has, see ``wanted_counts``.
        synthetic_cells: (M,) the cell of each.
        settings: The ``quality`` section.
        reference: Fresh patients, many of each cell: gives table (b), equivalence that must hold.
        progress: Told of each step.

    Raises:
        DataError: no patients, no slices, or sizes or spaces that differ.
        LeakageError: a patient stands on two sides, or a synthetic slice among real ones.
        UnknownCell: a synthetic cell is none of the data's.
    """
    case = _Case(train, holdout, synthetic_images, np.asarray(synthetic_cells, np.str_), settings)
    case.check(reference)
    steps: list[tuple[str, Callable[[], tuple[list[Metric], dict[str, Table]]]]] = [
        ("clinical endpoints", lambda: _endpoints(case, reference)),
        ("diversity by scale and region", lambda: _diversity(case)),
        ("fidelity", lambda: (_fidelity(case), {})),
        ("privacy", lambda: _privacy(case)),
    ]
    if settings.classifier:
        steps.append(("recognition", lambda: (_recognition(case), {})))
    metrics: list[Metric] = []
    tables: dict[str, Table] = {"cells": case.cell_table()}
    for done, (name, step) in enumerate(steps):
        if progress:
            progress(name, done, len(steps))
        found, more = step()
        metrics += found
        tables |= more
    if progress:
        progress("done", len(steps), len(steps))
    rules = settings.gate + (settings.fresh_gate if reference is not None else [])
    provenance = case.provenance() | {"reference": reference.digest if reference else None}
    return QualityReport(metrics, tables, judge(rules, metrics), provenance)


def wanted_counts(train: Dataset, holdout: Dataset, reference: Dataset | None) -> dict[str, int]:
    """``{cell: synthetic slices}`` that a comparison needs, for each cell that was trained on.

    Twice the training slices: a classifier that learns from synthetic ones is not tried on them.
    """
    wanted = {str(c): max(2 * n, holdout.class_counts[c])
              for c, n in train.class_counts.items() if n}  # fmt: skip
    if reference is not None:
        fresh = {str(c): n for c, n in reference.class_counts.items()}
        wanted = {c: max(n, fresh.get(c, 0)) for c, n in wanted.items()}
    return wanted


@dataclass(frozen=True)
class _Case:
    """What is judged, and what of it each comparison sees."""

    train: Dataset
    holdout: Dataset
    images: NDArray[np.float32]
    cells: NDArray[np.str_]
    settings: QualityConfig

    def check(self, reference: Dataset | None) -> None:
        meta = self.train.meta
        for other in (self.holdout, reference):
            if other is None:
                continue
            check_disjoint(self.train, other)
            if (other.meta.space, other.meta.size) != (meta.space, meta.size):
                raise DataError(
                    "the data sets differ in their cells or their size",
                    allowed=f"{meta.space.to_dict()}, {meta.size} pixels",
                    do="give data of one kind",
                )
            if {meta.grouping, other.meta.grouping} != {BY_PATIENT}:
                raise DataError(
                    "the data have no patients: nobody can tell whom the generator saw",
                    do="import the images with their patients",
                )
        if self.images.shape != (len(self.cells), meta.size, meta.size):
            raise DataError(
                f"the synthetic images have shape {self.images.shape}",
                allowed=f"({len(self.cells)}, {meta.size}, {meta.size}), one image per cell name",
            )
        if not np.isfinite(self.images).all():
            raise DataError("a synthetic slice is not finite", do="train again")
        for name in set(self.cells.tolist()):
            meta.space.parse(name)
        if not len(self.real):
            raise DataError(
                "no cell has both real and synthetic slices", do="make slices of the data's cells"
            )

    # -- what is compared ------------------------------------------------------------------

    @cached_property
    def chosen(self) -> list[tuple[str, str, NDArray[np.int64], NDArray[np.int64]]]:
        """Per cell its name, the side the real slices are of, their rows, and synthetic rows."""
        random = np.random.default_rng(self.settings.seed)
        found = []
        for index, cell in enumerate(self.train.meta.space.cells):
            rows = np.flatnonzero(self.holdout.cell_index == index)
            owners = set(self.holdout.column("patient_id")[rows])
            enough = len(rows) >= ENOUGH_SLICES and len(owners) >= ENOUGH_PATIENTS
            if not enough:
                rows = np.flatnonzero(self.train.cell_index == index)
            made = np.flatnonzero(self.cells == str(cell))
            n = min(len(rows), len(made))
            if n:
                rows = np.sort(random.permutation(rows)[:n])
                found.append((str(cell), "hold-out" if enough else "training", rows, made[:n]))
        return found

    @cached_property
    def real(self) -> Dataset:
        """The real slices that synthetic ones are held against."""
        import pyarrow as pa

        columns = [c for c in self.train.table.column_names if c in _plain_columns(self.train)]
        parts = [
            (self.holdout if side == "hold-out" else self.train).take(rows).table.select(columns)
            for _, side, rows, _ in self.chosen
        ]
        if not parts:
            return self.train.take(np.zeros(0, np.int64))
        return Dataset(pa.concat_tables(parts).combine_chunks(), self.train.meta)

    @cached_property
    def made(self) -> NDArray[np.int64]:
        """Rows of as many synthetic slices, cell by cell in the order of ``real``."""
        return np.concatenate([made for *_, made in self.chosen])

    @cached_property
    def like_training(self) -> NDArray[np.int64]:
        """Rows of as many synthetic slices of each cell as there are training slices."""
        wanted = {str(c): n for c, n in self.train.class_counts.items()}
        return np.concatenate([np.flatnonzero(self.cells == c)[:n] for c, n in wanted.items()])

    def cell_table(self) -> Table:
        """What each cell was compared with."""
        trained = {str(c): n for c, n in self.train.class_counts.items()}
        tables = {"hold-out": self.holdout, "training": self.train}
        return [
            {
                "cell": name,
                "n": len(made),
                "real": side,
                "patients": len(set(tables[side].column("patient_id")[rows])),
                "trained_on": trained[name],
            }
            for name, side, rows, made in self.chosen
        ]

    @cached_property
    def views(self) -> list[FeatureView]:
        """Fixed first, then the classifier's, where it is fitted."""
        found: list[FeatureView] = [fixed_view(self.train)]
        if self.settings.classifier:
            s = self.settings
            found.append(
                fit_classifier_view(
                    self.train, seed=s.seed, steps=s.steps, batch=s.batch,
                    learning_rate=s.learning_rate, width=s.width,
                )
            )  # fmt: skip
        return found

    def patterns(self, cells: NDArray[np.str_]) -> NDArray[np.str_] | None:
        """Each cell's last value, written ``*/bilateral``; None where that is the cell itself."""
        if len(self.train.meta.space.factors) < 2:
            return None
        return np.asarray(["*/" + cell.rpartition("/")[2] for cell in cells.tolist()], np.str_)

    def provenance(self) -> dict[str, Any]:
        """What the report rests on, by digests and counts alone."""
        pixels = np.ascontiguousarray(self.images).tobytes() + "\n".join(self.cells).encode()
        return {
            "train": self.train.digest,
            "holdout": self.holdout.digest,
            "synthetic": hashlib.sha256(pixels).hexdigest(),
            "settings": self.settings.model_dump(mode="json"),
            "views": {view.name: view.digest for view in self.views},
            "patients": {"train": _owners(self.train), "holdout": _owners(self.holdout)},
            "slices": {
                "train": int(self.train.labelled.sum()),
                "holdout": int(self.holdout.labelled.sum()),
                "compared": len(self.made),
                "synthetic": len(self.cells),
            },
            "code_version": code_version(),
        }


def _owners(dataset: Dataset) -> int:
    return len(set(dataset.column("patient_id")[dataset.labelled]))


def _plain_columns(dataset: Dataset) -> frozenset[str]:
    """The columns that every data set of the space has: truth may be on one side only."""
    from fastgan_aug.data.schema import OWN_COLUMNS

    return OWN_COLUMNS | set(dataset.meta.space.names)


# -- the steps -------------------------------------------------------------------------------------


def _endpoints(case: _Case, reference: Dataset | None) -> tuple[list[Metric], dict[str, Table]]:
    space, seed = case.train.meta.space, case.settings.seed
    training = measure_dataset(case.train)
    everything = measure_synthetic(case.images, case.cells.tolist())
    alike = everything.take(case.like_training)
    first = at_training_counts(training, alike, space)
    tables: dict[str, Table] = {
        "training_counts": _equivalence_rows(first),
        "paper": rows_of(paper_table(training, {GENERATOR: alike}, space)),
        "distributions": _distributions(case, measure_dataset(case.real), everything),
    }
    metrics = equivalence_metrics(first)
    if reference is not None:
        fresh = measure_dataset(reference)
        second = on_fresh_patients(fresh, everything, space, training=training, seed=seed)
        tables["fresh_patients"] = _equivalence_rows(second)
        metrics = equivalence_metrics(second)
    return metrics + _sensitivity(case, training, alike), tables


def _sensitivity(case: _Case, training: Measured, alike: Measured) -> list[Metric]:
    """The estimates at other thresholds of the mask: a finding should not hang on it."""
    images, cells = case.images[case.like_training], case.cells[case.like_training].tolist()
    real, made = [], []
    for threshold in SENSITIVITY:
        usual = threshold == THRESHOLD
        real.append(training if usual else measure_dataset(case.train, threshold))
        made.append(alike if usual else measure_synthetic(images, cells, threshold))
    return sensitivity_metrics(real, made, [name for name, *_ in case.chosen])


def _equivalence_rows(table: EquivalenceTable) -> Table:
    rows = rows_of(table.rows, required=table.required)
    for row, source in zip(rows, table.rows, strict=True):
        row["passes"] = source.test.passes
    return rows


def _distributions(case: _Case, real: Measured, everything: Measured) -> Table:
    """Percentiles of each endpoint, per cell and per value of the last factor."""
    made = everything.take(case.made)
    rows = []
    for side, slices in (("real", real), ("synthetic", made)):
        groups = {name: slices.cells == name for name, *_ in case.chosen}
        patterns = case.patterns(slices.cells)
        if patterns is not None:
            groups |= {name: patterns == name for name in dict.fromkeys(patterns.tolist())}
        for name, chosen in groups.items():
            for measure, values_of in _MEASURES.items():
                values = values_of(slices.endpoints)[chosen]
                values = values[np.isfinite(values)]
                rows.append(
                    {"cell": name, "measure": measure, "side": side, "n": len(values)}
                    | _percentiles(values)
                )
    return rows


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    marks = np.percentile(values, PERCENTILES) if len(values) else np.full(5, np.nan)
    mean = float(values.mean()) if len(values) else np.nan
    return {"mean": mean} | {f"p{p}": float(m) for p, m in zip(PERCENTILES, marks, strict=True)}


def _diversity(case: _Case) -> tuple[list[Metric], dict[str, Table]]:
    images, cells = case.images[case.made], case.cells[case.made]
    metrics = sd_map_metrics(case.real, images, cells.tolist(), seed=case.settings.seed)
    rows = []
    for index, cell in enumerate(case.real.meta.space.cells):
        real = case.real.images[case.real.cell_index == index]
        if len(real) > 1:
            found = dispersion_spectrum(images[cells == str(cell)], real)
            bands = zip(found.bands, found.bands[1:], strict=False)
            rows += [
                {"cell": str(cell), "low": low, "high": high, "synthetic": s, "real": r, "ratio": q}
                for (low, high), s, r, q in zip(
                    bands, found.synthetic, found.real, found.ratio, strict=True
                )
            ]
    return metrics, {"dispersion": rows}


def _fidelity(case: _Case) -> list[Metric]:
    """KID, precision, recall, density, coverage and collapse: overall, per cell and pattern."""
    settings, metrics = case.settings, []
    owners = case.real.column("patient_id").astype(str).tolist()
    own = np.asarray([str(cell) for cell in case.real.cells], np.str_)
    for view in case.views:
        features = view(case.real.images), view(case.images[case.made])
        for kind, real_cells, cells in (
            ("cell", own, case.cells[case.made]),
            ("pattern", case.patterns(own), case.patterns(case.cells[case.made])),
        ):
            if real_cells is None or cells is None:
                continue
            sides = (Sample.of(features[0], real_cells.tolist(), owners),
                     Sample.of(features[1], cells.tolist()))  # fmt: skip
            found = kid_metrics(
                *sides, view=view.name, delta=settings.kid_delta,
                resplits=settings.resplits, seed=settings.seed,
            )  # fmt: skip
            found += prdc_metrics(*sides, view=view.name, seed=settings.seed)
            found += collapse_metrics(*sides, view=view.name, seed=settings.seed)
            # Overall is the same whatever the groups are called.
            metrics += [m for m in found if kind == "cell" or m.cell != OVERALL]
    return metrics


def _privacy(case: _Case) -> tuple[list[Metric], dict[str, Table]]:
    images, seed = case.images[case.like_training], case.settings.seed
    train, holdout = (_labelled(d) for d in (case.train, case.holdout))
    real = RealSlices.of(train, holdout)
    members = int(real.member.sum())
    distances = pixel_distances(images, real.images)
    among = pixel_distances(real.images, real.images[:members])
    threshold = copy_threshold(among[:members], real.owners[:members])
    metrics = [
        nn_share(distances, real, view=PIXELS, seed=seed),
        copy_rate(
            distances[:, :members], threshold, view=PIXELS, hold_out_to_train=among[members:]
        ),
        *membership_metrics(distances, real, view=PIXELS, seed=seed),
        *duplicate_metrics(
            pixel_distances(images, images), case.cells[case.like_training].tolist(), threshold,
            view=PIXELS,
        ),
    ]  # fmt: skip
    for view in case.views:
        apart = feature_distances(view, images, real.images)
        metrics.append(nn_share(apart, real, view=view.name, seed=seed))
        metrics += membership_metrics(apart, real, view=view.name, seed=seed)
    pairs = closest_pairs(distances[:, :members], PAIRS)
    rows = [
        {"synthetic": int(case.like_training[p.synthetic]), "train": p.train,
         "cell": str(case.cells[case.like_training[p.synthetic]]),
         "distance": p.distance, "near": p.distance < threshold}
        for p in pairs
    ]  # fmt: skip
    return metrics, {"pairs": rows}


def _labelled(dataset: Dataset) -> tuple[NDArray[np.float32], list[str], list[str]]:
    """Images, cells and owners of the labelled slices."""
    rows = np.flatnonzero(dataset.labelled)
    owners = dataset.column("patient_id")[rows].astype(str).tolist()
    return dataset.images[rows], [str(dataset.cells[i]) for i in rows], owners


def _recognition(case: _Case) -> list[Metric]:
    """A classifier that learnt from real slices on synthetic ones, and the other way round."""
    s, space = case.settings, case.train.meta.space
    index = np.asarray([space.index(space.parse(c)) for c in case.cells.tolist()], np.int64)
    learnt = case.like_training
    rest = np.setdiff1d(np.arange(len(index)), learnt)
    by_synthetic = fit_recogniser(
        Pictures(case.images[learnt], index[learnt]), seed=s.seed, steps=s.steps, batch=s.batch,
        learning_rate=s.learning_rate, width=s.width,
    )  # fmt: skip
    view = case.views[-1]
    trained = np.unique(case.train.cell_index[case.train.labelled])
    by_real = Recogniser(view.classifier, trained)  # type: ignore[attr-defined]
    rows = np.flatnonzero(case.holdout.labelled)
    real = Pictures(case.holdout.images[rows], case.holdout.cell_index[rows])
    shown = Pictures(case.images[rest], index[rest]) if len(rest) else Pictures(case.images, index)
    found = recognition_metrics(
        by_real, by_synthetic, real, shown, [str(c) for c in space.cells],
        delta=s.recognition_delta,
    )  # fmt: skip
    return [replace(m, view="") for m in found]
