"""Laws of the collapse checks."""

from __future__ import annotations

import numpy as np
import pytest
from heads import heads

from fastgan_aug.errors import DataError
from fastgan_aug.quality.copies.privacy import PIXELS, copy_threshold, pixel_distances
from fastgan_aug.quality.likeness.collapse import (
    collapse_metrics,
    duplicate_metrics,
    effective_modes,
)
from fastgan_aug.quality.likeness.features import Sample
from fastgan_aug.quality.metric import Metric


def cloud(n: int, seed: int, spread: float = 1.0, people: int | None = None) -> Sample:
    random = np.random.default_rng(seed)
    owners = None if people is None else [f"p{i % people}" for i in range(n)]
    return Sample.of(random.normal(0, spread, (n, 5)), ["a"] * n, owners)


def named(real: Sample, synthetic: Sample) -> dict[str, Metric]:
    found = collapse_metrics(real, synthetic, view="x", pairwise_bound=0.9, modes_bound=0.7)
    return {m.name: m for m in found if m.cell == "overall"}


def test_other_patients_pass() -> None:
    found = named(cloud(300, 0, people=100), cloud(300, 1))
    for metric in found.values():
        assert metric.holds
        assert metric.low <= 1 <= metric.high
        assert metric.floor < 1


def test_half_the_variance_fails() -> None:
    found = named(cloud(300, 0), cloud(300, 1, spread=0.7))
    assert found["pairwise_ratio"].value == pytest.approx(0.7, abs=0.05)
    assert found["pairwise_ratio"].holds is False
    assert found["modes_ratio"].holds is False


@pytest.mark.parametrize("modes", [1, 5])
def test_few_modes_fail_even_as_far_apart_as_real_slices(modes: int) -> None:
    random = np.random.default_rng(0)
    real = cloud(300, 0)
    centres = cloud(modes, 3).features if modes > 1 else real.features[:1]
    repeated = centres[np.arange(300) % modes] + random.normal(0, 0.02, (300, 5))
    found = named(real, Sample.of(repeated, ["a"] * 300))
    assert found["modes_ratio"].high < 0.4
    assert found["modes_ratio"].holds is False
    if modes == 1:
        assert found["pairwise_ratio"].value < 0.05


@pytest.mark.parametrize("modes", [1, 3, 8])
def test_equal_modes_far_apart_are_counted(modes: int) -> None:
    places = 100.0 * np.eye(8)[np.arange(4000) % modes]
    found = effective_modes(Sample.of(places, ["a"] * 4000), width=1.0)
    assert found == pytest.approx(modes, rel=0.01)


def test_the_number_of_modes_does_not_grow_with_the_sample() -> None:
    few, many = (effective_modes(cloud(n, 1), width=1.0) for n in (200, 2000))
    assert few == pytest.approx(many, rel=0.3)


def test_the_interval_holds_one_as_often_as_it_says() -> None:
    held = {"pairwise_ratio": 0, "modes_ratio": 0}
    for seed in range(60):
        for name, m in named(cloud(60, 2 * seed, people=20), cloud(60, 2 * seed + 1)).items():
            held[name] += m.low <= 1 <= m.high
    assert min(held.values()) >= 51  # 57 expected


def test_slices_all_alike_break_nothing() -> None:
    same = Sample.of(np.zeros((9, 5)), ["a"] * 9)
    found = named(cloud(30, 0), same)
    assert found["pairwise_ratio"].value == 0
    assert found["pairwise_ratio"].holds is False
    assert named(same, cloud(30, 0))["pairwise_ratio"].holds is False  # nothing to compare with


def test_duplicates_are_found_mirrored_shifted_and_noisy() -> None:
    real = heads(200, 0)
    threshold = copy_threshold(pixel_distances(real, real), np.arange(200).astype(str))
    fresh = heads(200, 1)
    fresh[50] = fresh[0][:, ::-1]
    fresh[51] = np.roll(fresh[1], (1, -2), axis=(0, 1))
    fresh[52] = np.clip(fresh[2] + np.random.default_rng(0).normal(0, 0.01, (32, 32)), 0, 1)
    cells = ["a"] * 50 + ["b"] * 150
    found = duplicate_metrics(
        pixel_distances(fresh, fresh), cells, threshold, view=PIXELS, bound=0.02
    )
    overall, first, second = found
    assert [m.cell for m in found] == ["overall", "a", "b"]
    assert 6 <= round(overall.value * 200) <= 10  # and hardly one by chance
    assert overall.holds is False
    assert first.value >= 3 / 50
    assert second.bound is None
    honest = heads(200, 2)
    passed = duplicate_metrics(pixel_distances(honest, honest), ["a"] * 200, threshold, view=PIXELS)
    assert passed[0].value <= 0.02
    one_mode = honest[:1] + np.random.default_rng(1).normal(0, 0.01, honest.shape).astype("f4")
    found = duplicate_metrics(pixel_distances(one_mode.clip(0), one_mode.clip(0)), ["a"] * 200,
                              threshold, view=PIXELS)  # fmt: skip
    assert found[0].value == 1


def test_bad_input() -> None:
    with pytest.raises(DataError):
        duplicate_metrics(np.zeros((3, 3), np.float32), ["a"], 0.1, view=PIXELS)
