"""Laws of the membership-inference attack."""

from __future__ import annotations

import numpy as np
import pytest
from heads import heads
from sklearn.metrics import roc_auc_score

from fastgan_aug.errors import DataError
from fastgan_aug.quality.copies.membership import membership_metrics
from fastgan_aug.quality.copies.privacy import PIXELS, RealSlices, pixel_distances

N, SLICES = 240, 2


def side(name: str, n: int, seed: int, cell: str = "a") -> tuple[np.ndarray, list[str], list[str]]:
    owner = np.arange(n) // SLICES
    return heads(n, seed, patients=owner), [cell] * n, [f"{name}{i}" for i in owner]


@pytest.fixture(scope="module")
def real() -> RealSlices:
    return RealSlices.of(side("t", N, 0), side("h", N, 1))


@pytest.mark.parametrize("kind", ["exact", "flipped", "shifted", "noisy", "blended", "half"])
def test_copiers_give_their_members_away(kind: str, real: RealSlices) -> None:
    random, train = np.random.default_rng(3), real.images[real.member]
    synthetic = {
        "exact": train,
        "flipped": train[:, :, ::-1],
        "shifted": np.roll(train, (2, -1), axis=(1, 2)),
        "noisy": np.clip(train + random.normal(0, 0.02, train.shape), 0, 1).astype("f4"),
        "blended": 0.9 * train + 0.1 * train[random.permutation(N)],
        "half": np.concatenate([train[: N // 2], side("g", N // 2, 5)[0]]),
    }[kind]
    attack, control = membership_metrics(pixel_distances(synthetic, real.images), real, view=PIXELS)
    assert attack.holds is False
    assert attack.low > 0.5
    assert attack.value > (0.65 if kind == "half" else 0.95)
    assert control.low <= 0.5 <= control.high
    assert control.value == pytest.approx(0.5, abs=0.05)


def test_a_hold_out_played_as_the_generator_gives_nobody_away(real: RealSlices) -> None:
    near = pixel_distances(side("g", N, 6)[0], real.images)
    attack, control = membership_metrics(near, real, view=PIXELS)
    assert attack.holds
    assert attack.low <= 0.5 <= attack.high
    assert control.value == pytest.approx(0.5, abs=0.05)


def test_it_is_the_area_under_the_curve() -> None:
    random = np.random.default_rng(0)
    train, rest = side("t", 60, 0), side("h", 40, 1)
    real = RealSlices.of(train, rest)
    near = random.integers(0, 20, (30, 100)).astype(np.float32)  # with ties
    attack, _ = membership_metrics(near, real, view="x")
    assert attack.value == pytest.approx(roc_auc_score(real.member, -near.min(axis=0)))


def test_another_mixture_of_cells_is_no_evidence() -> None:
    # Slices of cell b lie nearer to everything; most members are of cell b.
    random = np.random.default_rng(0)
    train, rest = side("t", 200, 0), side("h", 200, 1)
    cells = ["b" if i % 4 else "a" for i in range(200)], ["a" if i % 4 else "b" for i in range(200)]
    real = RealSlices.of((train[0], cells[0], train[2]), (rest[0], cells[1], rest[2]))
    score = random.random(400) + 5 * (real.cells == "a")
    attack, _ = membership_metrics(score[None].astype(np.float32), real, view="x")
    assert attack.low <= 0.5 <= attack.high
    assert attack.holds
    assert roc_auc_score(real.member, -score) > 0.7


def test_chance_passes_as_often_as_it_says(real: RealSlices) -> None:
    passed, held = [], []
    for seed in range(100):
        # Slices of one patient score alike: patients, not slices, are what chance deals with.
        random = np.random.default_rng(seed)
        score = random.random(N).repeat(SLICES) + 0.1 * random.random(2 * N)
        attack, _ = membership_metrics(score[None].astype(np.float32), real, view="x", seed=seed)
        passed.append(attack.holds)
        held.append(attack.low <= 0.5 <= attack.high)
    assert np.mean(passed) >= 0.92
    assert np.mean(held) >= 0.87


def test_the_same_seed_gives_the_same_figures_and_no_common_cell_is_refused() -> None:
    train, rest = side("t", 12, 0), side("h", 12, 1)
    near = np.random.default_rng(0).random((5, 24)).astype(np.float32)
    real = RealSlices.of(train, rest)
    assert membership_metrics(near, real, view="x") == membership_metrics(near, real, view="x")
    with pytest.raises(DataError):
        membership_metrics(near, RealSlices.of(train, side("h", 12, 1, "b")), view="x")
