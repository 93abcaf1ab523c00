"""`fastgan-aug downstream` without a service: nested by patient, one generator for each fold."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastgan_aug.cli.fits import duration, fit_bars
from fastgan_aug.cli.nested import NestedParts, OpenNested, generator_pieces, read_kept

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from downstream.classifier_pieces import Experiment
    from downstream.fold import Fold
    from downstream.report import UsefulnessReport
    from fastgan_aug.config import Config
    from fastgan_aug.engines.fold_generator import GeneratorPiece
    from fastgan_aug.engines.pieces import Run

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
    """

    data: Path
    config: Config
    out: Path
    workers: int = 1
    ray: bool = False
    budget: float | None = None
    tracking_uri: str | None = None
    unsafe_no_groups: bool = False

    @property
    def parts(self) -> list[NestedParts]:
        """The folds.

        Raises:
            DataError: too few patients.
        """
        from downstream.classifier_pieces import factor_of
        from downstream.fold import count_folds

        dataset = read_kept(self.data, self.config)
        section = self.config.downstream
        n = count_folds(dataset, factor_of(dataset, section), section.folds)
        return [NestedParts(self.data, k, self.config, self.unsafe_no_groups) for k in range(n)]

    def experiment(self, parts: Sequence[NestedParts], checkpoints: Sequence[Path]) -> Experiment:
        """What is compared, on folds with these generators."""
        from downstream.arms.catalogue import arms_named
        from downstream.classifier_pieces import Experiment

        folds = [OpenNested(*both) for both in zip(parts, checkpoints, strict=True)]
        arms = arms_named(self.config.downstream.arms)
        return Experiment(folds, arms, self.config.downstream, self.config.augment, self.out)


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
        DataError: a fold has too few slices for an arm; nothing was fitted yet.
        FastGANAugError: see ``engines.fold_generator`` and ``downstream.classifier_pieces``.
    """
    from fastgan_aug.data.validation.validate import check_valid
    from fastgan_aug.engines.ray_cluster import ray_cluster

    begun, parts = time.monotonic(), asked.parts
    # The whole of it: a slice under two patients may stand in training and test.
    check_valid(read_kept(asked.data, asked.config))
    folds = [part.fold() for part in parts]
    _check_arms(asked, folds)
    generators = generator_pieces(
        asked.data, asked.config, len(parts), asked.out, asked.tracking_uri,
        unsafe_no_groups=asked.unsafe_no_groups,
    )  # fmt: skip
    _print_plan(asked, folds, generators, parts, console)
    if dry_run:
        return None
    with ray_cluster(asked.config.engine.timeout) if asked.ray else nullcontext():
        records = _fit_generators(asked, generators, begun, console)
        if len(records) < len(generators):
            _say_budget(len(generators) - len(records), "generators", console)
            return None
        experiment = asked.experiment(parts, [piece.checkpoint for piece in generators])
        _run_pieces(asked, experiment, folds, records, begun, console)
    report = judged(asked, experiment, folds, records, console)
    images = {fold.number: fold.test.images[fold.test.labelled] for fold in folds}
    return None if report is None else Found(report, images)


def _check_arms(asked: Nested, folds: Sequence[Fold]) -> None:
    """Tries the arms of real slices on every fold."""
    from downstream.arms.catalogue import arms_named
    from downstream.classifier_pieces import factor_of, material_of
    from downstream.experiment import check_arms

    for fold in folds:
        factor = factor_of(fold.train, asked.config.downstream)
        material = material_of(fold, factor, asked.config.augment)
        check_arms(arms_named(asked.config.downstream.arms), material)


def judged(
    asked: Nested,
    experiment: Experiment,
    folds: Sequence[Fold],
    records: Sequence[dict[str, Any]],
    console: Console,
) -> UsefulnessReport | None:
    """What the seeds that are complete say; None where there is none."""
    from downstream.classifier_pieces import factor_of
    from downstream.experiment import NO_GROUPS
    from downstream.fold import truth_of
    from downstream.judging import JudgeSettings, judge
    from fastgan_aug.data.schema import BY_PATIENT

    seeds = experiment.complete_seeds
    if missing := len(experiment.waiting):
        _say_budget(missing, "fits", console)
    if not seeds:
        return None
    factor = factor_of(folds[0].train, asked.config.downstream)
    truths = [truth_of(fold, factor) for fold in folds]
    classes = folds[0].train.meta.space.factor(factor).values
    outcomes = [o for o in experiment.outcomes if o.seed in seeds]
    grouped = all(fold.train.meta.grouping == BY_PATIENT for fold in folds)
    settings = JudgeSettings(
        bootstrap=asked.config.downstream.bootstrap,
        caveat="" if grouped else NO_GROUPS,
        notes=tuple(gate_notes(records)),
        provenance={
            "factor": factor,
            "config_digest": asked.config.digest,
            "generators": list(records),
            "folds": [digests(fold) for fold in folds],
        },
    )
    return judge(outcomes, truths, experiment.arms, classes, settings)


def gate_notes(records: Sequence[dict[str, Any]]) -> list[str]:
    """What the gate said of each fold's generator; a fold is kept whatever it said."""
    return [f"Fold {r['seed']}: {_gate_words(r['verdict'])}" for r in records]


