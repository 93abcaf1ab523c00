from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fastgan_aug.quality.gate import Rule, judge
from fastgan_aug.quality.metric import OVERALL, Metric

KID = Metric("kid", "a", 0.02, 50, bound=0.05, view="fixed")
METRICS = [
    KID,
    replace(KID, cell="b", value=0.04),
    replace(KID, cell=OVERALL, value=0.01),
    Metric("coverage_ratio", "a", 0.85, 50, bound=0.8, lower=True),
    Metric("sd_map_ratio", "a", 0.95, 50),
]


def test_every_cell_must_pass_and_the_overall_figure_is_asked_apart():
    assert judge([Rule("kid")], METRICS).passed
    verdict = judge([Rule("kid", at_most=0.03)], METRICS)
    assert [str(r) for r in verdict.failures] == ["kid (fixed) of b is 0.04, wanted: at most 0.03"]
    assert judge([Rule("kid", cells=OVERALL, at_most=0.03)], METRICS).passed
    assert judge([Rule("kid", cells="a", at_most=0.03)], METRICS).passed


def test_a_metric_brings_its_own_bound_from_above_or_below():
    assert judge([Rule("coverage_ratio")], METRICS).passed
    low = replace(METRICS[3], value=0.79)
    assert not judge([Rule("coverage_ratio")], [low]).passed


def test_a_band_has_two_ends():
    rule = Rule("sd_map_ratio", at_least=0.9, at_most=1.1)
    assert judge([rule], METRICS).passed
    for value in (0.89, 1.11):
        assert not judge([rule], [replace(METRICS[4], value=value)]).passed


@pytest.mark.parametrize(
    ("rules", "metrics"),
    [
        ([], METRICS),  # a gate without a rule stops nobody, so it lets nobody pass
        ([Rule("privacy")], METRICS),  # not measured
        ([Rule("kid", view="other")], METRICS),
        ([Rule("sd_map_ratio")], METRICS),  # no bound anywhere
        ([Rule("kid")], [replace(KID, value=float("nan"))]),
    ],
)
def test_what_cannot_be_judged_fails(rules: list[Rule], metrics: list[Metric]):
    verdict = judge(rules, metrics)
    assert not verdict.passed
    assert str(verdict) == "FAIL"
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_a_cell_that_could_not_be_judged_fails_and_says_why():
    few = Metric.unjudged("kid", "c", "too few patients (3, wanted at least 4)", 3, "fixed")
    for rule in (Rule("kid"), Rule("kid", at_most=1e9), Rule("kid", cells="c", at_least=-1e9)):
        (reason,) = judge([rule], [*METRICS, few]).failures
        assert reason.unjudged
        assert str(reason) == (
            "kid (fixed) of c could not be judged: too few patients (3, wanted at least 4)"
        )
    assert judge([Rule("kid", cells="a"), Rule("kid", cells="b")], [*METRICS, few]).passed


def test_a_figure_has_no_excuse():
    (reason,) = judge([Rule("kid", at_most=0)], [replace(KID, note="what it is")]).failures
    assert not reason.unjudged
    assert reason.note == ""


def test_a_band_upside_down_is_refused():
    with pytest.raises(ValueError, match="allowed"):
        Rule("kid", at_least=2, at_most=1)
