"""The principal figure: how much of the oracle's gain the generator recovers: `benchmarks.proof`.

Phantoms with 8, 16, 32 and 52 slices of the rarest pattern, and with the 96 of Table 1; replicates
with training patients, generators and fresh test patients of their own. Everything is done in
pieces that are kept under ``--out``: what was finished is not done again, so the command can be
ended at any time and given again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import command_of, figure, publish
from benchmarks.proof_phantom import FACTOR, RAREST, SETTINGS, OpenReplicate, Replicate
from downstream.arms.catalogue import KNOWN
from downstream.classifier_pieces import Experiment, run_pieces, start, truths_of
from downstream.classifiers.catalogue import SMALL_CNN
from downstream.fold import Part, patients_per_class
from downstream.judging import JudgeSettings, judge, learning_curve
from downstream.outcome import Outcome, Truth
from downstream.report import Judgement
from downstream.score_table import score_table
from downstream.statistics.paired import PairedTest, over_folds, paired_test
from fastgan_aug.cli.downstream import write_report
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config, DownstreamConfig, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.plan import PATTERNS
from fastgan_aug.engines.fold_generator import GeneratorPiece, check_same, fit_generator
from fastgan_aug.engines.pieces import with_seed
from fastgan_aug.engines.tasks import map_in_processes, on_all_cores

REPLICATES = (10, 11, 12)  # 0 to 9 were looked at while arms and generator were chosen
SEEDS = 5
LEAST_SHARE = 0.5
IMAGES = 100_000
CURVE_ARM = "half synthetic in every class + classical augmentation"
RIVALS = (
    "class weights", "oversampling + classical augmentation", "classical augmentation",
    "moved defects + classical augmentation",
)  # fmt: skip
CANDIDATES = (
    "real + synthetic + classical augmentation",
    "half real, half synthetic + classical augmentation", CURVE_ARM,
    "moved defects, half synthetic in every class + classical augmentation",
)  # fmt: skip
ORACLES = (
    "oracle + classical augmentation", "half oracle in every class + classical augmentation",
)  # fmt: skip
WITHOUT_RULE = "rivals without the rule"
BY_RULE = (
    "moved defects", "moved defects + classical augmentation",
    "moved defects, half synthetic in every class + classical augmentation",
)  # fmt: skip
ARMS = {
    SMALL_CNN: tuple(KNOWN),
    "residual": ("real", *RIVALS, *CANDIDATES, *ORACLES),
    "boosting": ("real", *RIVALS, *CANDIDATES, *ORACLES),
}  # fmt: skip
"""What each classifier is tried with: all arms by the first, the best known by the others."""
ASKED = ("setting", "scanner", "replicate", "classifier", "arm", "images", "steps", "seeds")
"""What changes figures: folder, workers and budget do not."""
SECOND = "second"
Outcomes = tuple[list[Outcome], list[Truth]]
Rungs = dict[tuple[int, int], Outcomes]


def generator_config(images: int, replicate: int) -> Config:
    """The demo's recipe on one core, with its seed."""
    values = load_config("demo").to_dict()
    values["data"]["test_fraction"] = 0
    values["engine"] |= {"kind": "local", "workers": 1, "threads": 1}
    values["training"]["images"] = images
    return with_seed(Config.of(values), replicate)


def generator_of(replicate: Replicate, images: int) -> GeneratorPiece:
    """The piece that fits a replicate's generator."""
    config = generator_config(images, replicate.number)
    return GeneratorPiece(
        replicate.setting, replicate.number, config, replicate.train_path, replicate.out, replicate
    )


def fit_generators(replicates: Sequence[Replicate], images: int, workers: int) -> None:
    """Fits those that are not fitted yet, telling of each; the next sets are drawn meanwhile."""

    def waiting() -> Iterator[GeneratorPiece]:
        for replicate in replicates:
            piece = generator_of(replicate, images)
            if piece.done is None:
                replicate.draw(map, fresh=False)
                print(f"drawn: {replicate.name}", flush=True)
                yield piece

    run = map if workers == 1 else partial(map_in_processes, workers=workers)
    for record in run(fit_generator, waiting()):
        verdict = record["verdict"]
        print(
            f"fitted: {record['name']}-{record['seed']}, {record['images']:,} images in "
            f"{record['seconds']:.0f} s, {len(verdict['failures'])} of {verdict['answers']} "
            "answers of the gate fail",
            flush=True,
        )


