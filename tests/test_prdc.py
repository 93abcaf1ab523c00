"""Laws of precision, recall, density and coverage."""

from __future__ import annotations

import numpy as np
import pytest

from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.features import Sample
from fastgan_aug.quality.likeness.prdc import Prdc, prdc, prdc_metrics


def plain(real: np.ndarray, fake: np.ndarray, k: int) -> Prdc:
    """Word by word from Naeem et al. 2020, section 2 and 3, pair by pair."""

    def ball(points: np.ndarray, i: int) -> float:
        others = [np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i]
        return sorted(others)[k - 1]

    def held(point: np.ndarray, centres: np.ndarray, radii: list[float]) -> list[bool]:
        pairs = zip(centres, radii, strict=True)
        return [bool(np.linalg.norm(point - centre) < radius) for centre, radius in pairs]

    real_radii = [ball(real, i) for i in range(len(real))]
    fake_radii = [ball(fake, j) for j in range(len(fake))]
    holds = np.array([held(y, real, real_radii) for y in fake])
    return Prdc(
        precision=float(np.mean([any(row) for row in holds])),
        recall=float(np.mean([any(held(x, fake, fake_radii)) for x in real])),
        density=float(holds.sum() / (k * len(fake))),
        coverage=float(np.mean([any(column) for column in holds.T])),
    )


def cloud(n: int, seed: int, shift: float = 0.0, people: int | None = None) -> Sample:
    random = np.random.default_rng(seed)
    owners = None if people is None else [f"p{i % people}" for i in range(n)]
    return Sample.of(random.normal(shift, 1, (n, 5)), ["a"] * n, owners)


@pytest.mark.parametrize(
    ("n", "m", "k", "shift"), [(40, 40, 5, 0), (25, 60, 3, 0.7), (60, 20, 1, 0)]
)
def test_it_is_the_plain_definition(n: int, m: int, k: int, shift: float) -> None:
    one, other = cloud(n, 0).features, cloud(m, 1, shift).features
    got, expected = prdc(one, other, k), plain(one, other, k)
    assert vars(got) == pytest.approx(vars(expected))


def test_equal_distributions_give_the_expected_figures() -> None:
    found = prdc(cloud(1000, 0).features, cloud(1000, 1).features)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert found.density == pytest.approx(1, abs=0.1)


def test_a_single_mode_has_no_recall_and_no_coverage() -> None:
    real = cloud(200, 0)
    one_mode = real.features[:1] + np.random.default_rng(0).normal(0, 1e-3, (200, 5))
    found = prdc(real.features, one_mode)
    assert found.recall < 0.05
    assert found.coverage < 0.2
    assert found.precision == 1


def test_noise_has_no_precision() -> None:
    found = prdc(cloud(200, 0).features, cloud(200, 1, shift=20).features)
    assert vars(found) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


def test_few_slices_use_fewer_neighbours() -> None:
    one, other = cloud(4, 0).features, cloud(3, 1).features
    assert prdc(one, other, k=5) == prdc(one, other, k=2)
    with pytest.raises(DataError):
        prdc(one[:1], other)


def test_the_floor_is_what_other_patients_give() -> None:
    real = cloud(240, 0, people=80)
    found = {m.name: m for m in prdc_metrics(real, cloud(240, 1), view="x", coverage_bound=0.9)}
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value == pytest.approx(found[name].floor, abs=0.1)
        assert found[name].bound is None
    ratio = found["coverage_ratio"]
    assert ratio.holds
    assert ratio.low <= 1 <= ratio.high
    collapsed = Sample.of(np.repeat(real.features[:3], 80, axis=0), ["a"] * 240)
    bad = {m.name: m for m in prdc_metrics(real, collapsed, view="x", coverage_bound=0.9)}
    assert bad["coverage_ratio"].holds is False
    assert bad["recall"].value < 0.1 < bad["recall"].floor


def test_the_ratio_is_fair_whatever_the_number_of_synthetic_slices() -> None:
    real = cloud(240, 0, people=80)
    for m in (60, 900):
        found = {f.name: f for f in prdc_metrics(real, cloud(m, 1), view="x")}
        assert found["coverage_ratio"].value == pytest.approx(1, abs=0.06)


def test_cells_stand_beside_the_whole_and_seeds_repeat() -> None:
    real, fake = cloud(60, 0, people=30), cloud(60, 1)
    cells = np.array(["a", "b"] * 30)
    sides = [Sample(s.features, cells, s.owners) for s in (real, fake)]
    found = prdc_metrics(*sides, view="x", seed=1)
    assert [m.cell for m in found if m.name == "recall"] == ["overall", "a", "b"]
    assert found == prdc_metrics(*sides, view="x", seed=1)


def test_real_slices_all_alike_never_pass() -> None:
    same = Sample.of(np.zeros((20, 5)), ["a"] * 20)
    found = prdc_metrics(same, cloud(20, 0), view="x", coverage_bound=0.9)
    assert found[4].name == "coverage_ratio"
    assert found[4].holds is False
