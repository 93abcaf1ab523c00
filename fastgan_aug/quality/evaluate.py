"""Judging a generator: every figure, its floor, and the verdict of the gate.

Real slices of patients that the generator never saw are what synthetic ones are held against,
wherever a cell has enough of them, and there are as many synthetic as real ones, always. What a
training set itself decides (tables at the paper's numbers, privacy) is held against the training
slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.config import QualityConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.quality.case import Case
from fastgan_aug.quality.clinical.endpoint_metrics import (
    equivalence_metrics,
    sd_map_metrics,
    sensitivity_metrics,
)
from fastgan_aug.quality.clinical.endpoints import (
    SENSITIVITY,
    THRESHOLD,
    Endpoints,
    Measured,
    measure_dataset,
    measure_synthetic,
)
from fastgan_aug.quality.clinical.spectrum import dispersion_spectrum
from fastgan_aug.quality.copies.membership import membership_metrics
from fastgan_aug.quality.copies.privacy import (
    PIXELS,
    RealSlices,
    closest_pairs,
    copy_rate,
    copy_threshold,
    feature_distances,
    nn_share,
    pixel_distances,
)
from fastgan_aug.quality.gate import judge
from fastgan_aug.quality.likeness.classifier import FitSettings
from fastgan_aug.quality.likeness.collapse import collapse_metrics, duplicate_metrics
from fastgan_aug.quality.likeness.features import ClassifierView, Sample
from fastgan_aug.quality.likeness.kid import kid_metrics
from fastgan_aug.quality.likeness.prdc import prdc_metrics
from fastgan_aug.quality.likeness.recognition import (
    Pictures,
    Recogniser,
    fit_recogniser,
    recognition_metrics,
)
from fastgan_aug.quality.metric import OVERALL, Metric
from fastgan_aug.quality.report import QualityReport, Table, rows_of
from fastgan_aug.quality.statistics.equivalence import (
    EquivalenceTable,
    at_training_counts,
    on_fresh_patients,
)
from fastgan_aug.quality.statistics.paper_table import paper_table

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
            training, hold-out and reference has, see ``case.wanted_counts``.
        synthetic_cells: (M,) the cell of each.
        settings: The ``quality`` section.
        reference: Fresh patients, many of each cell: gives table (b), equivalence that must hold.
        progress: Told of each step.

    Raises:
        DataError: no patients, no slices, or sizes or spaces that differ.
        LeakageError: a patient stands on two sides, or a synthetic slice among real ones.
        UnknownCell: a synthetic cell is none of the data's.
    """
    case = Case(train, holdout, synthetic_images, np.asarray(synthetic_cells, np.str_), settings)
    case.check(reference)
    steps: list[tuple[str, Callable[[], tuple[list[Metric], dict[str, Table]]]]] = [
        ("clinical endpoints", lambda: endpoints_section(case, reference)),
        ("diversity by scale and region", lambda: diversity_section(case)),
        ("fidelity", lambda: (fidelity_section(case), {})),
        ("privacy", lambda: privacy_section(case)),
    ]
    if settings.classifier:
        steps.append(("recognition", lambda: (recognition_section(case), {})))
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


def endpoints_section(
    case: Case, reference: Dataset | None
) -> tuple[list[Metric], dict[str, Table]]:
    """Counts, sides, severity: equivalence, the paper's table, and the endpoints' percentiles."""
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
    metrics = equivalence_metrics(first, case.absent())
    if reference is not None:
        fresh = measure_dataset(reference)
        second = on_fresh_patients(fresh, everything, space, training=training, seed=seed)
        tables["fresh_patients"] = _equivalence_rows(second)
        metrics = equivalence_metrics(second, case.absent(reference))
    return metrics + _sensitivity(case, training, alike), tables


def _sensitivity(case: Case, training: Measured, alike: Measured) -> list[Metric]:
    """The estimates at other thresholds of the mask: a finding should not hang on it."""
    images, cells = case.images[case.like_training], case.cells[case.like_training].tolist()
    real, made = [], []
    for threshold in SENSITIVITY:
        usual = threshold == THRESHOLD
        real.append(training if usual else measure_dataset(case.train, threshold))
        made.append(alike if usual else measure_synthetic(images, cells, threshold))
    return sensitivity_metrics(real, made, case.asked)


def _equivalence_rows(table: EquivalenceTable) -> Table:
    rows = rows_of(table.rows, required=table.required)
    for row, source in zip(rows, table.rows, strict=True):
        row["passes"] = source.test.passes
    return rows


def _distributions(case: Case, real: Measured, everything: Measured) -> Table:
    """Percentiles of each endpoint, per cell and per value of the last factor."""
    made = everything.take(case.made)
    rows = []
    for side, slices in (("real", real), ("synthetic", made)):
        groups = {name: slices.cells == name for name in (each.cell for each in case.chosen)}
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