def experiments_of(
    setting: str,
    replicates: Sequence[Replicate],
    images: int,
    config: DownstreamConfig,
    only: Sequence[str] | None,
) -> list[Experiment]:
    """Every classifier with its arms, or with those of them that are named, on the replicates."""
    pieces = [generator_of(replicate, images) for replicate in replicates]
    folds = [
        OpenReplicate(replicate, piece.checkpoint, order)
        for order, (replicate, piece) in enumerate(zip(replicates, pieces, strict=True))
    ]
    rules = generator_config(images, 0).augment
    return [
        Experiment(
            folds, [KNOWN[arm] for arm in ARMS[classifier] if not only or arm in only],
            config.model_copy(update={"classifiers": [classifier]}), rules,
            replicates[0].judged / setting,
        )
        for classifier in config.classifiers
    ]  # fmt: skip


def run_setting(
    experiment: Experiment, records: Sequence[dict[str, Any]], workers: int, budget: float | None
) -> Outcomes | None:
    """Fits the classifiers that are not fitted yet; what the complete seeds predicted.

    Returns:
        Outcomes and truths; None where no seed is complete.

    Raises:
        ConfigError: finished pieces are of other generators or of sets that were drawn anew since.
    """
    start(experiment, [{"generator": r["checkpoint_digest"]} | r["fresh"] for r in records])
    run = map if workers == 1 else partial(map_in_processes, workers=workers)
    left = run_pieces(
        experiment, run, budget=budget,
        progress=lambda what, done, total: print(f"{done} of {total}: {what}", flush=True),
    )  # fmt: skip
    print(f"{experiment.out.name}: {left} pieces are still to be done", flush=True)
    seeds = experiment.complete_seeds
    if not seeds:
        return None
    return [o for o in experiment.outcomes if o.seed in seeds], truths_of(experiment)


def figures_of(setting: str, judgement: Judgement) -> list[dict[str, Any]]:
    """The oracle's gain over the best rival, that of the synthetic arms, the share recovered.

    Only what the chosen arm is to reach has a goal.
    """
    name = f"{setting}, {judgement.classifier}"
    found = [
        figure(f"{name}: macro-F1 of {judgement.rival!r}, the best rival",
               judgement.arm(judgement.rival).macro_f1.value, "")
    ]  # fmt: skip
    for arm, test in judgement.oracle.items():
        found.append(figure(f"{name}: gain of {arm!r}", test.value, ""))
        found.append(figure(f"{name}: gain of {arm!r}, lower end", test.low, ""))
    for each in judgement.comparisons:
        chosen, of = each.arm == judgement.recommended, repr(each.arm)
        found.append(figure(f"{name}: gain of {of}: {each.verdict}", each.difference.value, ""))
        found.append(figure(f"{name}: gain of {of}, lower end", each.difference.low, "",
                            0 if chosen else None, least=True))  # fmt: skip
        # Where the oracle's interval holds 0 the share is undefined: the reports say why.
        if each.recovered is not None and each.recovered.value is not None:
            found.append(figure(f"{name}: share of {each.oracle!r} recovered by {of}",
                                each.recovered.value, "", LEAST_SHARE if chosen else None,
                                least=True))  # fmt: skip
    return found


def rare_recall(judgement: Judgement, both: Outcomes) -> PairedTest | float | None:
    """What the chosen arm changes in the recall of the rarest pattern, paired by replicate.

    Returns:
        Its test over replicates; the difference alone where there is one replicate; None without a
        synthetic arm.
    """
    outcomes, truths = both
    if judgement.recommended is None:
        return None
    names = [judgement.recommended, judgement.rival]
    of_one = [o for o in outcomes if o.classifier == judgement.classifier]
    table = score_table(of_one, truths, names, len(PATTERNS), resamplings=1)
    one, other = (
        table.arms[name].recall[:, :, PATTERNS.index(RAREST)].mean(axis=1) for name in names
    )
    apart = float((one - other).mean())
    if len(truths) < 2:
        return apart
    precision = over_folds((one - other)[:, None], None)
    return paired_test(apart, float(precision.covariance[0, 0]) ** 0.5, float(precision.df[0]))


