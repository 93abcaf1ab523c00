"""The nested experiment in pieces, each done once and kept as a file.

A piece is (fold, classifier, arm, seed). It is fitted once on the fold's training part and predicts
validation and test. What a kill left unfinished is done when the command is given again; what is
finished is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any

from downstream.arms.arm import Arm
from downstream.arms.catalogue import ARMS, KNOWN
from downstream.classifiers.catalogue import classifier_named
from downstream.experiment import fit_and_predict, tried
from downstream.fold import Fold, Part, factor_of, truth_of
from downstream.material import Material, SyntheticBatch
from downstream.outcome import Outcome, Truth
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.errors import ConfigError, DataError
from fastgan_aug.storage import replace_when_complete

OpenFold = Callable[[], Fold]
"""Reads a fold and opens its sources, in the process that needs them."""
Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Does all pieces, results in order: the built-in map, processes or Ray workers."""
Progress = Callable[[str, int, int], None]
"""(what was fitted, pieces done, pieces in all)."""
PLAN = "plan.json"
TRIED_STEPS = 10  # of the fit that an estimate rests on


@dataclass(frozen=True)
class Piece:
    """One fit, small enough to be sent to another process.

    Attributes:
        number: Of the fold.
        open: Opens it.
        classifier: Its name.
        arm: Its name.
        seed: Of the fit.
        config: Predicted factor, steps and the classifier's settings.
        rules: Shift and flip rule of the classical augmentation.
        out: Folder of everything.
    """

    number: int
    open: OpenFold = field(repr=False)
    classifier: str
    arm: str
    seed: int
    config: DownstreamConfig
    rules: AugmentConfig
    out: Path

    @property
    def name(self) -> str:
        """Said while it runs."""
        return f"fold {self.number}, {self.classifier}, {self.arm}, seed {self.seed}"

    @property
    def path(self) -> Path:
        """Its file."""
        # Two names may only differ in what a file cannot be called by.
        names = f"{self.classifier} {self.arm}"
        sha = hashlib.sha256(names.encode()).hexdigest()[:6]
        words = re.sub(r"[^a-zA-Z0-9.]+", "-", names)
        return self.out / "pieces" / f"{self.number}-{words}-{sha}-{self.seed}.npz"


@dataclass(frozen=True)
class Experiment:
    """Everything that is compared.

    Attributes:
        folds: How each is opened, by its number.
        arms: What is compared.
        config: The ``downstream`` section.
        rules: Shift and flip rule of the classical augmentation.
        out: Folder of the pieces.
    """

    folds: Sequence[OpenFold]
    arms: Sequence[Arm]
    config: DownstreamConfig
    rules: AugmentConfig
    out: Path

    @property
    def pieces(self) -> list[Piece]:
        """All of them, seed by seed: where a budget ends them, the seeds before can be judged.

        Those of a fold stand together, so that it is opened once for each seed.
        """
        return [
            Piece(number, fold, kind.name, arm.name, seed, self.config, self.rules, self.out)
            for seed in self.config.seeds
            for number, fold in enumerate(self.folds)
            for kind, arm in tried(self.config.classifiers, self.arms)
        ]

    @property
    def waiting(self) -> list[Piece]:
        """Those that are not done."""
        return [piece for piece in self.pieces if not piece.path.is_file()]

    @property
    def outcomes(self) -> list[Outcome]:
        """Of those that are done."""
        return [Outcome.read(piece.path) for piece in self.pieces if piece.path.is_file()]

    @property
    def complete_seeds(self) -> list[int]:
        """Seeds of which every piece is done: what may be judged after a budget ran out."""
        missing = {piece.seed for piece in self.waiting}
        return [seed for seed in self.config.seeds if seed not in missing]


def start(experiment: Experiment, digests: Sequence[dict[str, Any]]) -> None:
    """Verifies that finished pieces in the folder are of this experiment, and notes what it is.

    Args:
        experiment: What is compared; seeds, arms, classifiers and further folds may be added later.
        digests: Of each fold: its parts and its generator, plain JSON values.

    Raises:
        ConfigError: the folder's pieces are of other data, generators or settings.
    """
    config = experiment.config.model_dump(mode="json")
    for name in ("seeds", "arms", "classifiers", "bootstrap"):  # these add pieces, change none
        del config[name]
    rules = asdict(experiment.rules)
    decided = {"folds": list(digests), "config": config, "rules": rules}
    path = experiment.out / PLAN
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        both = min(len(digests), len(known.get("folds", ())))
        alike = decided | {"folds": list(digests[:both])}
        known = known | {"folds": list(known.get("folds", ()))[:both]}
        if differing := [name for name, value in alike.items() if known.get(name) != value]:
            raise ConfigError(
                f"{experiment.out} holds pieces of another experiment: {', '.join(differing)} "
                "differ",
                allowed="the same data, generators and settings",
                do="choose another --out, or remove the folder",
            )
        if len(digests) == both:
            return
    with replace_when_complete(path) as temporary:
        temporary.write_text(json.dumps(decided, indent=1), encoding="utf-8")


