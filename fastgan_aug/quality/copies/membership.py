"""Membership inference: can the synthetic slices tell who was in the training data?

The attack calls a real slice a member where a synthetic slice lies near it (Hayes et al. 2019;
Chen et al. 2020). AUC 0.5 is guessing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError
from fastgan_aug.quality.copies.privacy import RealSlices
from fastgan_aug.quality.likeness.features import F64
from fastgan_aug.quality.likeness.pairs import halves
from fastgan_aug.quality.metric import OVERALL, Metric

DRAWS = 200


@dataclass(frozen=True)
class _Duels:
    """Who of two slices of one cell looks more like a member, summed by patient.

    Attributes:
        won: (P, P) pairs in which the slice of p is nearer to a synthetic one than that of q;
            ties count one half.
        met: (P, P) pairs.
        slices: (P,) of each patient.
        member: (P,) whether the patient is a member.
    """

    won: F64
    met: F64
    slices: F64
    member: NDArray[np.bool_]

    def auc(self, one: F64, other: F64) -> F64:
        """(R,) chance that a slice of ``one`` beats one of ``other``, (R, P) weights each."""
        won = ((one @ self.won) * other).sum(axis=1)
        met = ((one @ self.met) * other).sum(axis=1)
        return np.where(met > 0, won / np.where(met > 0, met, 1), np.nan)


def membership_metrics(
    distances: NDArray[np.float32],
    real: RealSlices,
    *,
    view: str,
    bound: float | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Metric]:
    """The attack and its control.

    Members are compared with non-members of the same cell alone, so that another mixture of cells
    is no evidence. ``membership_auc`` has an interval by bootstrap over patients; its floor is the
    97.5th percentile of the AUC with members and non-members exchanged at random, which is also
    the default bound. ``membership_control`` sets members against members, by halves of their
    patients: the median and the 2.5th and 97.5th percentiles; it must be near 0.5, or the attack
    itself is at fault.

    Args:
        distances: (M, N) of synthetic slices to ``real``.
        real: Training and hold-out slices.
        view: What the distances rest on.
        bound: Largest AUC that passes.
        draws: Of the bootstrap, the exchanges and the halves.
        seed: Of the draws.

    Returns:
        ``membership_auc``, ``membership_control``.

    Raises:
        DataError: no cell has members and non-members.
    """
    duels = _fight(distances.min(axis=0), real)
    member = duels.member.astype(np.float64)[None]
    value = float(duels.auc(member, 1 - member)[0])
    if not np.isfinite(value):
        raise DataError(
            "no cell has training and hold-out slices", do="hold out patients of every cell"
        )
    random = np.random.default_rng(seed)
    weights = _bootstrap(duels.member, draws, random)
    low, high = np.nanpercentile(duels.auc(weights * member, weights * (1 - member)), [2.5, 97.5])
    mixed = np.stack([random.permutation(member[0]) for _ in range(draws)])
    chance = float(np.nanpercentile(duels.auc(mixed, 1 - mixed), 97.5))
    attack = Metric(
        name="membership_auc", cell=OVERALL, value=value, n=distances.shape[0],
        low=float(low), high=float(high), floor=chance,
        bound=chance if bound is None else bound, view=view,
        note="floor: with members and non-members exchanged at random, 97.5 % stay below it",
    )  # fmt: skip
    return [attack, _control(duels, distances.shape[0], view, draws, seed)]


def _control(duels: _Duels, n: int, view: str, draws: int, seed: int) -> Metric:
    """Members against members."""
    members = np.flatnonzero(duels.member)
    one = np.zeros((draws, len(duels.member)))
    one[:, members] = halves(duels.slices[members], draws, seed)
    control = duels.auc(one, duels.member - one)
    known = control[np.isfinite(control)]
    if not len(known):
        return Metric("membership_control", OVERALL, float("nan"), n, floor=0.5, view=view,
                      note="too few training patients for two halves")  # fmt: skip
    low, middle, high = np.percentile(known, [2.5, 50, 97.5])
    return Metric("membership_control", OVERALL, float(middle), n, low=float(low), high=float(high),
                  floor=0.5, view=view, note="members against members")  # fmt: skip


def _fight(nearest: NDArray[np.float32], real: RealSlices) -> _Duels:
    """Compares every slice with every other of its cell."""
    _, owner = np.unique(real.owners, return_inverse=True)
    n = int(owner.max()) + 1
    won, met = np.zeros((n, n)), np.zeros((n, n))
    for cell in np.unique(real.cells):
        rows = np.flatnonzero(real.cells == cell)
        score, who = nearest[rows], owner[rows]
        wins = (score[:, None] < score) + 0.5 * (score[:, None] == score)
        np.add.at(won, (who[:, None], who), wins)
        np.add.at(met, (who[:, None], who), 1.0)
    member = np.zeros(n, np.bool_)
    member[owner[real.member]] = True
    return _Duels(won, met, np.bincount(owner).astype(np.float64), member)


def _bootstrap(member: NDArray[np.bool_], draws: int, random: np.random.Generator) -> F64:
    """(draws, P) how often each patient is drawn, members and non-members on their own."""
    weights = np.zeros((draws, len(member)))
    for side in (False, True):
        people = np.flatnonzero(member == side)
        shares = np.full(len(people), 1 / len(people))
        weights[:, people] = random.multinomial(len(people), shares, size=draws)
    return weights
