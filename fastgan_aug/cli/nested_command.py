"""`fastgan-aug downstream` without a service: nested by patient, one generator for each fold."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastgan_aug.cli.fits import duration, fit_bars
from fastgan_aug.cli.nested import NestedParts, OpenNested, generator_pieces, read_kept
from fastgan_aug.cli.nested_report import digests, gate_notes, judged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from downstream.classifier_pieces import Experiment, Run
    from downstream.fold import Fold
    from downstream.report import UsefulnessReport
    from fastgan_aug.config import Config
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.fold_generator import GeneratorPiece

JUDGING = 90  # seconds that the gate takes for one generator of about a thousand slices


@dataclass(frozen=True)
class Nested:
    """What is asked.

    Attributes:
        data: The data set's file.
        config: Of generators and classifiers.
        out: Folder of everything.
        workers: Pieces at once.
        ray: On Ray workers.
        budget: Seconds after which nothing new is begun; None: all is done.
        tracking_uri: MLflow's; None tracks nothing.
        unsafe_no_groups: Takes data without patients; every verdict is then NO EVIDENCE.
        rare_slices: Further experiments of the learning curve, each with about so many training
            slices of the rarest class.
    """

    data: Path
    config: Config
    out: Path
    workers: int = 1
    ray: bool = False
    budget: float | None = None
    tracking_uri: str | None = None
    unsafe_no_groups: bool = False
    rare_slices: Sequence[int] = ()

    def parts(self, rare_slices: int | None = None) -> list[NestedParts]:
        """The folds, with so many training slices of the rarest class; None: with all.

        Raises:
            ConfigError: the data have no such factor as is to be predicted.
            DataError: too few patients.
        """
        from downstream.fold import count_folds, factor_of

        dataset = read_kept(self.data, self.config)
        section = self.config.downstream
        n = count_folds(dataset, factor_of(dataset, section), section.folds)
        return [
            NestedParts(self.data, k, self.config, self.unsafe_no_groups, rare_slices)
            for k in range(n)
        ]

    def experiment(self, parts: Sequence[NestedParts], checkpoints: Sequence[Path]) -> Experiment:
        """What is compared, on folds with these generators."""
        from downstream.arms.catalogue import arms_named
        from downstream.classifier_pieces import Experiment

        folds = [OpenNested(*both) for both in zip(parts, checkpoints, strict=True)]
        arms, few = arms_named(self.config.downstream.arms), parts[0].rare_slices
        out = self.out if few is None else self.out / f"rare-{few}"
        return Experiment(folds, arms, self.config.downstream, self.config.augment, out)


@dataclass(frozen=True)
class Rung:
    """The experiment at one number of rare training slices.

    Attributes:
        parts: Its folds.
        folds: The same, read, without generators.
        generators: One for each fold.
    """

    parts: Sequence[NestedParts]
    folds: Sequence[Fold]
    generators: Sequence[GeneratorPiece]

    @classmethod
    def of(cls, asked: Nested, rare_slices: int | None) -> Rung:
        """Reads the folds.

        Raises:
            DataError: too few patients or slices.
        """
        parts = asked.parts(rare_slices)
        generators = generator_pieces(parts, asked.out, asked.tracking_uri)
        return cls(parts, [part.fold() for part in parts], generators)

    @property
    def name(self) -> str:
        """Said before its folds; empty with all slices."""
        few = self.parts[0].rare_slices
        return "" if few is None else f"with {few} rare slices, "

    def rare(self, factor: str) -> tuple[int, int]:
        """Training slices of the rarest class, and patients with it: the folds' medians."""
        from downstream.fold import patients_per_class, rarest_value

        rarest = rarest_value(self.parts[0].dataset, factor)
        trains = [fold.train for fold in self.folds]
        slices = [int((t.column(factor)[t.labelled].astype(str) == rarest).sum()) for t in trains]
        patients = [patients_per_class(train, factor)[rarest] for train in trains]
        return round(median(slices)), round(median(patients))