def run_pieces(
    experiment: Experiment,
    run: Run = map,
    *,
    budget: float | None = None,
    progress: Progress | None = None,
) -> int:
    """Does the pieces that are not done yet.

    Args:
        experiment: What is compared.
        run: Does them.
        budget: Seconds after which no further piece is begun; None: all are done.
        progress: Told of each piece.

    Returns:
        Pieces that are still to be done.

    Raises:
        FastGANAugError: a fold leaks, or a fit is impossible; finished pieces are kept.
    """
    deadline = math.inf if budget is None else time.time() + budget
    total, waiting = len(experiment.pieces), experiment.waiting
    done = total - len(waiting)
    # When it is too late the rest is not even sent: it may be thousands.
    sent = takewhile(lambda _: time.time() < deadline, waiting)
    # What was sent but not begun gives None.
    for name in filter(None, run(partial(do_in_time, deadline), sent)):
        done += 1
        if progress is not None:
            progress(name, done, total)
    return total - done


def do_in_time(deadline: float, piece: Piece) -> str | None:
    """``do_piece``, but for a piece whose worker was free too late.

    Args:
        deadline: Seconds since 1970, by which all processes and nodes mean the same moment.
        piece: What may have waited.

    Returns:
        What was done; None where nothing was begun.

    Raises:
        FastGANAugError: see ``fitted``.
    """
    return None if time.time() >= deadline else do_piece(piece)


def do_piece(piece: Piece) -> str:
    """Fits, predicts, and writes the outcome.

    Returns:
        What was done.

    Raises:
        FastGANAugError: see ``fitted``.
    """
    if not piece.path.is_file():
        fitted(piece).write(piece.path)
    return piece.name


def fitted(piece: Piece) -> Outcome:
    """Fits on the training part and predicts validation and test.

    Raises:
        DataError: too few classes, or a source's slices do not fit.
        LeakageError: see ``Fold.check``.
    """
    fold = opened(piece.open)
    factor = factor_of(fold.train, piece.config)
    validation, test = (Part.of(p, factor) for p in (fold.validation, fold.test))
    kind, arm = classifier_named(piece.classifier), KNOWN[piece.arm]
    material = material_of(fold, factor, piece.rules, piece.config.balance)
    return fit_and_predict(
        kind, arm, material, validation, test, piece.config, piece.seed, piece.number
    )


@lru_cache(maxsize=1)
def opened(open_fold: OpenFold) -> Fold:
    """The fold, opened once for all its pieces in a row."""
    return open_fold()


def material_of(
    fold: Fold, factor: str, rules: AugmentConfig, balance: str | None = None
) -> Material:
    """What a fold's arms are prepared from.

    Raises:
        ConfigError: there is no factor to balance by that name.
        DataError: fewer than two classes in the training part.
    """
    synthetic = fold.synthetic or _no_generator
    return Material.of(
        fold.train, factor, rules, synthetic, fold.filtered, fold.oracle, balance=balance
    )


def _no_generator(
    present: Mapping[str, int], desired: Mapping[str, int], seed: int
) -> SyntheticBatch:
    raise DataError("the fold has no source of synthetic slices", do="fit its generator first")


def seconds_left(experiment: Experiment, sample: Fold) -> float:
    """Of the pieces that are not done, one after the other.

    A classifier's finished pieces tell by their median; without any, a few steps are measured, or
    a whole fit where steps do not count.

    Args:
        experiment: What is compared.
        sample: A fold, with or without a generator.

    Raises:
        FastGANAugError: see ``fitted``.
    """
    waiting = Counter(piece.classifier for piece in experiment.waiting)
    known: dict[str, list[float]] = {name: [] for name in waiting}
    for outcome in experiment.outcomes:
        known.setdefault(outcome.classifier, []).append(outcome.seconds)
    return sum(
        n * (median(known[name]) if known[name] else _measured(experiment, sample, name))
        for name, n in waiting.items()
    )


def _measured(experiment: Experiment, sample: Fold, classifier: str) -> float:
    config, factor = experiment.config, factor_of(sample.train, experiment.config)
    validation, test = (Part.of(p, factor) for p in (sample.validation, sample.test))
    material = material_of(sample, factor, experiment.rules, config.balance)
    kind = classifier_named(classifier)

    def seconds(steps: int) -> float:
        short = config.model_copy(update={"steps": steps})
        return fit_and_predict(kind, ARMS[0], material, validation, test, short, 0).seconds

    seconds(1)  # what a process does once, imports above all, is no part of a fit
    one = seconds(1)
    if not kind.takes_steps:
        return one
    return one + max(0.0, seconds(1 + TRIED_STEPS) - one) / TRIED_STEPS * (config.steps - 1)


def truths_of(experiment: Experiment) -> list[Truth]:
    """What the predictions of each fold are held against."""
    found = []
    for open_fold in experiment.folds:
        fold = opened(open_fold)
        found.append(truth_of(fold, factor_of(fold.train, experiment.config)))
    return found
