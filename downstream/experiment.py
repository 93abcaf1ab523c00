"""The experiment: the same classifier, steps and test patients for every arm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from downstream.arms.arm import Arm
from downstream.arms.catalogue import KNOWN, arms_named
from downstream.classifiers.catalogue import KINDS, check_classifiers, classifier_named
from downstream.classifiers.kind import Kind
from downstream.fold import Fold, Part, factor_of, held_back, nobody
from downstream.judging import JudgeSettings, judge
from downstream.material import Material, SyntheticSource
from downstream.notes import notes_of_balance
from downstream.outcome import Outcome, Truth
from downstream.report import UsefulnessReport
from downstream.service import zeros_source
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.errors import ConfigError, DataError
from fastgan_aug.quality.likeness.classifier import FitSettings

log = logging.getLogger(__name__)
UNCHECKED = "the patients the model saw are not known: it may have seen the test patients"
NO_GROUPS = "the data have no patients: one person's slices may stand in training and test"
Progress = Callable[[str, int, int], None]
"""(what is being fitted, fits done, fits in all)."""
TRIED_SLICES = 25  # of each class, on which a classifier of one's own is tried


def run_experiment(
    train: Dataset,
    test: Dataset,
    config: DownstreamConfig,
    rules: AugmentConfig,
    synthetic: SyntheticSource,
    *,
    seen: SeenPatients | None,
    unsafe_no_groups: bool = False,
    filtered: SyntheticSource | None = None,
    progress: Progress | None = None,
) -> UsefulnessReport:
    """Fits the classifier for each arm and seed and judges it on the test patients.

    The rival of the synthetic arms, the best arm without synthetic slices, is chosen on a
    validation part of the training patients by fits without it, never on the test. Then every arm
    is fitted on all training patients: the generator saw them all, and an arm that did not would
    lack what synthetic slices may carry of them.

    Args:
        train: Real slices of the training patients, the ones the model saw.
        test: Real slices of other patients.
        config: Predicted factor, seeds, steps and the classifier's settings.
        rules: Shift and flip rule of the classical augmentation.
        synthetic: Source of synthetic slices, for example ``service_source``.
        seen: The patients the model was trained on; None where nobody knows: then every verdict
            is NO EVIDENCE.
        unsafe_no_groups: Takes data without patients too; every verdict is then NO EVIDENCE.
        filtered: Source through the version's filter, for the arms that want one.
        progress: Told of each fit, those that the rival is chosen by included.

    Raises:
        ConfigError: the data have no such factor, or a classifier cannot be used.
        LeakageError: training data or the model share a patient with the test, or synthetic
            slices stand where real ones belong.
        PseudonymKeysDiffer: the model's or a side's pseudonyms come from another key.
        DataError: the data have no patients, or too few classes or slices, or an arm cannot be made
            of them.
    """
    factor = factor_of(train, config)
    Fold(0, train, nobody(train), test, seen).check(unsafe_no_groups=unsafe_no_groups)
    arms = arms_named(config.arms)
    part, held = _validation_part(train, factor)
    whole, fewer = (
        Material.of(of, factor, rules, synthetic, filtered, balance=config.balance)
        for of in (train, part)
    )
    check_arms(arms, whole, filtered=filtered is not None)
    check_arms([arm for arm in arms if arm.source == "real"], fewer)
    try_classifiers(config, arms, whole)
    left_out = untried(config.classifiers, arms)
    for note in left_out:
        log.warning(note)
    validation, tested, none = (Part.of(p, factor) for p in (held, test, nobody(train)))
    fits = [(*pair, seed) for pair in tried(config.classifiers, arms) for seed in config.seeds]
    rivals = [fit for fit in fits if fit[1].source == "real"] if len(held) else []
    found = []
    for done, (kind, arm, seed) in enumerate([*rivals, *fits]):
        if progress is not None:
            progress(f"{kind.name}, {arm.name}, seed {seed}", done, len(rivals) + len(fits))
        sides = (fewer, validation, none) if done < len(rivals) else (whole, none, tested)
        found.append(fit_and_predict(kind, arm, *sides, config, seed))
    chosen_by = {(o.classifier, o.arm, o.seed): o.validation for o in found[: len(rivals)]}
    outcomes = [
        replace(o, validation=chosen_by.get((o.classifier, o.arm, o.seed), o.validation))
        for o in found[len(rivals) :]
    ]
    truth = Truth(0, validation.labels, tested.labels, validation.patients, tested.patients)
    settings = JudgeSettings(
        bootstrap=config.bootstrap,
        choose_synthetic=False,  # the generator saw all training patients
        caveat=_caveat(train, test, seen),
        notes=(
            *notes_of_balance(factor, whole.balance), *_notes(train, whole, seen), *left_out,
        ),
        provenance={
            "factor": factor, "balance": whole.balance,
            "train_digest": train.digest, "test_digest": test.digest,
            "train_slices": dict(zip(whole.classes, whole.counts.tolist(), strict=True)),
            "steps": config.steps, "batch": config.batch,
        },
    )  # fmt: skip
    return judge(outcomes, [truth], arms, whole.classes, settings)


def tried(classifiers: Sequence[str], arms: Sequence[Arm]) -> list[tuple[Kind, Arm]]:
    """Every classifier with every arm that it can; ``untried`` tells the others.

    Raises:
        ConfigError: an unknown classifier, or one that stands there twice.
    """
    check_classifiers(classifiers)
    return [
        (kind, arm)
        for kind in map(classifier_named, classifiers)
        for arm in arms
        if arm.needs.isdisjoint(kind.cannot)
    ]


def untried(classifiers: Sequence[str], arms: Sequence[Arm]) -> list[str]:
    """A note for each classifier that cannot do some of the arms."""
    notes = []
    for kind in map(classifier_named, classifiers):
        lacking = {arm.name: arm.needs & kind.cannot for arm in arms if arm.needs & kind.cannot}
        if lacking:
            names, needs = map(repr, lacking), sorted(frozenset().union(*lacking.values()))
            notes.append(
                f"{kind.name} is not tried with {', '.join(names)}: it takes no {', '.join(needs)}."
            )
    return notes


def check_arms(arms: Sequence[Arm], material: Material, *, filtered: bool = False) -> None:
    """Prepares each arm once: none is to refuse the data after hours of fits.

    No source is asked: zeros stand in for what it would give.

    Args:
        arms: What is compared.
        material: The real slices; there is an oracle where it has one.
        filtered: Whether there is a filter, or will be one.

    Raises:
        DataError: an arm cannot be made; the message names what it lacks.
    """
    zeros = zeros_source(material)
    oracle = None if material.oracle is None else zeros
    blank = replace(material, synthetic=zeros, filtered=zeros if filtered else None, oracle=oracle)
    for arm in arms:
        arm.prepare(blank, 0)


def try_classifiers(config: DownstreamConfig, arms: Sequence[Arm], material: Material) -> None:
    """Fits each classifier of one's own on a few slices: none is to fail after hours of fits.

    Args:
        config: The classifiers and their settings.
        arms: What is compared.
        material: The real slices.

    Raises:
        ConfigError: one cannot be fitted or gives no probabilities, or can no arm of real slices.
        DataError: what one gives are no probabilities.
    """
    able = {kind.name for kind, arm in tried(config.classifiers, arms) if arm.source == "real"}
    if unable := [name for name in config.classifiers if name not in able]:
        raise ConfigError(
            f"{', '.join(unable)} can none of the arms without synthetic slices",
            allowed="one or more, which the others are compared with",
            do='add "real" to downstream.arms, or leave the classifier out',
        )
    rows = np.concatenate(
        [np.flatnonzero(material.labels == k)[:TRIED_SLICES] for k in range(len(material.classes))]
    )
    few = replace(
        material, images=material.images[rows], labels=material.labels[rows],
        cells=material.cells[rows],
    )  # fmt: skip
    part = Part(few.images, few.labels, np.zeros(len(rows), np.int64))
    quick = config.model_copy(update={"steps": 1})
    for name in config.classifiers:
        if name not in KINDS:
            fit_and_predict(classifier_named(name), KNOWN["real"], few, part, part, quick, 0)


def _caveat(train: Dataset, test: Dataset, seen: SeenPatients | None) -> str:
    """Why nothing may be concluded; empty where all patients are known."""
    if {train.meta.grouping, test.meta.grouping} != {BY_PATIENT}:
        return NO_GROUPS
    return UNCHECKED if seen is None else ""


def _notes(train: Dataset, material: Material, seen: SeenPatients | None) -> Iterator[str]:
    """What a reader has to know."""
    if seen is None:
        yield "The patients the model saw are not known: leakage could not be checked."
    elif not seen.digests <= set(train.patient_digests):
        yield "The model saw patients beyond this training data (none of the test)."
    absent = set(range(len(material.classes))) - set(material.labels.tolist())
    for k in sorted(absent):
        yield f"{material.classes[k]} has no training slice: no arm can learn it."


def _validation_part(train: Dataset, factor: str) -> tuple[Dataset, Dataset]:
    """What is fitted on, and the patients the rival is chosen on; none where they are too few."""
    try:
        return held_back(train, 0, factor, unsafe_no_groups=True)
    except DataError as error:
        log.warning("no validation part: %s", error)
        return train, nobody(train)


def fit_and_predict(
    classifier: Kind,
    arm: Arm,
    material: Material,
    validation: Part,
    test: Part,
    config: DownstreamConfig,
    seed: int,
    fold: int = 0,
) -> Outcome:
    """Fits one arm once and predicts both parts.

    Raises:
        ConfigError: the classifier cannot what the arm needs.
        DataError: too few classes or slices for the arm, or a source's slices do not fit.
    """
    start = time.perf_counter()
    fit = arm.prepare(material, seed)
    classes = len(material.classes)
    fitted = classifier.fit(fit, classes, FitSettings.of(config), seed)
    empty = np.zeros((0, classes), np.float32)
    chances = [
        fitted.predict_proba(part.images) if len(part.images) else empty
        for part in (validation, test)
    ]
    seconds = time.perf_counter() - start
    facts = (fold, classifier.name, arm.name, seed, fit.n_real, fit.n_synthetic, seconds)
    return Outcome(*facts, chances[0], chances[1], fit.n_missing)