@dataclass(frozen=True)
class Fitted:
    """A rung whose generators are fitted, and all classifiers that the budget allowed."""

    rung: Rung
    records: Sequence[dict[str, Any]]
    experiment: Experiment


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        report: The judgement of the seeds that are complete.
        images: Test slices of each fold, (N, S, S) float32 in [0, 1].
    """

    report: UsefulnessReport
    images: dict[int, NDArray[np.float32]]


def run_nested(asked: Nested, console: Console, *, dry_run: bool = False) -> Found | None:
    """Tells what will be done and how long it takes, does what is not done yet, and judges.

    Returns:
        What was found; None for a dry run, or where the budget ended before one seed was complete.

    Raises:
        InvalidDataset: validation found errors in the data.
        ConfigError: the data have no such factor, a classifier cannot be used, or two numbers of
            rare slices are one point of the learning curve.
        DataError: an arm cannot be made on some fold; nothing was fitted yet.
        FastGANAugError: see ``engines.fold_generator`` and ``downstream.classifier_pieces``.
    """
    from downstream.fold import factor_of
    from fastgan_aug.data.validation.validate import check_valid
    from fastgan_aug.engines.ray_cluster import ray_cluster

    deadline = math.inf if asked.budget is None else time.time() + asked.budget
    rungs = [Rung.of(asked, few) for few in (None, *sorted(set(asked.rare_slices), reverse=True))]
    _refuse_alike(rungs, factor_of(rungs[0].folds[0].train, asked.config.downstream))
    # The whole of it: a slice under two patients may stand in training and test.
    check_valid(read_kept(asked.data, asked.config))
    _check_arms(asked, [fold for rung in rungs for fold in rung.folds])
    _print_plan(asked, rungs, console)
    if dry_run:
        return None
    done: list[Fitted] = []
    with ray_cluster(asked.config.engine.timeout) if asked.ray else nullcontext():
        for rung in rungs:
            if (fitted := _fit(asked, rung, deadline, console)) is None:
                break
            done.append(fitted)
    if not done or (report := judged(asked, done)) is None:
        return None
    folds = rungs[0].folds
    images = {fold.number: fold.test.images[fold.test.labelled] for fold in folds}
    return Found(report, images)


def _fit(asked: Nested, rung: Rung, deadline: float, console: Console) -> Fitted | None:
    """The generators and, in time, the classifiers; None where the budget ended before."""
    records = _fit_generators(asked, rung, deadline, console)
    if missing := len(rung.generators) - len(records):
        _say_budget(f"{rung.name}{missing} generators", console)
        return None
    experiment = asked.experiment(rung.parts, [piece.checkpoint for piece in rung.generators])
    _run_pieces(asked, experiment, rung, records, deadline, console)
    if missing := len(experiment.waiting):
        _say_budget(f"{rung.name}{missing} fits", console)
    return Fitted(rung, records, experiment)


def _refuse_alike(rungs: Sequence[Rung], factor: str) -> None:
    """Two numbers of rare slices with one place on the curve; often both are the same patients."""
    from fastgan_aug.errors import ConfigError

    known: dict[int, Rung] = {}
    for rung in rungs:
        slices, _ = rung.rare(factor)
        other = known.setdefault(slices, rung)
        if other is not rung:
            few, more = (one.parts[0].rare_slices or "all" for one in (rung, other))
            raise ConfigError(
                f"{few} and {more} rare slices are one point of the curve: by the folds' median "
                f"both leave {slices}, since patients stay whole",
                allowed="numbers that differ by a patient's slices or more",
                do="leave one of them out",
            )


def _check_arms(asked: Nested, folds: Sequence[Fold]) -> None:
    """Tries the arms on every fold, and classifiers of one's own on the first."""
    from downstream.arms.catalogue import arms_named
    from downstream.classifier_pieces import material_of
    from downstream.experiment import check_arms, try_classifiers
    from downstream.fold import factor_of

    config, section = asked.config, asked.config.downstream
    arms, factor = arms_named(section.arms), factor_of(folds[0].train, section)
    for fold in folds:
        material = material_of(fold, factor, config.augment, section.balance)
        check_arms(arms, material, filtered=config.selection.filter)
    material = material_of(folds[0], factor, config.augment, section.balance)
    try_classifiers(section, arms, material)


def _run(asked: Nested) -> Run:
    from fastgan_aug.engines.tasks import map_in_processes, map_on_ray

    if asked.ray:
        return partial(map_on_ray, workers=asked.workers)
    return map if asked.workers == 1 else partial(map_in_processes, workers=asked.workers)