def rungs_of(found: Mapping[str, Outcomes], records: Sequence[dict[str, Any]]) -> Rungs:
    """(slices of the rarest pattern, patients they are of) of each setting to what is known."""
    rungs = {}
    for name, both in found.items():
        of_setting = [record for record in records if record["name"] == name]
        slices = sum(n for c, n in of_setting[0]["slices"].items() if c.endswith("/" + RAREST))
        rungs[slices, round(median(record["rare_patients"] for record in of_setting))] = both
    return rungs


def images_of(replicates: Sequence[Replicate]) -> dict[int, NDArray[np.float32]]:
    """Of each (N, S, S) test slices, for the pages."""
    tested = (Dataset.read(replicate.test_path) for replicate in replicates)
    return {k: Part.of(test, FACTOR).images for k, test in enumerate(tested)}


def results_name(settings: Iterable[str], asked: argparse.Namespace) -> str:
    """``proof-SETTINGS``, then what is unusual: scanner, classifiers and replicates."""
    others = [f"{asked.scanner}-scanner"] if asked.scanner else []
    others += [name for name in asked.classifier or () if name != SMALL_CNN]
    if (numbers := tuple(asked.replicate or REPLICATES)) != REPLICATES:
        others += ["replicates", f"{min(numbers)}-{max(numbers)}"]
    return "-".join(["proof", *settings, *others])


def recall_figures(recalls: Mapping[str, PairedTest | float | None]) -> list[dict[str, Any]]:
    """A line of the table for each judgement whose chosen arm changes the rare recall."""
    return [
        figure(
            f"{name}: gain in recall of {RAREST} by the chosen arm",
            test.value if isinstance(test, PairedTest) else test,
            "",
        )
        for name, test in recalls.items()
        if test is not None
    ]


def publish_found(
    found: Mapping[str, Outcomes],
    records: Sequence[dict[str, Any]],
    replicates: Sequence[Replicate],
    asked: argparse.Namespace,
) -> None:
    """Judges every setting and the learning curves over them.

    Writes ``results/NAME.json``, see ``results_name``, and under ``--out`` a page for each question
    with the slices that changed sides.
    """
    arms, classes = [KNOWN[arm] for arm in ARMS[SMALL_CNN]], PATTERNS
    settings = JudgeSettings(
        independent=True,
        provenance={"factor": FACTOR, "steps": asked.steps, "code": code_version()},
    )
    without = {
        name: ([o for o in outcomes if o.arm not in BY_RULE], truths)
        for name, (outcomes, truths) in found.items()
    }
    images = {name: images_of([r for r in replicates if r.setting == name]) for name in found}
    # The rule of sides helps by itself: both questions are asked, what is gained over rivals that
    # know it, and over those that do not.
    reports, judged, told = {}, {}, {}
    for question, of in (("", found), (f", {WITHOUT_RULE}", without)):
        curves = ()
        if len(of) > 1:
            curves = learning_curve(rungs_of(of, records), arms, classes, CURVE_ARM, settings)
        told[question.lstrip(", ") or "all rivals"] = json.loads(
            json.dumps([asdict(curve) for curve in curves])
        )
        for name, both in of.items():
            judged[name + question] = both
            reports[name + question] = replace(judge(*both, arms, classes, settings), curves=curves)
            folder = replicates[0].judged / name / (WITHOUT_RULE if question else "all rivals")
            write_report(reports[name + question], folder, images[name])
    recalls = {
        f"{name}, {j.classifier}": rare_recall(j, judged[name])
        for name, report in reports.items()
        for j in report.judgements
    }
    publish(
        results_name(found, asked),
        [row for name, r in reports.items() for j in r.judgements for row in figures_of(name, j)]
        + recall_figures(recalls),
        rare_recall={
            name: asdict(test) if isinstance(test, PairedTest) else test
            for name, test in recalls.items()
        },
        command=command_of("proof", asked, ASKED),
        code=code_version(),
        generators=list(records),
        reports={
            name: {k: v for k, v in report.to_dict().items() if k != "curves"}
            for name, report in reports.items()
        },
        curves=told,
    )


