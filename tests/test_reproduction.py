"""The paper's table beside ours: what is printed, what is counted, and what is concluded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from fastgan_aug.config import load_config, shipped_configs
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.endpoints import measure_dataset, measure_synthetic
from fastgan_aug.quality.metric import OVERALL
from fastgan_aug.quality.reproduction import (
    Published,
    beyond,
    conclusion,
    line_of,
    standing,
)
from fastgan_aug.quality.statistics.paper_table import paper_table

PAPER = Published("a paper", "shape", {"A": {"mc": {"disc": "0.8"}}})


def slices(dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    cells = [str(c) for c in itertools.compress(dataset.cells, dataset.labelled)]
    return dataset.images[dataset.labelled], cells


def test_the_papers_values_are_those_of_its_abstract() -> None:
    found = Published.read(shipped_configs() / "werner2022-published.json")
    assert found.of("A", "mc", "normal") == "0.8"
    assert found.of("A", "lr", "unilateral") == "0.03"
    assert [found.of("B", "mc", v) for v in ("normal", "unilateral", "bilateral")] == [
        "< 0.0001",
        "0.77",
        "< 0.0001",
    ]
    assert found.of("B", "lr", "bilateral") == "0.01"
    assert found.of("C", "mc", "normal") == "–"
    factors = load_config("reproduce-a").augment.flip
    assert found.factor in factors


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"source": 1}'])
def test_a_table_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(DataError, match="no table of published"):
        Published.read(tmp_path / "p.json")


def test_lines_hold_plain_numbers(toy: Dataset) -> None:
    real = measure_dataset(toy)
    images, cells = slices(toy)
    made = {"A": measure_synthetic(images, cells), "B": measure_synthetic(images[:1], cells[:1])}
    rows = paper_table(real, made, toy.meta.space)
    lines = [line_of(row, one, PAPER, 3) for row in rows for one in row.generators]
    json.dumps(lines, allow_nan=False)
    same = next(
        x for x in lines if (x["generator"], x["endpoint"], x["value"]) == ("A", "mc", "disc")
    )
    assert same["p_paper"] == "0.8"
    assert same["ratio"] == pytest.approx(1)
    assert same["g"] == pytest.approx(0)
    assert same["seed"] == 3
    single = next(x for x in lines if x["generator"] == "B")
    assert single["p_clustered"] is None
    assert not single["equivalent"]


def line(
    generator: str, scope: str, p: float, g: float, *, equivalent: bool = False
) -> dict[str, Any]:
    return {
        "generator": generator, "scope": scope, "p": p, "p_clustered": p * 2, "g": g,
        "equivalent": equivalent, "seed": 0,
    }  # fmt: skip


def test_a_standing_counts_rows_of_its_scope() -> None:
    lines = [
        line("A", "pooled", 0.03, -0.4), line("A", "pooled", 0.5, 0.2, equivalent=True),
        line("A", "COR/x", 0.0, 2.0), line("B", "pooled", 0.0, 9.0),
    ]  # fmt: skip
    found = standing(lines, "A", "pooled")
    assert (found.rows, found.different, found.clustered, found.equivalent) == (2, 1, 0, 1)
    assert found.effect == pytest.approx(0.3)
    assert standing(lines, "A", "alone").rows == 1


@pytest.mark.parametrize(
    ("pooled", "alone", "said"),
    [
        ((0.1, 0.5), (0.1, 0.5), "A is the nearer one both ways"),
        ((0.1, 0.5), (0.6, 0.2), "the lead of A comes from the pooling"),
        ((0.6, 0.5), (0.1, 0.2), "B is the nearer one pooled, A on COR alone"),
        ((0.6, 0.5), (0.3, 0.2), "B is the nearer one both ways"),
    ],
)
def test_the_conclusion_follows_the_numbers(
    pooled: tuple[float, float], alone: tuple[float, float], said: str
) -> None:
    lines = [
        line(name, scope, 0.5, g)
        for scope, pair in (("pooled", pooled), ("COR/x", alone))
        for name, g in zip("AB", pair, strict=True)
    ]
    far = [
        {"generator": name, "cell": OVERALL, "kid": kid, "floor": 0.1}
        for name, kid in (("A", 2.0), ("B", 1.0))
    ]
    text = conclusion(lines, far, "A", "B", "COR alone")
    assert said in text
    assert "B is the nearer one (KID 2 for A, 1 for B); neither is as near" in text


def test_a_generator_that_was_not_judged_is_an_error() -> None:
    with pytest.raises(DataError, match="not judged"):
        conclusion([line("A", "pooled", 0.5, 0.1)], [], "A", "B", "COR alone")


def test_counts_and_sides_do_not_see_a_blur_but_what_lies_beyond_does(toy: Dataset) -> None:
    images, cells = slices(toy)
    some = np.asarray(cells) != "cross"
    blurred = ndimage.gaussian_filter(images, (0, 1, 1))[some]
    own = [c for c, keep in zip(cells, some, strict=True) if keep]
    rows = beyond(toy, {"A": (images, cells), "B": (blurred, own)})
    assert {row["cell"] for row in rows} == {OVERALL, "disc", "ring", "bar"}
    for row in rows:
        assert (row["kid"] <= row["floor"]) == (row["generator"] == "A")
    varied = {(r["generator"], r["cell"]): r["sd_ratio"] for r in rows}
    assert varied["A", "disc"] == pytest.approx(1)
    assert varied["B", "disc"] < 0.95
    assert varied["A", OVERALL] is None
