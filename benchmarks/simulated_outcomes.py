"""Outcomes of fits that were never made, with the noise that fits have, for `benchmarks.verdict`.

A slice's logits are its class's margin and: what makes it hard for every classifier (the slice, its
patient), what the arm's training set did (a margin and a bias for each class), what the seed did,
and what is left. The rarer the class, the smaller its margin.

Arms without an effect are exchangeable, so the true difference is exactly 0; a planted gain moves
the margin, by as much as moves the expected macro-F1 to the gain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from downstream.outcome import Outcome, Truth

CLASSES = ("many", "some", "few")
SHARES = (0.59, 0.31, 0.10)  # of the slices: Table 1's patterns
MARGINS = (2.0, 1.6, 1.2)
SLICES = 4  # of a patient, about the paper's 3.75
SLICE, PATIENT, LEFT = 1.0, 0.7, 0.5
ARM_PATIENT = 0.3


@dataclass(frozen=True)
class SimulatedArm:
    """An arm and the true gain of its margin, in logits."""

    name: str
    source: Literal["real", "synthetic", "oracle"] = "real"
    ratio: str | None = None
    augmented: bool = False
    shift: float = 0.0


@dataclass(frozen=True)
class World:
    """How noisy fits are.

    Attributes:
        folds: How many.
        overlapping: Whether the folds are a cross-validation's: a fold's training set is all blocks
            of patients but its own, so any two share most, and it validates on the patients whom
            the fold before it tests; else each has training and validation patients of its own.
        seeds: Fits of each arm in each fold.
        patients: Test patients of a fold.
        training: SD of what a training set does to margin and biases, in logits.
        seed: SD of what a seed does to them.
    """

    folds: int = 5
    overlapping: bool = False
    seeds: int = 5
    patients: int = 100
    training: float = 0.13
    seed: float = 0.13


def simulate(
    world: World, arms: tuple[SimulatedArm, ...], random: np.random.Generator
) -> tuple[list[Outcome], list[Truth]]:
    """Outcomes and truths of one run."""
    shape = (len(arms), world.folds)
    of_training = _of_training(world, len(arms), random)
    of_seed = random.normal(0, world.seed, (*shape, world.seeds, 4))
    outcomes, truths = list[Outcome](), list[Truth]()
    n_train = world.patients * SLICES * max(world.folds - 1, 1)
    tested = world.patients * SLICES
    drawn = [_drawn(world, len(arms), random) for _ in range(world.folds)]
    if world.overlapping:
        # A fold validates on patients whom another one tests: the same slices, as hard as there.
        drawn = [one.validated_on(drawn[fold - 1], tested) for fold, one in enumerate(drawn)]
    codes = np.arange(2 * world.patients).repeat(SLICES)
    for fold, of in enumerate(drawn):
        labels = of.labels
        truths.append(Truth(fold, labels[tested:], labels[:tested], codes[tested:], codes[:tested]))
        for a, arm in enumerate(arms):
            moved = of_training[a, fold] + of_seed[a, fold]  # (S, margin and three biases)
            logits = of.hard[a] + of.left[a] + moved[:, None, 1:]
            margin = np.asarray(MARGINS)[labels] + arm.shift + moved[:, :1]
            logits[:, np.arange(len(labels)), labels] += margin
            chances = _softmax(logits)
            for s in range(world.seeds):
                outcomes.append(
                    Outcome(fold, "simulated", arm.name, s, n_train,
                            n_train if arm.source == "synthetic" else 0, 0.0,
                            chances[s, tested:], chances[s, :tested])
                )  # fmt: skip
    return outcomes, truths


@dataclass(frozen=True)
class _Drawn:
    """Slices of a fold, test first, then validation.

    Attributes:
        labels: (N,) classes.
        hard: (A, N, 3) logits that every fit of an arm shares: of the slice, its patient, the arm.
        left: (A, S, N, 3) logits of each fit alone.
    """

    labels: NDArray[np.int64]
    hard: NDArray[np.float64]
    left: NDArray[np.float64]

    def validated_on(self, other: _Drawn, tested: int) -> _Drawn:
        """The same test; the validation is the other's test, predicted by this fold's fits."""
        labels = np.concatenate([self.labels[:tested], other.labels[:tested]])
        hard = np.concatenate([self.hard[:, :tested], other.hard[:, :tested]], axis=1)
        return replace(self, labels=labels, hard=hard)


def _drawn(world: World, arms: int, random: np.random.Generator) -> _Drawn:
    """Test and validation patients of a fold, and how hard their slices are."""
    n = 2 * world.patients
    labels = random.choice(3, size=n, p=SHARES).repeat(SLICES)
    hard = random.normal(0, PATIENT, (n, 3)).repeat(SLICES, axis=0)
    shared = hard + random.normal(0, SLICE, (len(labels), 3))
    own = random.normal(0, ARM_PATIENT, (arms, n, 3)).repeat(SLICES, axis=1)
    left = random.normal(0, LEFT, (arms, world.seeds, len(labels), 3))
    return _Drawn(labels, shared + own, left)


def _of_training(world: World, arms: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(arms, F, 1, 4) of independent training sets, or of all blocks of patients but one."""
    blocks = random.normal(0, world.training, (arms, world.folds, 1, 4))
    if not world.overlapping:
        return blocks
    others = blocks.sum(axis=1, keepdims=True) - blocks
    return np.asarray(others / np.sqrt(world.folds - 1))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    found = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(found / found.sum(axis=-1, keepdims=True), np.float32)


def shift_of_gain(world: World, gain: float, runs: int = 60) -> float:
    """The shift in logits whose expected gain in macro-F1 is this, by bisection.

    The same random numbers at every step, so that the expectation grows with the shift.
    """
    calm = replace(world, folds=10, overlapping=False, seeds=2)
    low, high = 0.0, 2.0
    base = _expected(calm, 0.0, runs)
    for _ in range(12):
        middle = (low + high) / 2
        if _expected(calm, middle, runs) - base < gain:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _expected(world: World, shift: float, runs: int) -> float:
    from downstream.scores import confusions, macro_f1

    found = []
    for run in range(runs):
        outcomes, truths = simulate(
            world, (SimulatedArm("one", shift=shift),), np.random.default_rng([7, run])
        )
        for o in outcomes:
            labels = truths[o.fold].test_labels
            matrix = confusions(labels, o.test.argmax(axis=1), np.zeros_like(labels), 3)
            found.append(float(macro_f1(matrix[0].astype(np.float64))))
    return float(np.mean(found))
