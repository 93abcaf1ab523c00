"""The paper's own table, pooled and on the cells that one generator knows, with TOST beside it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multicomp import pairwise_tukeyhsd

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.quality.clinical.endpoints import Endpoints, Measured
from fastgan_aug.quality.statistics.paper_table import POOLED, PaperRow, paper_table

SPACE = ConditionSpace.of({"level": ["low", "high"], "pattern": ["plain", "marked"]})
COUNTS = {"low/plain": 60, "low/marked": 30, "high/plain": 40, "high/marked": 24}
# Mean counts differ between levels: pooling changes what a generator of one level meets.
MC = {"low": 0.50, "high": 0.60}


def slices(
    counts: dict[str, int], seed: int, *, shift: float = 0.0, patients: int | None = None
) -> Measured:
    """Endpoints alone: MC by level, LR around 1."""
    random = np.random.default_rng(seed)
    cells = np.repeat(list(counts), list(counts.values()))
    n = len(cells)
    own = random.normal(0, 0.03, n)
    owner = np.arange(n)
    if patients is not None:
        owner = random.integers(0, patients, n)
        own = random.normal(0, 0.03, patients)[owner]
    mc = np.asarray([MC[c.split("/")[0]] for c in cells]) + own + random.normal(0, 0.01, n) + shift
    log_lr = random.normal(0, 0.05, n)
    endpoints = Endpoints(mc, log_lr, mc * 0.2, mc * 0, mc * 0)
    return Measured(endpoints, cells, np.char.add(f"s{seed}-", owner.astype(str)))


@pytest.fixture(scope="module")
def real() -> Measured:
    return slices(COUNTS, 0, patients=50)


@pytest.fixture(scope="module")
def table(real: Measured) -> list[PaperRow]:
    high = {k: n for k, n in COUNTS.items() if k.startswith("high")}
    return paper_table(real, {"A": slices(COUNTS, 1), "B": slices(high, 2)}, SPACE)


def row(table: list[PaperRow], value: str, scope: str, endpoint: str) -> PaperRow:
    return next(r for r in table if (r.value, r.scope, r.endpoint) == (value, scope, endpoint))


def test_a_row_per_value_scope_and_endpoint(table):
    assert [(r.value, r.scope, r.endpoint) for r in table] == [
        ("plain", POOLED, "mc"), ("plain", POOLED, "lr"),
        ("plain", "high/plain", "mc"), ("plain", "high/plain", "lr"),
        ("marked", POOLED, "mc"), ("marked", POOLED, "lr"),
        ("marked", "high/marked", "mc"), ("marked", "high/marked", "lr"),
    ]  # fmt: skip
    assert [r.n for r in table] == [100, 100, 40, 40, 54, 54, 24, 24]
    assert all(r.patients < r.n for r in table)


def test_the_papers_tests_are_scipys_and_statsmodels(real, table):
    high = {k: n for k, n in COUNTS.items() if k.startswith("high")}
    sides = {"real": real, "A": slices(COUNTS, 1), "B": slices(high, 2)}
    found = row(table, "plain", POOLED, "mc")
    values = {k: s.endpoints.mc[np.char.endswith(s.cells, "plain")] for k, s in sides.items()}
    assert found.anova.p == pytest.approx(stats.f_oneway(*values.values()).pvalue)
    names = np.repeat(list(values), [len(v) for v in values.values()])
    tukey = pairwise_tukeyhsd(np.concatenate(list(values.values())), names)
    wanted = dict(zip(("AB", "A", "B"), tukey.pvalues, strict=True))
    for against in found.generators:
        assert against.tukey_p == pytest.approx(wanted[against.generator], abs=1e-4)
    assert [g.n for g in found.generators] == [100, 40]
    lr = row(table, "marked", POOLED, "lr")
    assert lr.mean == pytest.approx(
        np.exp(real.endpoints.log_lr[np.char.endswith(real.cells, "marked")]).mean()
    )


def test_pooling_alone_makes_the_one_level_generator_worse(table):
    """B draws "high" as it is: against pooled slices it is "different", on its own level alike."""
    pooled, alone = (row(table, "plain", scope, "mc") for scope in (POOLED, "high/plain"))
    (a, b), (_, own) = pooled.generators, alone.generators
    assert b.tukey_p < 0.001 < 0.05 < a.tukey_p
    assert own.tukey_p > 0.01
    assert own.equivalence.passes
    assert not b.equivalence.passes


def test_the_clustered_tests_see_fewer_patients_than_slices():
    """Slices of 12 patients: the naive P is far too small where one patient dominates."""
    naive, robust = [], []
    for seed in range(60):
        real = slices({"low/plain": 60}, 100 + seed, patients=12)
        found = paper_table(real, {"A": slices({"low/plain": 60}, 200 + seed)}, SPACE)[0]
        naive.append(found.anova.p < 0.05)
        robust.append(found.clustered.p < 0.05)
    assert np.mean(naive) > 0.2
    assert np.mean(robust) < 0.17


def test_a_shift_is_found_by_both_and_is_not_equivalent(real):
    found = row(
        paper_table(real, {"A": slices(COUNTS, 3, shift=0.06)}, SPACE), "plain", POOLED, "mc"
    )
    (a,) = found.generators
    assert max(found.anova.p, found.clustered.p, a.tukey_p, a.clustered_p) < 0.001
    assert not a.equivalence.passes
    assert a.effect.low > 0.5


def test_never_more_synthetic_than_real(real):
    twice = {cell: 2 * n for cell, n in COUNTS.items()}
    found = paper_table(real, {"A": slices(twice, 4)}, SPACE)
    assert [(r.n, r.generators[0].n) for r in found] == [(100, 100)] * 2 + [(54, 54)] * 2
    assert {r.scope for r in found} == {POOLED}


def test_one_factor_and_poor_sides():
    space = ConditionSpace.of({"shape": ["low", "high", "none"]})
    real, lone = slices({"low": 9, "high": 5}, 5), slices({"low": 1}, 6)
    found = paper_table(real, {"A": slices({"low": 9, "high": 5}, 7), "B": lone}, space)
    assert {r.value for r in found} == {"low", "high"}
    b = next(g for r in found for g in r.generators if g.generator == "B")
    assert np.isnan([b.tukey_p, b.clustered_p, b.equivalence.p, b.effect.g]).all()
    assert paper_table(real, {}, space) == []
    assert paper_table(real, {"A": lone.take(np.arange(0))}, space) == []
