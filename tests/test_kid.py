"""Laws of KID."""

from __future__ import annotations

import numpy as np
import pytest
from heads import heads
from scipy import ndimage

from fastgan_aug.quality.likeness.features import FixedView, Sample, Standard, fixed_vector
from fastgan_aug.quality.likeness.kid import kid, kid_floor, kid_metrics, polynomial_kernel
from fastgan_aug.quality.likeness.pairs import halves, within

LESIONS = {"normal": 0.0, "lesion": 1.5}
SLICES = 2  # of each patient


def gaussians(n: int, seed: int, shift: float = 0.0) -> Sample:
    random = np.random.default_rng(seed)
    return Sample.of(random.normal(shift, 1, (n, 6)), ["a"] * n)


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n slices of each of two cells, two of a patient: images, cells, owners."""
    owner = np.arange(n) // SLICES
    images = [heads(n, seed + i, lesion=s, patients=owner) for i, s in enumerate(LESIONS.values())]
    cells = np.repeat(list(LESIONS), n)
    owners = np.char.add(cells, [str(i) for i in np.tile(owner, 2)])
    return np.concatenate(images), cells, owners


@pytest.fixture(scope="module")
def view() -> FixedView:
    return FixedView(Standard.of(fixed_vector(drawn(200, 100)[0])))


def test_it_is_the_double_loop() -> None:
    one, other = gaussians(23, 0), gaussians(31, 1, shift=0.5)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    x, y = one.features, other.features
    n, m = len(x), len(y)
    inside = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    inside += sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    middle = sum(k(a, b) for a in x for b in y) / (n * m)
    assert kid(one, other).value == pytest.approx(inside - 2 * middle, rel=1e-12)


def test_it_is_unbiased_and_its_error_is_not_too_small() -> None:
    found = [kid(gaussians(20, 2 * i), gaussians(20, 2 * i + 1)) for i in range(300)]
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300)
    assert (values < 0).any()
    assert np.median([f.error for f in found]) > 0.8 * values.std()
    far = [kid(gaussians(60, 2 * i), gaussians(60, 2 * i + 1, shift=1)) for i in range(200)]
    errors, values = np.array([f.error for f in far]), np.array([f.value for f in far])
    assert 0.8 < np.mean(errors) / values.std() < 1.4


def test_slices_of_one_patient_do_not_bias_it() -> None:
    values = []
    for seed in range(200):
        random = np.random.default_rng(seed)
        people = random.normal(0, 1, (12, 6)).repeat(3, axis=0) + random.normal(0, 0.1, (36, 6))
        real = Sample.of(people, ["a"] * 36, [str(i // 3) for i in range(36)])
        values.append(kid(real, gaussians(36, seed + 1000)).value)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_real_halves_pass(view: FixedView) -> None:
    images, cells, owners = drawn(160, 0)
    sample = Sample.of(view(images), list(cells), list(owners))
    names = np.unique(owners)
    passes = []
    for choice in halves(np.full(len(names), float(SLICES)), 200, seed=5):
        inside = np.isin(owners, names[choice > 0])
        one, other = sample.take(inside), sample.take(~inside)
        floor = kid_floor(within(one, polynomial_kernel), len(one), len(other), 200, 0)
        passes.append(kid(one, other).value <= floor)
    assert np.mean(passes) > 0.93  # 0.975 in expectation, 200 draws of one set


def power(view: FixedView, synthetic: np.ndarray, n: int = 44, draws: int = 200) -> float:
    """How often a generator fails, of draws of n real and n synthetic lesioned slices."""
    images, cells, owners = drawn(400, 10)
    rows = cells == "lesion"
    real = Sample.of(view(images[rows]), list(cells[rows]), list(owners[rows]))
    fake = Sample.of(view(synthetic), ["lesion"] * len(synthetic))
    people = np.unique(real.owners)
    random = np.random.default_rng(0)
    failed = 0
    for seed in range(draws):
        some = random.choice(people, n // SLICES, replace=False)
        one = real.take(np.isin(real.owners, some))
        other = fake.take(random.choice(len(fake), n, replace=False))
        found = kid_metrics(one, other, view="fixed", delta=0.0, resplits=100, seed=seed)
        failed += found[0].holds is False
    return failed / draws


def test_power_at_44_slices(view: FixedView) -> None:
    fresh = heads(400, 77, lesion=LESIONS["lesion"])
    assert power(view, fresh) <= 0.07  # 0.025 nominal
    blurred = ndimage.gaussian_filter(fresh, (0, 0.7, 0.7))
    assert power(view, blurred / blurred.max(axis=(1, 2), keepdims=True)) >= 0.95
    one_mode = fresh[:1] + np.random.default_rng(0).normal(0, 0.01, fresh.shape)
    assert power(view, np.clip(one_mode, 0, 1).astype(np.float32)) >= 0.95
    assert power(view, fresh**0.8) >= 0.8


def test_a_generator_that_ignores_its_condition_fails_in_the_cells_alone(view: FixedView) -> None:
    images, cells, owners = drawn(160, 20)
    real = Sample.of(view(images), list(cells), list(owners))
    fake = drawn(160, 40)[0]
    random = np.random.default_rng(0)
    told = {m.cell: m for m in kid_metrics(real, Sample.of(view(fake), list(cells)),
                                           view="fixed", delta=0.05)}  # fmt: skip
    assert list(told) == ["overall", "lesion", "normal"]
    assert all(m.holds for m in told.values())
    ignored = Sample.of(view(fake), list(random.permutation(cells)))
    found = {m.cell: m for m in kid_metrics(real, ignored, view="fixed", delta=0.05)}
    assert found["overall"].holds
    # Among lesions of any depth, mild ones included, slices without a lesion hide better.
    assert not found["normal"].holds
    assert found["lesion"].value > told["lesion"].value + 0.1
    assert found["overall"].low <= found["overall"].value <= found["overall"].high


def test_the_same_seed_gives_the_same_floor(view: FixedView) -> None:
    one, other = gaussians(50, 0), gaussians(50, 1)
    first, second = (kid_metrics(one, other, view="x", delta=0.1, seed=4) for _ in range(2))
    assert first == second
    assert first[0].bound == pytest.approx(first[0].floor + 0.1)
    assert first[0].floor > 0
