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
            of patients but its own, so any two share most; else each has one of its own.
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
    for fold in range(world.folds):
        truth, shared = _slices(world, fold, random)
        truths.append(truth)
        tested = len(truth.test_labels)
        own = random.normal(0, ARM_PATIENT, (len(arms), world.patients * 2, 3))
        for a, arm in enumerate(arms):
            moved = of_training[a, fold] + of_seed[a, fold]  # (S, margin and three biases)
            left = random.normal(0, LEFT, (world.seeds, len(shared), 3))
            logits = shared + own[a].repeat(SLICES, axis=0) + left + moved[:, None, 1:]
            labels = np.concatenate([truth.test_labels, truth.validation_labels])
            margin = np.asarray(MARGINS)[labels] + arm.shift + moved[:, :1]
            logits[:, np.arange(len(labels)), labels] += margin
            chances = _softmax(logits)
            for s in range(world.seeds):
                outcomes.append(
                    Outcome(fold, "simulated", arm.name, s, n_train, 0, 0.0,
                            chances[s, tested:], chances[s, :tested])
                )  # fmt: skip
    return outcomes, truths


def _of_training(world: World, arms: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(arms, F, 1, 4) of independent training sets, or of all blocks of patients but one."""
    blocks = random.normal(0, world.training, (arms, world.folds, 1, 4))
    if not world.overlapping:
        return blocks
    others = blocks.sum(axis=1, keepdims=True) - blocks
    return np.asarray(others / np.sqrt(world.folds - 1))


def _slices(
    world: World, fold: int, random: np.random.Generator
) -> tuple[Truth, NDArray[np.float64]]:
    """Test and validation patients of a fold, and how hard their slices are for everybody."""
    n = world.patients
    labels = random.choice(3, size=2 * n, p=SHARES).repeat(SLICES)
    codes = np.arange(2 * n).repeat(SLICES)
    hard = random.normal(0, PATIENT, (2 * n, 3)).repeat(SLICES, axis=0)
    cut = n * SLICES
    truth = Truth(fold, labels[cut:], labels[:cut], codes[cut:], codes[:cut])
    return truth, hard + random.normal(0, SLICE, (len(labels), 3))


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