def arguments() -> argparse.ArgumentParser:
    """What can be asked."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--out", type=Path, default=Path("runs/proof"))
    words.add_argument("--setting", choices=list(SETTINGS), action="append")
    words.add_argument(
        "--scanner",
        choices=[SECOND],
        help="test patients measured on the scanner of phantom-second-scanner",
    )
    words.add_argument("--classifier", choices=list(ARMS), action="append")
    words.add_argument("--arm", choices=ARMS[SMALL_CNN], action="append", metavar="ARM",
                       help="default: all of a classifier's")  # fmt: skip
    words.add_argument("--replicate", type=int, choices=range(30), action="append",
                       help=f"default: {REPLICATES}")  # fmt: skip
    words.add_argument("--images", type=int, default=IMAGES, help="budget of a generator")
    words.add_argument("--workers", type=int, default=1, help="pieces at once")
    words.add_argument("--seeds", type=int, default=SEEDS, help="fits of each arm and replicate")
    words.add_argument("--steps", type=int, default=400, help="of a fit of the classifier")
    words.add_argument("--budget", type=float, help="minutes for the fits of each setting")
    words.add_argument("--only-generators", action="store_true")
    words.add_argument("--only-pools", action="store_true", help="draw test and oracle sets")
    return words


def main() -> None:
    """Does the pieces that are not done yet, and publishes what they say."""
    asked = arguments().parse_args()
    torch.set_num_threads(1)
    replicates = [
        Replicate(setting, number, asked.out.resolve(), asked.scanner == SECOND)
        for number in asked.replicate or REPLICATES
        for setting in asked.setting or SETTINGS
    ]
    if asked.only_pools:
        for replicate in replicates:
            replicate.draw(on_all_cores(asked.workers), fresh=True)
            print(f"drawn: {replicate.name}", flush=True)
        return
    fit_generators(replicates, asked.images, asked.workers)
    if asked.only_generators:
        return
    config = DownstreamConfig(
        factor=FACTOR, seeds=list(range(asked.seeds)), steps=asked.steps,
        classifiers=asked.classifier or list(ARMS),
    )  # fmt: skip
    found: dict[str, Outcomes] = {}
    records: list[dict[str, Any]] = []
    for setting in asked.setting or SETTINGS:
        own = [replicate for replicate in replicates if replicate.setting == setting]
        for replicate in own:
            replicate.draw(on_all_cores(asked.workers), fresh=True)
        told = [known(replicate, asked.images) for replicate in own]
        budget = None if asked.budget is None else 60 * asked.budget
        experiments = experiments_of(setting, own, asked.images, config, asked.arm)
        done = [run_setting(e, told, asked.workers, budget) for e in experiments]
        if complete := [both for both in done if both is not None]:
            found[setting] = [o for outcomes, _ in complete for o in outcomes], complete[0][1]
            records += told
    if found:
        publish_found(found, records, replicates, asked)


def known(replicate: Replicate, images: int) -> dict[str, Any]:
    """A generator's record, its patients of the rarest pattern, and digests of the fresh sets."""
    train, _ = replicate()
    piece = generator_of(replicate, images)
    if (record := piece.done) is None:
        raise SystemExit(f"{replicate.name} is not fitted: python -m benchmarks.proof does it")
    check_same(piece, record, train)
    fresh = {
        name: Dataset.read(path).digest
        for name, path in (
            ("validation", replicate.validation_path), ("test", replicate.test_path),
            ("oracle", replicate.oracle_path),
        )
    }  # fmt: skip
    return record | {"rare_patients": patients_per_class(train, FACTOR)[RAREST], "fresh": fresh}


if __name__ == "__main__":
    main()
