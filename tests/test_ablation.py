from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_aug.quality.ablation import (
    COLUMNS,
    Spread,
    ablation_table,
    metric_records,
    real_figures,
    verdict_record,
)
from fastgan_aug.quality.gate import Rule, judge
from fastgan_aug.quality.metric import Metric


def metric(name: str, cell: str, value: float, view: str = "", **more: Any) -> Metric:
    return Metric(name, cell, value, 10, view=view, **more)


def figures(kid: float = 0.3, mc: float = 1.0) -> list[Metric]:
    """A little of each metric, of two cells."""
    return [
        metric("kid", "overall", 9.0, "fixed", floor=0.1, bound=0.35),
        metric("kid", "a/x", kid, "fixed", floor=0.1, bound=0.2),
        metric("kid", "a/y", 2 * kid, "fixed", floor=0.2, bound=0.4),
        metric("kid", "*/x", 99.0, "fixed", floor=0.1, bound=0.2),
        metric("mc_ratio", "a/x", mc),
        metric("mc_ratio", "a/y", 1.0),
        metric("sd_map_ratio", "a/x", 0.5),
        metric("sd_map_ratio", "b/x", 0.7),
        metric("sd_map_ratio", "a/y", 0.9),
        metric("nn_share", "overall", 0.55, "pixels", floor=0.5),
        metric("never shown", "a/x", 1.0),
    ]


def run(
    variant: str,
    seed: int = 0,
    metrics: Sequence[Metric] | None = None,
    diverged: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    """A record as a run writes it."""
    found = list(figures() if metrics is None else metrics)
    verdict = judge([Rule("kid", at_most=0.5), Rule("mc_ratio", at_most=1.1)], found)
    record = {
        "variant": variant,
        "overrides": {"training.batch": 8} if overrides is None else overrides,
        "seed": seed,
        "images": 96,
        "seconds": 2.0,
        "images_per_second": 48.0,
        "diverged": diverged,
        "verdict": None if diverged else verdict_record(verdict),
        "metrics": {} if diverged else metric_records(found),
    }
    return dict(json.loads(json.dumps(record, allow_nan=False)))


def test_fewer_failures_come_first_then_a_smaller_distance() -> None:
    rows = ablation_table(
        [
            run("far", metrics=figures(kid=0.24)),
            run("broken", diverged="the losses are nan"),
            run("failing", metrics=figures(kid=0.01, mc=3.0)),
            run("near", metrics=figures(kid=0.2)),
        ]
    )
    assert [row.variant for row in rows] == ["near", "far", "failing", "broken"]
    assert rows[2].failing == {"mc_ratio": 1.0, "kid": 1.0}
    assert rows[-1].diverged == ["the losses are nan"]
    assert all(figure is None for figure in rows[-1].figures.values())


def test_a_variant_that_diverged_once_comes_after_all_that_did_not() -> None:
    runs = [run("a"), run("a", 1, diverged="why"), run("b", metrics=figures(kid=50, mc=9))]
    rows = ablation_table(runs)
    assert [row.variant for row in rows] == ["b", "a"]
    assert rows[1].seeds == [0, 1]


def test_what_each_column_shows() -> None:
    (row,) = ablation_table([run("only")])
    shown = {key: figure and figure.mean for key, figure in row.figures.items()}
    assert shown["kid"] == pytest.approx(0.45)  # the cells, without overall and */x
    assert shown["kid_worst"] == pytest.approx(1.5)
    assert shown["sd_map"] == pytest.approx(0.7)
    assert shown["sd_map_worst"] == pytest.approx(1 / 0.6)  # of x, over both of its cells
    assert shown["nn_share"] == 0.55
    assert shown["images_per_second"] == 48
    assert shown["coverage"] is None
    real = real_figures([run("broken", diverged="why"), run("only")])
    assert real["kid"] == pytest.approx(0.15)
    assert real["nn_share"] == 0.5
    assert real["failures"] is None
    assert set(shown) == set(real) == {c.key for c in COLUMNS}


@given(st.floats(0.01, 100))
def test_too_much_and_too_little_are_equally_far_off(ratio: float) -> None:
    one, other = (
        ablation_table([run("v", metrics=[metric("mc_ratio", "a/x", r)])])[0].figures["mc_worst"]
        for r in (ratio, 1 / ratio)
    )
    assert one is not None
    assert other is not None
    assert one.mean == pytest.approx(other.mean)
    assert one.mean >= 1


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_a_mean_lies_in_its_range(values: list[float]) -> None:
    spread = Spread.of(values)
    assert spread is not None
    assert spread.low - 1e-6 <= spread.mean <= spread.high + 1e-6
    again = Spread.of(values[::-1])
    assert again is not None
    assert (spread.low, spread.high) == (again.low, again.high)


def test_what_could_not_be_judged_is_left_out_and_not_zero() -> None:
    half = [metric("mc_ratio", "a/x", math.nan), metric("mc_ratio", "a/y", 1.2)]
    (row,) = ablation_table([run("v", metrics=half)])
    assert row.figures["mc_worst"] == Spread(1.2, 1.2, 1.2)
    (row,) = ablation_table([run("v", metrics=half[:1])])
    assert row.figures["mc_worst"] is None
    assert Spread.of([1.0, math.nan]) is None


def test_differences_are_of_runs_of_the_same_seed() -> None:
    plain = [run("plain", seed, figures(kid), overrides={}) for seed, kid in ((0, 0.1), (1, 0.3))]
    other = [run("other", seed, figures(kid)) for seed, kid in ((0, 0.2), (1, 0.4), (2, 9.0))]
    rows = {row.variant: row for row in ablation_table([*plain, *other])}
    assert rows["plain"].against == {}
    kid = rows["other"].against["kid"]
    assert kid is not None
    assert (kid.low, kid.high) == pytest.approx((0.15, 0.15))  # of seeds 0 and 1 alone
    assert all(spread is None for spread in ablation_table(other)[0].against.values())
