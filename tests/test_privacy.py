"""Laws of memorisation: planted copiers are caught, other patients played as a generator pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from heads import heads

from fastgan_aug.errors import DataError, LeakageError
from fastgan_aug.quality.copies.privacy import (
    PIXELS,
    RealSlices,
    closest_pairs,
    copy_rate,
    copy_threshold,
    feature_distances,
    nn_share,
    pixel_distances,
)
from fastgan_aug.quality.likeness.features import FixedView, Standard, fixed_vector
from fastgan_aug.quality.metric import Metric

N, SLICES = 300, 2  # slices of each side, and of each patient
Images = np.ndarray


def side(name: str, n: int, seed: int) -> tuple[Images, list[str], list[str]]:
    owner = np.arange(n) // SLICES
    return heads(n, seed, patients=owner), ["a"] * n, [f"{name}{i}" for i in owner]


@pytest.fixture(scope="module")
def real() -> RealSlices:
    return RealSlices.of(side("t", N, 2), side("h", N, 3))


def planted(kind: str, train: Images) -> Images:
    """What a generator that remembers gives back."""
    random = np.random.default_rng(9)
    other = train[random.permutation(len(train))]
    return {
        "exact": lambda: train,
        "flipped": lambda: train[:, :, ::-1],
        "shifted": lambda: np.roll(train, (2, -1), axis=(1, 2)),
        "noisy": lambda: np.clip(train + random.normal(0, 0.02, train.shape), 0, 1).astype("f4"),
        "blended": lambda: 0.9 * train + 0.1 * other,
    }[kind]()


def judged(synthetic: Images, real: RealSlices, draws: int = 100) -> dict[str, Metric]:
    train, rest = real.images[real.member], real.images[~real.member]
    threshold = copy_threshold(pixel_distances(train, train), real.owners[real.member])
    near = pixel_distances(synthetic, real.images)
    floor = pixel_distances(rest, train)
    copies = copy_rate(
        near[:, real.member], threshold, view=PIXELS, hold_out_to_train=floor, bound=0.02
    )
    return {"nn_share": nn_share(near, real, view=PIXELS, draws=draws), "copy_rate": copies}


@pytest.mark.parametrize("kind", ["exact", "flipped", "shifted", "noisy", "blended"])
def test_copiers_are_caught_by_both(kind: str, real: RealSlices) -> None:
    found = judged(planted(kind, real.images[real.member])[:150], real)
    assert found["nn_share"].holds is False
    assert found["nn_share"].low > 0.5
    assert found["nn_share"].value > 0.9
    assert found["copy_rate"].holds is False
    assert found["copy_rate"].value > 0.5
    assert found["copy_rate"].floor < 0.03


def test_a_few_copies_among_many_are_caught_by_the_copy_rate_alone(real: RealSlices) -> None:
    honest = side("g", 285, 5)[0]
    found = judged(np.concatenate([honest, planted("noisy", real.images)[:15]]), real)
    assert found["copy_rate"].holds is False
    assert found["nn_share"].holds


def test_a_hold_out_played_as_the_generator_passes(real: RealSlices) -> None:
    found = judged(side("g", N, 6)[0], real)
    assert found["nn_share"].holds
    assert found["nn_share"].low <= 0.5 <= found["nn_share"].high
    assert found["copy_rate"].holds
    assert found["copy_rate"].low <= 0.001


def test_it_is_so_whoever_is_held_out() -> None:
    images, _, owners = side("p", 600, 7)
    near = pixel_distances(images, images)
    people = np.unique(owners)
    held, copies = [], []
    for seed in range(60):
        parts = np.split(np.random.default_rng(seed).permutation(people), 3)
        train, rest, generator = (np.flatnonzero(np.isin(owners, part)) for part in parts)
        labels = [(images[r], ["a"] * len(r), np.asarray(owners)[r]) for r in (train, rest)]
        real = RealSlices.of(*labels)
        part = near[np.ix_(generator, np.concatenate([train, rest]))]
        found = nn_share(part, real, view=PIXELS, draws=60, seed=seed)
        held.append(found.low <= 0.5 <= found.high)
        threshold = copy_threshold(near[np.ix_(train, train)], real.owners[real.member])
        copies.append(copy_rate(part[:, real.member], threshold, view=PIXELS).value)
    assert np.mean(held) >= 0.85  # 0.95 nominal: below 0.85 has a chance under 1 in 1000
    assert np.mean(copies) < 0.005  # 0.001 nominal, where 200 slices tell the percentile
    assert np.mean(np.array(copies) <= 0.02) > 0.9


def test_sides_of_unequal_size_and_mixture_are_no_evidence() -> None:
    train, rest = side("t", 400, 0), side("h", 100, 1)
    # Cells by number: three quarters of the one side, one quarter of the other.
    cells = [
        ["a" if i % 8 < k else "b" for i in range(len(s[0]))] for s, k in ((train, 6), (rest, 2))
    ]
    real = RealSlices.of((train[0], cells[0], train[2]), (rest[0], cells[1], rest[2]))
    near = pixel_distances(side("g", 200, 2)[0], real.images)
    found = nn_share(near, real, view=PIXELS, draws=60)
    assert found.low <= 0.5 <= found.high
    assert found == nn_share(near, real, view=PIXELS, draws=60)


def test_distances_are_those_of_the_best_move() -> None:
    one, other = heads(4, 0), heads(5, 1)
    got = pixel_distances(one, other)
    for i, j in itertools.product(range(4), range(5)):
        moves = [
            np.roll(turned, (down, right), axis=(0, 1))
            for turned in (one[i], one[i][:, ::-1])
            for down, right in itertools.product(range(-2, 3), repeat=2)
        ]
        each = [pixel_distances(m[None], other[j : j + 1], moved=False)[0, 0] for m in moves]
        assert got[i, j] == pytest.approx(min(each), abs=2e-3)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_copies_have_no_distance_whatever_their_scale(size: int) -> None:
    images = heads(3, 0, size=size)
    moved = 0.4 * np.roll(images[:, :, ::-1], (1, 2), axis=(1, 2))
    assert np.diag(pixel_distances(images, moved)) == pytest.approx(0, abs=2e-3)
    assert np.diag(pixel_distances(images, moved, moved=False)).min() > 0.05
    blank = pixel_distances(np.zeros_like(images), images)
    assert blank == pytest.approx(np.sqrt(2))


def test_features_see_mirrored_copies_too(real: RealSlices) -> None:
    view = FixedView(Standard.of(fixed_vector(real.images)))
    train = real.images[real.member][:40]
    found = feature_distances(view, train[:, :, ::-1].copy(), train)
    assert np.diag(found) == pytest.approx(0, abs=1e-3)
    assert (found.argmin(axis=1) == np.arange(40)).all()


def test_the_gallery_shows_the_nearest_first(real: RealSlices) -> None:
    train = real.images[real.member]
    honest = side("g", 20, 5)[0]
    synthetic = np.concatenate([honest, train[[7, 3]]])
    found = closest_pairs(pixel_distances(synthetic, train), 5)
    assert {(p.synthetic, p.train) for p in found[:2]} == {(20, 7), (21, 3)}
    assert [p.distance for p in found] == sorted(p.distance for p in found)
    assert len(found) == len({p.synthetic for p in found}) == 5


def test_the_threshold_is_between_different_patients() -> None:
    apart = np.array([[0, 0.1, 5], [0.1, 0, 4], [5, 4, 0]], np.float32)
    assert 0.1 < copy_threshold(apart, np.array(["p", "p", "q"])) <= 4
    with pytest.raises(DataError):
        copy_threshold(apart, np.array(["p", "p", "p"]))


def test_the_threshold_is_the_percentile_of_a_power_law() -> None:
    found = []
    for seed in range(100):
        random = np.random.default_rng(seed)
        nearest = random.random(500) ** (1 / 8)  # P(d) = d^8: the 0.1 percentile is 0.4217
        apart = np.full((500, 500), 9.0, np.float32)
        apart[np.arange(500), (np.arange(500) + 1) % 500] = nearest
        found.append(copy_threshold(apart, np.arange(500).astype(np.str_)))
    assert np.mean(found) == pytest.approx(0.4217, rel=0.03)
    assert np.std(found) < 0.1 * 0.4217


def test_bad_input() -> None:
    train, rest = side("t", 4, 0), side("h", 4, 1)
    with pytest.raises(LeakageError):
        RealSlices.of(train, (rest[0], rest[1], train[2]))
    with pytest.raises(DataError):
        RealSlices.of(train, (rest[0][:0], [], []))
    with pytest.raises(DataError):
        RealSlices.of(train, (rest[0], rest[1][:2], rest[2]))
    with pytest.raises(DataError):
        pixel_distances(train[0], rest[0][:, :16, :16])
