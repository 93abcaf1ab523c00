"""The quality report: JSON and back, and what stands in it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_aug.errors import DataError
from fastgan_aug.quality.gate import Reason, Rule, Verdict, judge
from fastgan_aug.quality.metric import OVERALL, Metric
from fastgan_aug.quality.plain_words import WORDS, lines_of
from fastgan_aug.quality.report import QualityReport

KID = Metric("kid", "a", 0.02, 50, low=-0.01, high=0.05, floor=0.01, bound=0.06, view="fixed")
BLANK = Metric("mc_ratio", "a", math.nan, 0)


def report(*metrics: Metric) -> QualityReport:
    verdict = judge([Rule("kid"), Rule("mc_ratio", at_most=1.1), Rule("gone")], metrics)
    tables = {"cells": [{"cell": "a", "n": np.int64(3), "mean": np.float64("nan")}]}
    return QualityReport(list(metrics), tables, verdict, {"seed": 0, "bands": (0.0, 0.5)})


numbers = st.floats(allow_nan=True, allow_infinity=True)
metrics = st.builds(
    Metric, name=st.sampled_from(["kid", "mc_ratio"]), cell=st.text(min_size=1, max_size=5),
    value=numbers, n=st.integers(0, 9), low=st.none() | numbers, bound=st.none() | numbers,
    lower=st.booleans(), view=st.sampled_from(["", "fixed"]), note=st.text(max_size=5),
)  # fmt: skip


@given(st.lists(metrics, max_size=4))
def test_json_round_trip(found: list[Metric]) -> None:
    made = report(*found)
    text = made.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))
    read = QualityReport.from_json(text)
    assert read.to_json() == text
    assert read.digest == made.digest
    assert read.verdict.passed == made.verdict.passed
    assert [r.passed for r in read.verdict.reasons] == [r.passed for r in made.verdict.reasons]


def test_a_round_trip_keeps_every_field() -> None:
    assert QualityReport.from_json(report(KID).to_json()).metrics == [KID]
    blank = QualityReport.from_json(report(BLANK).to_json()).metrics[0]
    assert math.isnan(blank.value)


def test_what_was_not_measured_is_told_from_what_was_in_vain() -> None:
    read = QualityReport.from_json(report(KID, BLANK).to_json())
    said = [str(reason) for reason in read.verdict.failures]
    assert said == ["mc_ratio of a could not be judged", "gone: not measured"]


def test_why_nothing_could_be_judged_is_kept() -> None:
    few = Metric.unjudged("kid", "b", "too few patients (3, wanted at least 4)", 3, "fixed")
    read = QualityReport.from_json(report(KID, few).to_json())
    assert str(read.verdict.failures[0]).endswith("judged: too few patients (3, wanted at least 4)")


def test_a_report_without_notes_is_read() -> None:
    plain = json.loads(report(KID, BLANK).to_json())
    for row in plain["verdict"]["reasons"]:
        del row["note"]
    read = QualityReport.from_json(json.dumps(plain))
    assert str(read.verdict.failures[0]) == "mc_ratio of a could not be judged"


def test_finding_a_figure() -> None:
    made = report(KID)
    assert made.metric("kid", "a") == KID
    assert made.metric("kid", "a", "fixed") == KID
    assert made.metric("kid", "a", "other") is None
    assert made.metric("kid") is None


def test_files(tmp_path: Path) -> None:
    made = report(KID)
    made.write(tmp_path / "new" / "report.json")
    assert QualityReport.read(tmp_path / "new" / "report.json").digest == made.digest
    with pytest.raises(DataError, match="cannot be read"):
        QualityReport.read(tmp_path / "none.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}', '{"format": 1}', "\xff\xfe"])
def test_what_is_no_report(text: str) -> None:
    with pytest.raises(DataError, match="no quality report"):
        QualityReport.from_json(text)
    with pytest.raises(DataError, match="no quality report"):
        QualityReport.from_json(text.encode("latin-1"))


def test_one_line_a_question() -> None:
    bad = [Reason("kid", cell, "fixed", 0.5, None, 0.1, False) for cell in "abcd"]
    good = Reason("copy_rate", OVERALL, "pixels", 0.0, None, 0.02, True)
    missing = Reason("nn_share", "", "", None, None, None, False)
    lines = lines_of(Verdict([bad[0], good, *bad[1:], missing]))
    assert [line.passed for line in lines] == [False, True, False]
    assert "a, fixed, 0.5" in lines[0].text
    assert "and 1 more (wanted: at most 0.1)" in lines[0].text
    assert "Not measured" in lines[2].text


def test_what_could_not_be_judged_is_said_once_beside_what_is_bad() -> None:
    why = "too few patients (3, wanted at least 4)"
    views = [Reason("kid", "c", v, math.nan, None, None, False, why) for v in ("fixed", "other")]
    bad = Reason("kid", "a", "fixed", 0.5, None, 0.1, False)
    alone, both = (lines_of(Verdict(reasons))[0] for reasons in (views, [bad, *views]))
    assert alone.text == f"Could not be judged in c: {why}."
    assert both.text.endswith(f"a, fixed, 0.5 (wanted: at most 0.1). {alone.text}")
    assert not alone.passed


def test_every_rule_of_the_default_gate_has_words() -> None:
    from fastgan_aug.config import QualityConfig

    config = QualityConfig()
    assert {rule.metric for rule in config.gate + config.fresh_gate} <= set(WORDS)
