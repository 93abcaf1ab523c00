from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from test_validate import columns, make
from typer.testing import CliRunner

from fastgan_aug.cli.data import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


class Page(HTMLParser):
    """Sources of pictures; tags that are not closed fail."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(str(dict(attrs)["src"]))
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def stands_alone(page: Page) -> bool:
    """Whether nothing is fetched from elsewhere."""
    inside = all(source.startswith("data:image/png;base64,") for source in page.sources)
    return inside and not re.search(r"https?://|<script|<link", page.text)


def test_the_page_of_a_one_factor_set_stands_alone_and_names_nobody(toy: Dataset, tmp_path: Path):
    toy.write(tmp_path / "toy.parquet")
    said = run("describe", tmp_path / "toy.parquet", "--per-cell", 2)
    assert toy.digest in said
    assert "Validation: 0 errors" in said
    page = Page(tmp_path / "toy.html")
    assert stands_alone(page)
    # Two examples, a mean and an SD of each cell; three scales; two plots.
    assert len(page.sources) == 4 * (2 + 2) + 3 + 2
    for word in ("disc", "cross", toy.digest, "not verified", "toy shapes"):
        assert word in page.text.lower() or word in page.text
    assert not any(patient in page.text for patient in toy.patients if len(patient) > 3)


def test_right_and_left_are_marked_where_they_are_known(tmp_path: Path):
    dataset = make()
    dataset.write(tmp_path / "sound.parquet")
    run("describe", tmp_path / "sound.parquet", "--out", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert 'class="slice sides"' in page.text
    assert "patient's right (R) is on the left" in page.text
    assert "Nothing to report" in page.text


def test_the_page_is_the_same_for_the_same_seed(tmp_path: Path):
    make().write(tmp_path / "one.parquet")
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        run("describe", tmp_path / "one.parquet", "--seed", seed, "--per-cell", 3,
            "--out", tmp_path / f"{name}.html")  # fmt: skip
    a, b, c = ((tmp_path / f"{name}.html").read_text() for name in "abc")
    assert a == b != c


def test_data_with_errors_or_without_labels_can_still_be_looked_at(tmp_path: Path):
    c = columns()
    c["images"][0] = 0
    for name, dataset in {
        "blank": make(**c),
        "bare": make(**columns() | {"labels": {"kind": [None] * 48}}),
        "none": make().take(np.zeros(0, np.int64)),
        "ungrouped": make(meta={"grouping": "none", "laterality": "unverified"}),
        "markup": make(meta={"extra": {"<script>": "<b>"}}),
    }.items():
        dataset.write(tmp_path / f"{name}.parquet")
        run("describe", tmp_path / f"{name}.parquet")
        assert stands_alone(Page(tmp_path / f"{name}.html"))


def test_compare_prints_figures_and_writes_a_page(toy: Dataset, tmp_path: Path):
    toy.write(tmp_path / "toy.parquet")
    make().write(tmp_path / "other.parquet")
    said = run("compare", tmp_path / "toy.parquet", tmp_path / "other.parquet")
    assert "--pixel-mm-a" in said
    assert "grey over white" in said
    page = Page(tmp_path / "toy-beside-other.html")
    assert stands_alone(page)
    assert "cycles/pixel" in page.text


def test_compare_takes_pixels_that_the_metadata_lacks(toy: Dataset, tmp_path: Path):
    toy.write(tmp_path / "toy.parquet")
    said = run("compare", tmp_path / "toy.parquet", tmp_path / "toy.parquet", "--json",
               "--pixel-mm-a", 4, "--pixel-mm-b", 2, "--out", tmp_path / "page.html")  # fmt: skip
    rows = {(r["measure"], r["group"]): r for r in json.loads(said)}
    width = rows["width", "all"]
    assert width["unit"] == "mm"
    assert width["first"][1] == 2 * width["second"][1]
    assert rows["width", "shape ring"]["n"] == [40, 40]
    assert (tmp_path / "page.html").exists()


def test_bad_input_writes_nothing(tmp_path: Path):
    make().write(tmp_path / "one.parquet")
    with pytest.raises(DataError):
        run("compare", tmp_path / "one.parquet", tmp_path / "missing.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["one.parquet"]
    for command in ("compare", "describe", "validate"):
        assert "Example" in run(command, "--help")
