"""The experiment: the same classifier, steps and test patients for every arm."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from downstream.arms import Arm, Fit, Material, SyntheticSource, arms_named
from downstream.report import ArmScores, Comparison, UsefulnessReport
from downstream.scores import (
    Ranking,
    balanced_accuracy,
    confusions,
    detectable,
    estimate,
    holm,
    macro_f1,
    p_value,
    patient_draws,
    ranking,
    recalls,
    resample,
    verdict,
)
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.data.split import check_disjoint, split_by_patient
from fastgan_aug.errors import DataError, LeakageError
from fastgan_aug.quality.likeness.classifier import Classifier, FitSettings, fit_classifier
from fastgan_aug.quality.likeness.faithfulness import class_labels

log = logging.getLogger(__name__)
VALIDATION_FRACTION = 0.25
UNCHECKED = "the patients the model saw are not known: it may have seen the test patients"
NO_GROUPS = "the data have no patients: one person's slices may stand in training and test"
Progress = Callable[[str, int, int], None]
"""(what is being fitted, fits done, fits in all)."""


@dataclass(frozen=True)
class ArmResult:
    """What the fits of one arm gave.

    Attributes:
        arm: Which.
        confusion: (seeds, test patients, C, C) confusion matrices.
        n_synthetic: Synthetic slices added, of the last seed.
        seconds: Median over the seeds of one fit with its predictions.
        rankings: One for each seed; none where the test has one class alone.
    """

    arm: Arm
    confusion: NDArray[np.int64]
    n_synthetic: int
    seconds: float
    rankings: tuple[Ranking, ...]


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
    """Fits the classifier for each arm and seed and scores it on the test patients.

    The rival of the synthetic arms, the best arm without synthetic slices, is chosen on a
    validation part of the training patients, never on the test.

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
        progress: Told of each fit.

    Raises:
        LeakageError: training data or the model share a patient with the test, or synthetic
            slices stand where real ones belong.
        PseudonymKeysDiffer: the model's or a side's pseudonyms come from another key.
        DataError: the data have no patients, or too few classes or slices.
    """
    factor = config.factor or train.meta.space.names[-1]
    _check(train, test, factor, seen, unsafe_no_groups)
    arms = arms_named(config.arms)
    material = Material.of(train, factor, rules, synthetic, filtered)
    plain = [arm for arm in arms if not arm.synthetic]
    total = (len(arms) + len(plain)) * len(config.seeds)
    tell = _Counter(progress, total)
    rival, how = _choose_rival(train, plain, material, config, tell)
    results = [_run(arm, material, test, config, tell) for arm in arms]
    report = _report(
        train,
        test,
        material,
        config,
        results,
        rival,
        [how, *_notes(train, material, test, seen)],
    )
    if {train.meta.grouping, test.meta.grouping} != {BY_PATIENT}:
        return _without_verdicts(report, NO_GROUPS)
    return report if seen is not None else _without_verdicts(report, UNCHECKED)


def _without_verdicts(report: UsefulnessReport, why: str) -> UsefulnessReport:
    """The report of a test whose patients may be known: nothing may be concluded from it."""
    return replace(
        report,
        caveat=f"This report proves nothing: {why}.",
        comparisons=tuple(
            replace(c, verdict="NO EVIDENCE", reason=why) for c in report.comparisons
        ),
    )


class _Counter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what, self.done, self.total)
        self.done += 1


def _check(
    train: Dataset, test: Dataset, factor: str, seen: SeenPatients | None, unsafe_no_groups: bool
) -> None:
    for name, part in (("training", train), ("test", test)):
        if part.meta.grouping != BY_PATIENT and not unsafe_no_groups:
            raise DataError(
                f"the {name} data have no patients (grouping {part.meta.grouping!r}): nothing can "
                "be claimed on them",
                allowed="data whose rows carry their patients",
                do="import the images again with a patient_id column; --unsafe-no-groups shows "
                "the machinery at work, without a verdict",
            )
        if not part.labelled.any():
            raise DataError(f"the {name} data have no labelled slice", do="add labelled slices")
    if (train.meta.space, train.meta.size) != (test.meta.space, test.meta.size):
        raise DataError("training and test data differ in factors or size", do="split one data set")
    check_disjoint(train, test)
    if bool(np.any(train.column("synthetic"))):
        raise LeakageError(
            "the training data hold synthetic slices",
            allowed="real slices; synthetic ones come from the source",
            do="keep the rows whose synthetic column is false",
        )
    shared = 0 if seen is None else seen.shared_with(test)
    if shared:
        raise LeakageError(
            f"the model was trained on {shared} of the {len(test.patients)} test patients",
            allowed="a model that saw training patients only",
            do="train a model on the training part of this split",
        )
    if len(set(class_labels(train, factor))) < 2:
        raise DataError(
            f"the training data have fewer than two values of {factor!r}",
            allowed="two classes or more",
            do="predict another factor, or add slices",
        )


def _notes(
    train: Dataset, material: Material, test: Dataset, seen: SeenPatients | None
) -> Iterator[str]:
    """What a reader has to know."""
    if seen is None:
        yield "The patients the model saw are not known: leakage could not be checked."
    elif not seen.digests <= set(train.patient_digests):
        yield "The model saw patients beyond this training data (none of the test)."
    absent = set(range(len(material.classes))) - set(material.labels.tolist())
    for k in sorted(absent):
        yield f"{material.classes[k]} has no training slice: no arm can learn it."
    for k in sorted(set(range(len(material.classes))) - set(_test_labels(test, material))):
        yield f"{material.classes[k]} has no test slice: it is left out of every mean over classes."


def _test_labels(test: Dataset, material: Material) -> list[int]:
    return [int(k) for k in class_labels(test, material.factor)]


def _choose_rival(
    train: Dataset,
    plain: Sequence[Arm],
    material: Material,
    config: DownstreamConfig,
    tell: _Counter,
) -> tuple[str, str]:
    """The name of the best arm without synthetic slices, and how it was chosen."""
    try:
        part, validation = split_by_patient(
            train, VALIDATION_FRACTION, seed=0, unsafe_no_groups=True
        )
        inner = Material.of(part, material.factor, material.rules, material.synthetic)
        if not validation.labelled.any() or len(set(inner.labels)) < 2:
            raise DataError("the training data are too few for a validation part")
    except (DataError, ValueError) as error:
        log.warning("no validation part: %s", error)
        return plain[0].name, (
            f"The rival is {plain[0].name!r} by default: the training data are too few to choose "
            "the best arm without synthetic slices on a validation part."
        )
    scores = {
        arm.name: _mean_macro_f1(_run(arm, inner, validation, config, tell, "validation: "))
        for arm in plain
    }
    best = max(scores, key=lambda name: scores[name])
    return best, (
        f"The rival is {best!r}: the best arm without synthetic slices on "
        f"{len(validation.patients)} validation patients taken from the training patients "
        f"(macro-F1 {scores[best]:.3f}), chosen before the test was looked at."
    )


def _mean_macro_f1(result: ArmResult) -> float:
    return float(macro_f1(result.confusion.sum(axis=1).astype(np.float64)).mean())


def _run(
    arm: Arm,
    material: Material,
    test: Dataset,
    config: DownstreamConfig,
    tell: _Counter,
    prefix: str = "",
) -> ArmResult:
    """Fits one arm with every seed and predicts the test."""
    rows = test.labelled
    images, truth = test.images[rows], class_labels(test, material.factor)
    patients = test.column("patient_id")[rows].astype(str).tolist()
    found, seconds, n_synthetic = [], [], 0
    rankings: list[Ranking] = []
    for seed in config.seeds:
        tell(f"{prefix}{arm.name}, seed {seed}")
        start = time.perf_counter()
        fit = arm.prepare(material, seed)
        classifier = _fitted(fit, len(material.classes), FitSettings.of(config), seed)
        chances = classifier.predict_proba(images)
        predicted = np.asarray(chances.argmax(axis=1), np.int64)
        found.append(confusions(truth, predicted, patients, len(material.classes)))
        if (ranked := ranking(truth, chances)) is not None:
            rankings.append(ranked)
        seconds.append(time.perf_counter() - start)
        n_synthetic = fit.n_synthetic
    took = float(np.median(seconds))
    return ArmResult(arm, np.stack(found), n_synthetic, took, tuple(rankings))


def _fitted(fit: Fit, n_classes: int, settings: FitSettings, seed: int) -> Classifier:
    """The classifier of an arm; all arms take equally many steps."""
    start = None
    if fit.pretraining is not None:
        half = replace(settings, steps=max(1, settings.steps // 2))
        settings = replace(settings, steps=max(1, settings.steps - half.steps))
        start = _fitted(fit.pretraining, n_classes, half, seed)
    return fit_classifier(
        fit.images,
        fit.labels,
        n_classes,
        settings,
        seed=seed,
        class_weights=fit.class_weights,
        augment=fit.augment,
        sampling=fit.sampling,
        focal_gamma=fit.focal_gamma,
        mixup_alpha=fit.mixup_alpha,
        start=start,
    )


def _report(
    train: Dataset,
    test: Dataset,
    material: Material,
    config: DownstreamConfig,
    results: Sequence[ArmResult],
    rival: str,
    notes: Sequence[str],
) -> UsefulnessReport:
    labels = np.asarray(_test_labels(test, material))
    owner = test.column("patient_id")[test.labelled].astype(str)
    n_patients = [len(set(owner[labels == k])) for k in range(len(material.classes))]
    draws = patient_draws(len(set(owner)), config.bootstrap)
    boot = {r.arm.name: macro_f1(resample(r.confusion, draws)).mean(axis=1) for r in results}
    by_name = {r.arm.name: r for r in results}
    tested = [r for r in results if r.arm.synthetic]
    apart = [boot[r.arm.name] - boot[rival] for r in tested]
    comparisons = []
    for result, drawn, p in zip(tested, apart, holm([p_value(d) for d in apart]), strict=True):
        name = result.arm.name
        value = _mean_macro_f1(result) - _mean_macro_f1(by_name[rival])
        difference = estimate(value, drawn)
        word, why = verdict(difference, n_patients, len(config.seeds), p)
        gain = detectable(drawn, len(tested))
        comparisons.append(Comparison(name, rival, difference, word, why, p, gain))
    return UsefulnessReport(
        factor=material.factor,
        classes=material.classes,
        train_slices=tuple(int(n) for n in material.counts),
        test_slices=tuple(int(n) for n in np.bincount(labels, minlength=len(material.classes))),
        test_patients=tuple(n_patients),
        train_digest=train.digest,
        test_digest=test.digest,
        seeds=tuple(config.seeds),
        steps=config.steps,
        batch=config.batch,
        bootstrap=config.bootstrap,
        arms=tuple(_arm_scores(r, material.classes, draws) for r in results),
        comparisons=tuple(comparisons),
        notes=tuple(notes),
    )


def _arm_scores(result: ArmResult, classes: Sequence[str], draws: NDArray[np.int64]) -> ArmScores:
    whole = result.confusion.sum(axis=1).astype(np.float64)
    drawn = resample(result.confusion, draws)
    recall, drawn_recall = recalls(whole).mean(axis=0), recalls(drawn).mean(axis=1)
    return ArmScores(
        name=result.arm.name,
        synthetic=result.arm.synthetic,
        n_synthetic=result.n_synthetic,
        macro_f1=estimate(_mean_macro_f1(result), macro_f1(drawn).mean(axis=1)),
        balanced_accuracy=estimate(
            float(balanced_accuracy(whole).mean()), balanced_accuracy(drawn).mean(axis=1)
        ),
        recall={
            name: estimate(float(recall[k]), drawn_recall[:, k])
            for k, name in enumerate(classes)
            if np.isfinite(recall[k])
        },
        macro_f1_per_seed=tuple(float(v) for v in macro_f1(whole)),
        seconds_per_fit=result.seconds,
        ranking=_mean_ranking(result.rankings),
    )


def _mean_ranking(rankings: Sequence[Ranking]) -> Ranking | None:
    if not rankings:
        return None
    return Ranking(*(float(np.mean([getattr(r, f.name) for r in rankings]))
                     for f in fields(Ranking)))  # fmt: skip