def _gate_words(verdict: dict[str, Any]) -> str:
    if verdict["passed"]:
        return "the gate says PASS of its generator."
    if not verdict["answers"]:
        return f"the gate {verdict['failures'][0]['text']}; the fold is kept."
    return (
        f"the gate says FAIL of its generator ({len(verdict['failures'])} of {verdict['answers']} "
        "answers); the fold is kept, since to drop it would select."
    )


def digests(fold: Fold) -> dict[str, str]:
    """Of the fold's parts."""
    parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    return {name: part.digest for name, part in parts.items()}


def _run(asked: Nested) -> Run:
    from fastgan_aug.engines.tasks import map_in_processes, map_on_ray

    if asked.ray:
        return partial(map_on_ray, workers=asked.workers)
    return map if asked.workers == 1 else partial(map_in_processes, workers=asked.workers)


def _left(asked: Nested, begun: float) -> float | None:
    return None if asked.budget is None else max(0.0, asked.budget - (time.monotonic() - begun))


def _fit_generators(
    asked: Nested, pieces: Sequence[GeneratorPiece], begun: float, console: Console
) -> list[dict[str, Any]]:
    from fastgan_aug.engines.fold_generator import fit_generator

    def in_time() -> Any:
        for piece in pieces:
            # A finished one is only looked at, whether it is of this data and configuration.
            if piece.done is not None or _left(asked, begun) != 0:
                yield piece

    records = []
    with fit_bars(pieces, console):
        for record in _run(asked)(fit_generator, in_time()):
            records.append(record)
            console.print(f"  {gate_notes([record])[0]}", markup=False, soft_wrap=True)
    return records


def _run_pieces(
    asked: Nested,
    experiment: Experiment,
    folds: Sequence[Fold],
    records: Sequence[dict[str, Any]],
    begun: float,
    console: Console,
) -> None:
    from downstream.classifier_pieces import run_pieces, seconds_left, start

    facts: list[dict[str, Any]] = [
        digests(fold) | {"generator": record["checkpoint_digest"]}
        for fold, record in zip(folds, records, strict=True)
    ]
    start(experiment, facts)
    if waiting := len(experiment.waiting):
        took = seconds_left(experiment, folds[0]) / asked.workers
        console.print(f"{waiting} of {len(experiment.pieces)} fits to do: about {duration(took)}")
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        total = len(experiment.pieces)
        task = bar.add_task("fitting", total=total, completed=total - waiting)
        run_pieces(
            experiment, _run(asked), budget=_left(asked, begun),
            progress=lambda what, done, _: bar.update(task, description=what, completed=done),
        )  # fmt: skip


def _print_plan(
    asked: Nested,
    folds: Sequence[Fold],
    generators: Sequence[GeneratorPiece],
    parts: Sequence[NestedParts],
    console: Console,
) -> None:
    """Folds with counts and patients, arms, fits, and how long all that takes here."""
    from downstream.classifier_pieces import factor_of, seconds_left
    from downstream.fold import patients_per_class
    from fastgan_aug.gan.cost import measure_cost

    factor = factor_of(folds[0].train, asked.config.downstream)
    for fold in folds:
        sides = {"train": fold.train, "validation": fold.validation, "test": fold.test}
        for name, part in sides.items():
            values = part.column(factor)[part.labelled].astype(str).tolist()
            told = ", ".join(
                f"{value} {values.count(value)} of {n}"
                for value, n in patients_per_class(part, factor).items()
            )
            told = f"{told} patients" if told else "none, since a class has too few patients"
            line = f"  fold {fold.number}, {name}: {told}"
            console.print(line, markup=False, soft_wrap=True)
    experiment = asked.experiment(parts, [asked.out] * len(parts))
    unfitted = [piece for piece in generators if piece.done is None]
    config, dimension = asked.config, folds[0].train.meta.space.dimension
    cost = measure_cost(config.network, config.training, dimension, steps=3)
    gan = (config.training.images / cost.images_per_second + JUDGING) * len(unfitted)
    fits = seconds_left(experiment, folds[0])
    values = ", ".join(folds[0].train.meta.space.factor(factor).values)
    console.print(f"  predicted: {factor} ({values})", markup=False, soft_wrap=True)
    console.print(f"  arms: {', '.join(arm.name for arm in experiment.arms)}", soft_wrap=True)
    console.print(
        f"  {len(generators)} generators of {config.training.images:,} images, {len(unfitted)} to "
        f"do; {len(experiment.pieces)} fits of the classifier, {len(experiment.waiting)} to do: "
        f"about {duration((gan + fits) / asked.workers)}, {asked.workers} at once",
        soft_wrap=True,
    )


def _say_budget(missing: int, what: str, console: Console) -> None:
    console.print(
        f"the budget is spent, {missing} {what} are still to be done: give the command again",
        style="bold",
    )