def diversity_section(case: Case) -> tuple[list[Metric], dict[str, Table]]:
    """SD maps, per cell and region, and the dispersion spectrum."""
    images, cells = case.images[case.made], case.cells[case.made]
    metrics = sd_map_metrics(
        case.real, images, cells.tolist(), asked=case.asked, seed=case.settings.seed
    )
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


def fidelity_section(case: Case) -> list[Metric]:
    """KID, precision, recall, density, coverage and collapse: overall, per cell and pattern."""
    settings, metrics = case.settings, []
    owners = case.real.column("patient_id").astype(str).tolist()
    own = np.asarray([str(cell) for cell in case.real.cells], np.str_)
    asked = np.asarray(case.asked, np.str_)
    for view in case.views:
        features = view(case.real.images), view(case.images[case.made])
        for kind, real_cells, cells, groups in (
            ("cell", own, case.cells[case.made], asked),
            ("pattern", case.patterns(own), case.patterns(case.cells[case.made]),
             case.patterns(asked)),
        ):  # fmt: skip
            if real_cells is None or cells is None or groups is None:
                continue
            names = groups.tolist()
            sides = (Sample.of(features[0], real_cells.tolist(), owners),
                     Sample.of(features[1], cells.tolist()))  # fmt: skip
            found = kid_metrics(
                *sides, view=view.name, delta=settings.kid_delta, cells=names,
                resplits=settings.resplits, seed=settings.seed,
            )  # fmt: skip
            found += prdc_metrics(*sides, view=view.name, cells=names, seed=settings.seed)
            found += collapse_metrics(*sides, view=view.name, cells=names, seed=settings.seed)
            # Overall is the same whatever the groups are called.
            metrics += [m for m in found if kind == "cell" or m.cell != OVERALL]
    return metrics


def privacy_section(case: Case) -> tuple[list[Metric], dict[str, Table]]:
    """Nearest neighbours, copies, membership and twins, and the closest pairs."""
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
        *(Metric.unjudged("duplicate_rate", cell, why, view=PIXELS)
          for cell, why in case.absent().items()),
    ]  # fmt: skip
    for view in case.views:
        apart = feature_distances(view, images, real.images)
        metrics.append(nn_share(apart, real, view=view.name, seed=seed))
        metrics += membership_metrics(apart, real, view=view.name, seed=seed)
    # Whether these cells' slices lie too near to training patients, only `copy_rate` can tell.
    metrics += [
        Metric.unjudged(name, cell, why, view=view)
        for name in ("nn_share", "membership_auc")
        for view in (PIXELS, *(view.name for view in case.views))
        for cell, why in case.absent(case.holdout).items()
    ]
    metrics = [_leniently(metric, case.settings.privacy_delta) for metric in metrics]
    pairs = closest_pairs(distances[:, :members], PAIRS)
    rows = [
        {"synthetic": int(case.like_training[p.synthetic]), "train": p.train,
         "cell": str(case.cells[case.like_training[p.synthetic]]),
         "distance": p.distance, "near": p.distance < threshold}
        for p in pairs
    ]  # fmt: skip
    return metrics, {"pairs": rows}


def _leniently(metric: Metric, delta: float) -> Metric:
    """With a bound that chance does not reach one time in forty: several views are asked."""
    return metric if metric.bound is None else replace(metric, bound=metric.bound + delta)


def _labelled(dataset: Dataset) -> tuple[NDArray[np.float32], list[str], list[str]]:
    """Images, cells and owners of the labelled slices."""
    rows = np.flatnonzero(dataset.labelled)
    owners = dataset.column("patient_id")[rows].astype(str).tolist()
    return dataset.images[rows], [str(dataset.cells[i]) for i in rows], owners


def recognition_section(case: Case) -> list[Metric]:
    """A classifier that learnt from real slices on synthetic ones, and the other way round."""
    s, space = case.settings, case.train.meta.space
    index = np.asarray([space.index(space.parse(c)) for c in case.cells.tolist()], np.int64)
    made = Pictures(case.images, index)
    by_synthetic = fit_recogniser(made.take(case.like_training), FitSettings.of(s), seed=s.seed)
    fitted = next(view for view in case.views if isinstance(view, ClassifierView))
    by_real = Recogniser(fitted.classifier, np.unique(case.train.cell_index[case.train.labelled]))
    rows = np.flatnonzero(case.holdout.labelled)
    return recognition_metrics(
        by_real,
        by_synthetic,
        Pictures(case.holdout.images[rows], case.holdout.cell_index[rows]),
        made.take(case.made),
        [str(cell) for cell in space.cells],
        delta=s.recognition_delta,
        why_not=case.absent(case.holdout),
    )
