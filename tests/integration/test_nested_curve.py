"""The learning curve of the nested command: fewer patients, generators of their own, same tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_nested_leakage import CONFIG, made
from typer.testing import CliRunner

from fastgan_aug.cli.downstream import print_report, write_report
from fastgan_aug.cli.main import app
from fastgan_aug.cli.nested_command import Found, Nested, Rung, run_nested
from fastgan_aug.errors import ConfigError, DataError

pytestmark = pytest.mark.integration
QUICK = CONFIG.model_copy(
    update={
        "downstream": CONFIG.downstream.model_copy(
            update={
                "folds": 2, "seeds": [0], "steps": 20, "bootstrap": 100,
                "arms": ["real", "real + synthetic"],
            }
        )
    }
)  # fmt: skip
FEWER = (3, 6)  # of the nine slices of three donors that a fold learns the rarest shape from


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Nested:
    folder = tmp_path_factory.mktemp("curve")
    made(random_labels=False).write(folder / "shapes.parquet")
    return Nested(folder / "shapes.parquet", QUICK, folder, rare_slices=FEWER)


@pytest.fixture(scope="module")
def found(asked: Nested) -> Found:
    with (asked.out / "log").open("w") as log:
        one = run_nested(asked, Console(file=log, width=200))
    assert one is not None
    return one


def test_it_has_a_point_for_each_number(found: Found, asked: Nested) -> None:
    (curve,) = found.report.curves
    assert [(p.rare_slices, p.rare_patients) for p in curve.points] == [(3, 1), (6, 2), (9, 3)]
    (judgement,) = found.report.judgements
    last, line = curve.points[-1], judgement.headline
    assert line is not None
    assert (curve.arm, last.gain) == (line.arm, line.difference), "the last one is the report's"
    told = (asked.out / "log").read_text()
    assert "with 3 rare slices, fold 1, train: disc" in told
    assert "6 generators of 64 images, 6 to do; 12 fits of the classifier, 12 to do" in told


def test_generators_saw_no_more_than_their_number_allows(found: Found) -> None:
    fewer = {one["rare_slices"]: one for one in found.report.provenance["fewer_slices"]}
    assert set(fewer) == set(FEWER)
    for n, one in fewer.items():
        assert [g["slices"]["bar"] for g in one["generators"]] == [n, n]
        for own, whole in zip(one["folds"], found.report.provenance["folds"], strict=True):
            assert own["train"] != whole["train"]
            assert (own["validation"], own["test"]) == (whole["validation"], whole["test"])


def test_page_file_and_terminal_tell_the_curve(found: Found, tmp_path: Path) -> None:
    write_report(found.report, tmp_path, found.images)
    assert len(json.loads((tmp_path / "downstream.json").read_text())["curves"][0]["points"]) == 3
    assert "With fewer real slices" in (tmp_path / "downstream.html").read_text()
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    print_report(found.report, console)
    told = console.export_text()
    assert "rare slices" in told
    assert "rival is chosen on more slices" in " ".join(told.split())


def test_what_is_done_is_not_done_again(found: Found, asked: Nested) -> None:
    def written() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in asked.out.rglob("*") if "pieces" in p.parts}

    before = written()
    assert len(before) == 3 * (2 + 1 + 4)  # two generators, a folder, four fits of each number
    with (asked.out / "log").open("w") as log:
        again = run_nested(asked, Console(file=log))
    assert again is not None
    assert again.report.to_json() == found.report.to_json()
    assert written() == before


@pytest.mark.parametrize(
    ("fewer", "error", "match"),
    [((3, 4), ConfigError, "3 and 4 rare slices"), ((9,), DataError, "has 9 slices of bar")],
)
def test_numbers_that_cannot_be_are_refused_first(
    asked: Nested, tmp_path: Path, fewer: tuple[int, ...], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        run_nested(Nested(asked.data, QUICK, tmp_path, rare_slices=fewer), Console())
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_one_point_of_the_curve_are_refused_first(tmp_path: Path) -> None:
    # Donors with 1, 2 and 3 slices: of one fold 4 and 5 slices are other patients, by the folds'
    # median they are the same number.
    toy = made(random_labels=False)
    first = np.flatnonzero(toy.column("shape").astype(str) == "bar")[0]
    file = tmp_path / "shapes.parquet"
    toy.take(~np.isin(np.arange(len(toy.images)), first + np.asarray([0, 1, 3]))).write(file)
    four, five = (Rung.of(Nested(file, QUICK, tmp_path), few) for few in (4, 5))
    assert [f.train.digest for f in four.folds] != [f.train.digest for f in five.folds]
    assert four.rare("shape") == five.rare("shape")
    with pytest.raises(ConfigError, match="4 and 5 rare slices are one point of the curve"):
        run_nested(Nested(file, QUICK, tmp_path / "out", rare_slices=(4, 5)), Console())
    assert not (tmp_path / "out").exists()


def test_a_served_version_has_no_curve(asked: Nested) -> None:
    words = ["downstream", "--data", str(asked.data), "--url", "http://127.0.0.1:9"]
    done = CliRunner().invoke(app, [*words, "--rare-slices", "3"])
    assert isinstance(done.exception, ConfigError)
    assert "--rare-slices" in str(done.exception)