def _fit_generators(
    asked: Nested, rung: Rung, deadline: float, console: Console
) -> list[dict[str, Any]]:
    from fastgan_aug.engines.fold_generator import fit_in_time

    records = []
    with fit_bars(rung.generators, console):
        # What was not begun in time gives None.
        for record in filter(None, _run(asked)(partial(fit_in_time, deadline), rung.generators)):
            records.append(record)
            (note,) = gate_notes([record], rung.name)
            console.print(f"  {note}", markup=False, soft_wrap=True)
    return records


def _run_pieces(
    asked: Nested,
    experiment: Experiment,
    rung: Rung,
    records: Sequence[dict[str, Any]],
    deadline: float,
    console: Console,
) -> None:
    from downstream.classifier_pieces import run_pieces, seconds_left, start

    facts: list[dict[str, Any]] = [
        digests(fold) | {"generator": record["checkpoint_digest"]}
        for fold, record in zip(rung.folds, records, strict=True)
    ]
    start(experiment, facts)
    if waiting := len(experiment.waiting):
        took = seconds_left(experiment, rung.folds[0]) / asked.workers
        told = f"{rung.name}{waiting} of {len(experiment.pieces)} fits to do"
        console.print(f"{told[0].upper()}{told[1:]}: about {duration(took)}")
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        total = len(experiment.pieces)
        task = bar.add_task("fitting", total=total, completed=total - waiting)
        run_pieces(
            experiment, _run(asked), budget=deadline - time.time(),
            progress=lambda what, done, _: bar.update(task, description=what, completed=done),
        )  # fmt: skip


def _print_plan(asked: Nested, rungs: Sequence[Rung], console: Console) -> None:
    """Folds with counts and patients, arms, fits, and how long all that takes here."""
    from downstream.classifier_pieces import seconds_left
    from downstream.experiment import untried
    from downstream.fold import factor_of
    from fastgan_aug.gan.cost import measure_cost

    (whole, *fewer), config = rungs, asked.config
    folds = whole.folds
    space, factor = folds[0].train.meta.space, factor_of(folds[0].train, config.downstream)
    sides = ("train", "validation", "test")
    shown = [("", fold, side) for fold in folds for side in sides]
    shown += [(rung.name, fold, "train") for rung in fewer for fold in rung.folds]
    for name, fold, side in shown:
        line = f"  {name}fold {fold.number}, {side}: {_counts(getattr(fold, side), factor)}"
        console.print(line, markup=False, soft_wrap=True)
    experiments = [asked.experiment(r.parts, [asked.out] * len(r.parts)) for r in rungs]
    generators = [piece for rung in rungs for piece in rung.generators]
    unfitted = [piece for piece in generators if piece.done is None]
    cost = measure_cost(config.network, config.training, space.dimension, steps=3)
    gan = (config.training.images / cost.images_per_second + JUDGING) * len(unfitted)
    fits = sum(seconds_left(each, folds[0]) for each in experiments)
    pieces, waiting = (sum(len(getattr(each, name)) for each in experiments)
                       for name in ("pieces", "waiting"))  # fmt: skip
    values = ", ".join(space.factor(factor).values)
    balanced = config.downstream.balance or factor
    told = f"  predicted: {factor} ({values}); balanced: {balanced}"
    console.print(told, markup=False, soft_wrap=True)
    arms = experiments[0].arms
    console.print(f"  arms: {', '.join(arm.name for arm in arms)}", soft_wrap=True)
    for note in untried(config.downstream.classifiers, arms):
        console.print(f"  {note}", markup=False, soft_wrap=True)
    console.print(
        f"  {len(generators)} generators of {config.training.images:,} images, {len(unfitted)} to "
        f"do; {pieces} fits of the classifier, {waiting} to do: "
        f"about {duration((gan + fits) / asked.workers)}, {asked.workers} at once",
        soft_wrap=True,
    )


def _counts(part: Dataset, factor: str) -> str:
    """Slices and patients of each class."""
    from downstream.fold import patients_per_class

    values = part.column(factor)[part.labelled].astype(str).tolist()
    told = ", ".join(
        f"{value} {values.count(value)} of {n}"
        for value, n in patients_per_class(part, factor).items()
    )
    return f"{told} patients" if told else "none, since a class has too few patients"


def _say_budget(missing: str, console: Console) -> None:
    console.print(
        f"the budget is spent, {missing} are still to be done: give the command again", style="bold"
    )
