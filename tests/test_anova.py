"""One-way analysis of variance and all pairs, naive and with patients as clusters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multicomp import pairwise_tukeyhsd
from statsmodels.stats.oneway import anova_oneway

from fastgan_aug.quality.statistics.anova import anova, anova_clustered, tukey, tukey_clustered
from fastgan_aug.quality.statistics.means import mean_of, welch

DRAWS = 2000
NOISE = 3 * (0.05 * 0.95 / DRAWS) ** 0.5


@pytest.fixture
def groups() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        "real": random.normal(0.50, 0.05, 30),
        "A": random.normal(0.53, 0.06, 41),
        "B": random.normal(0.51, 0.02, 25),
    }


def test_anova_is_scipys_and_the_clustered_one_welchs(groups):
    means = [mean_of(x) for x in groups.values()]
    wanted = stats.f_oneway(*groups.values())
    got = anova(means)
    assert (got.f, got.p) == pytest.approx((wanted.statistic, wanted.pvalue))
    assert (got.df_between, got.df_within) == (2, 93)
    robust = anova_oneway(list(groups.values()), use_var="unequal", welch_correction=True)
    got = anova_clustered(means)
    assert (got.f, got.p) == pytest.approx((robust.statistic, robust.pvalue))
    assert (got.df_between, got.df_within) == pytest.approx(robust.df)


def test_tukey_is_statsmodels(groups):
    values = np.concatenate(list(groups.values()))
    names = np.repeat(list(groups), [len(x) for x in groups.values()])
    reference = pairwise_tukeyhsd(values, names)
    wanted = {frozenset(row[:2]): row[3] for row in reference.summary().data[1:]}
    exact = dict(zip(wanted, np.asarray(reference.pvalues), strict=True))
    for pair in tukey({k: mean_of(x) for k, x in groups.items()}):
        assert pair.p == pytest.approx(exact[frozenset((pair.first, pair.second))], abs=1e-4)
        difference = groups[pair.first].mean() - groups[pair.second].mean()
        assert pair.difference == pytest.approx(difference)


def test_two_groups_give_welchs_p():
    random = np.random.default_rng(4)
    owner = np.repeat(np.arange(10), 3)
    one, other = mean_of(random.normal(0, 1, 30), owner), mean_of(random.normal(0.4, 2, 25))
    p = welch(one, other).p
    assert tukey_clustered({"a": one, "b": other})[0].p == pytest.approx(p, rel=1e-4)
    assert anova_clustered([one, other]).p == pytest.approx(p)


def test_type_one_error():
    """Real slices in patients against two generators: the paper's test says "different" too often.

    Eight slices of half their variance between patients; one point is allowed to the robust one,
    whose error comes from 30 patients.
    """
    random = np.random.default_rng(5)
    owner = np.repeat(np.arange(30), 8)
    honest, naive, robust = [], [], []
    for _ in range(DRAWS):
        made = [mean_of(x) for x in random.normal(0, 1, (2, 240))]
        real = random.normal(0, 0.5**0.5, 240)
        independent = mean_of(real + random.normal(0, 0.5**0.5, 240))
        real += np.repeat(random.normal(0, 0.5**0.5, 30), 8)
        honest.append(anova([independent, *made]).p < 0.05)
        naive.append(anova([mean_of(real), *made]).p < 0.05)
        robust.append(anova_clustered([mean_of(real, owner), *made]).p < 0.05)
    assert np.mean(honest) == pytest.approx(0.05, abs=NOISE)
    assert np.mean(naive) > 0.15
    assert np.mean(robust) <= 0.06 + NOISE


def test_type_one_error_of_all_pairs():
    """The chance that any of three pairs is called different; 100 draws, three deviations."""
    random = np.random.default_rng(6)
    owner, found = np.repeat(np.arange(30), 4), {"tukey": [], "clustered": []}
    for _ in range(100):
        a, b, c = random.normal(0, 1, (3, 120))
        plain = {"a": mean_of(a), "b": mean_of(b), "c": mean_of(c)}
        found["tukey"].append(min(pair.p for pair in tukey(plain)) < 0.05)
        c = c / 2**0.5 + np.repeat(random.normal(0, 0.5**0.5, 30), 4)
        pairs = tukey_clustered(plain | {"c": mean_of(c, owner)})
        found["clustered"].append(min(pair.p for pair in pairs) < 0.05)
    for shares in found.values():
        assert np.mean(shares) <= 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5


def test_poor_groups_give_nan_and_no_crash():
    none, one, many = (mean_of(np.arange(float(n))) for n in (0, 1, 9))
    assert np.isnan(anova([none, one, many]).p)
    assert np.isnan(anova_clustered([one, many]).p)
    for test in (tukey, tukey_clustered):
        pairs = test({"none": none, "one": one, "many": many})
        assert len(pairs) == 3
        assert np.isnan([pair.p for pair in pairs]).all()
    flat = [mean_of(np.full(5, v)) for v in (1.0, 1.0, 2.0)]
    assert (anova(flat[:2]).p, anova(flat).p) == (1.0, 0.0)
    assert [p.p for p in tukey({str(i): m for i, m in enumerate(flat)})] == [1.0, 0.0, 0.0]
