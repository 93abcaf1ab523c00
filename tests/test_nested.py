"""Laws of the nested command that need no generator: its arms, its MLflow, its record."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import typer
from rich.console import Console
from test_arms import replayed
from typer.testing import CliRunner

from benchmarks.simulated_outcomes import CLASSES, SimulatedArm, World, simulate
from downstream.fold import Fold
from downstream.judging import JudgeSettings, judge
from downstream.report import UsefulnessReport
from fastgan_aug.cli import demo, nested_command
from fastgan_aug.cli.downstream import print_report, register_commands
from fastgan_aug.cli.downstream_record import FILES, record_nested
from fastgan_aug.cli.nested_command import Nested, Rung, run_nested
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.data.schema import images_to_arrow
from fastgan_aug.engines import fold_generator, mlflow_tracking
from fastgan_aug.engines.fold_generator import GeneratorPiece
from fastgan_aug.engines.mlflow_spool import Spool
from fastgan_aug.engines.mlflow_tracking import RunTracker
from fastgan_aug.engines.pieces import fit_digest, write_json
from fastgan_aug.errors import ConfigError, DataError, FastGANAugError, InvalidDataset

NOWHERE = "http://127.0.0.1:9"
HALF_MOVED = "moved defects, half synthetic in every class + classical augmentation"
ARMS = (SimulatedArm("real"), SimulatedArm("fill", "synthetic", "fill"))


def test_an_arm_that_a_fold_cannot_bear_is_refused_before_the_generators(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross = np.flatnonzero(toy.column("shape") == "cross")
    owners = toy.column("patient_id").astype(str)
    # Two patients with one slice each: every fold tests one and learns from the other.
    kept = [cross[0], next(k for k in cross if owners[k] != owners[cross[0]])]
    toy.take(~np.isin(np.arange(len(toy)), np.setdiff1d(cross, kept))).write(tmp_path / "d.parquet")
    monkeypatch.setattr(nested_command, "_print_plan", lambda *_: pytest.fail("it was planned"))
    arms = {"arms": ["real", "SMOTE"]}
    config = Config.of({"name": "toy", "network": {"size": 32}, "downstream": arms})
    asked = Nested(tmp_path / "d.parquet", config, tmp_path / "out")
    with pytest.raises(DataError, match="cross has 1 slice"):
        run_nested(asked, Console())


def test_a_factor_that_the_data_do_not_have_is_refused_in_the_dry_run(
    toy: Dataset, tmp_path: Path
) -> None:
    toy.write(tmp_path / "d.parquet")
    config = Config.of({"name": "toy", "downstream": {"factor": "nope"}})
    asked = Nested(tmp_path / "d.parquet", config, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"downstream.factor is 'nope'.*Allowed: shape\."):
        run_nested(asked, Console(), dry_run=True)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"arms": ["real", "oracle"]}, "no oracle source"),
        ({"arms": ["real", "real + filtered synthetic"]}, "selection.filter = true"),
        ({"arms": ["real", HALF_MOVED]}, "no defect can be moved"),
        ({"classifiers": ["sklearn.svm:SVC"]}, "gives no probabilities"),
    ],
)
def test_what_can_never_work_is_refused_in_the_dry_run(
    toy: Dataset, tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    toy.write(tmp_path / "d.parquet")
    config = Config.of({"name": "toy", "network": {"size": 32}, "downstream": changes})
    asked = Nested(tmp_path / "d.parquet", config, tmp_path / "out")
    with pytest.raises(FastGANAugError, match=why):
        run_nested(asked, Console(), dry_run=True)


def test_filtered_slices_can_be_had_where_there_will_be_a_filter(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.write(tmp_path / "d.parquet")
    planned: list[object] = []
    monkeypatch.setattr(nested_command, "_print_plan", lambda *told: planned.append(told))
    arms = {"arms": ["real", "real + filtered synthetic"]}
    values = {"name": "toy", "network": {"size": 32}, "selection": {"filter": True}}
    asked = Nested(tmp_path / "d.parquet", Config.of(values | {"downstream": arms}), tmp_path)
    run_nested(asked, Console(), dry_run=True)
    assert planned


NEIGHBOURS = "sklearn.neighbors:KNeighborsClassifier"
COPYING = """
[network]
size = 32
[downstream]
folds = 2
seeds = [0]
steps = 1
width = 2
bootstrap = 100
arms = ["real", "class weights", "real + synthetic"]
"""


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    """The command with generators that copy training slices: none is fitted."""
    verdict = {"passed": True, "answers": 1, "failures": []}

    def with_copies(fold: Fold, checkpoint: Path) -> Fold:
        return replace(fold, seen=SeenPatients.of(fold.train), synthetic=replayed(fold.train))

    def records(asked: Nested, rung: Rung, *_: object) -> list[dict[str, object]]:
        return [
            {"seed": fold.number, "checkpoint_digest": "copies", "verdict": verdict}
            for fold in rung.folds
        ]

    cost = SimpleNamespace(images_per_second=1.0)
    monkeypatch.setattr("fastgan_aug.gan.cost.measure_cost", lambda *_, **__: cost)
    monkeypatch.setattr("fastgan_aug.cli.nested.with_generator", with_copies)
    monkeypatch.setattr(nested_command, "_fit_generators", records)
    monkeypatch.setattr(GeneratorPiece, "checkpoint", tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    app = typer.Typer()
    register_commands(app)
    return app


def test_arms_that_a_classifier_cannot_do_are_told_by_plan_and_report(
    toy: Dataset, tmp_path: Path, copying: typer.Typer
) -> None:
    toy.write(tmp_path / "d.parquet")
    (tmp_path / "own.toml").write_text(f'{COPYING}\nclassifiers = ["small-cnn", "{NEIGHBOURS}"]')
    config = load_config(str(tmp_path / "own.toml"))
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    found = run_nested(Nested(tmp_path / "d.parquet", config, tmp_path / "out"), console)
    note = f"{NEIGHBOURS} is not tried with 'class weights': it takes no weights of slices"
    assert f"  {note}" in console.export_text()
    assert found is not None
    assert len([told for told in found.report.notes if told.startswith(note)]) == 1
    assert [len(judgement.arms) for judgement in found.report.judgements] == [3, 2]


def test_data_without_patients_are_judged_without_a_verdict(
    toy: Dataset, tmp_path: Path, copying: typer.Typer
) -> None:
    Dataset(toy.table, replace(toy.meta, grouping="none")).write(tmp_path / "d.parquet")
    (tmp_path / "own.toml").write_text(COPYING)
    words = ["--data", str(tmp_path / "d.parquet"), "--config", str(tmp_path / "own.toml")]
    words += ["--out", str(tmp_path / "out"), "--workers", "1"]
    refused = CliRunner().invoke(copying, words)
    assert isinstance(refused.exception, DataError)
    assert "--unsafe-no-groups" in refused.exception.do
    words.append("--unsafe-no-groups")
    planned = CliRunner().invoke(copying, [*words, "--dry-run"], catch_exceptions=False)
    assert "fold 1, test: disc" in planned.output
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(copying, words, catch_exceptions=False)
    told, page = done.output, (tmp_path / "out/downstream.html").read_text()
    caveat = "This report proves nothing: the data have no patients"
    for text, first in ((told, "macro-F1"), (page, "NO EVIDENCE")):
        assert -1 < text.find(caveat) < text.find(first), "before everything else"
    found = json.loads((tmp_path / "out/downstream.json").read_text())
    assert found["caveat"].startswith(caveat)
    verdicts = {c["verdict"] for j in found["judgements"] for c in j["comparisons"]}
    assert verdicts == {"NO EVIDENCE"}
    assert all("one person" in c["reason"] for j in found["judgements"] for c in j["comparisons"])


@pytest.fixture
def leaking(toy: Dataset, tmp_path: Path) -> Path:
    """A file in which a patient's slice stands under another patient too."""
    owners, cells = toy.column("patient_id"), toy.cell_index
    alike = np.flatnonzero((cells == cells[0]) & (owners != owners[0]))
    images = toy.images.copy()
    images[alike[0]] = images[0]
    place = toy.table.column_names.index("image")
    table = toy.table.set_column(place, "image", images_to_arrow(images))
    Dataset(table, toy.meta).write(tmp_path / "leaking.parquet")
    return tmp_path / "leaking.parquet"


def test_a_slice_of_two_patients_is_refused_before_anything_is_done(
    leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be learnt from and tested: whole data are looked over, not training parts alone."""
    monkeypatch.setattr(nested_command, "_print_plan", lambda *_: pytest.fail("it was planned"))
    config = Config.of({"name": "toy", "data": {"test_fraction": 0.4}, "network": {"size": 32}})
    with pytest.raises(InvalidDataset, match="two patients"):
        run_nested(Nested(leaking, config, tmp_path / "out"), Console())
    with pytest.raises(InvalidDataset, match="two patients"):
        demo._data(demo.DemoResults(config, tmp_path, leaking), ExitStack(), Console())
    toml = tmp_path / "own.toml"
    toml.write_text("[data]\ntest_fraction = 0.4")
    app = typer.Typer()
    register_commands(app)
    words = ["--data", str(leaking), "--config", str(toml), "--url", NOWHERE]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, InvalidDataset)


def test_classes_in_brackets_are_told(
    toy: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A terminal's markup looks like them."""
    values = toy.meta.space.factor("shape").values
    named = [None if v is None else f"[{v}]" for v in toy.table["shape"].to_pylist()]
    place = toy.table.column_names.index("shape")
    table = toy.table.set_column(place, "shape", pa.array(named, pa.string()))
    space = ConditionSpace.of({"shape": [f"[{v}]" for v in values]})
    Dataset(table, replace(toy.meta, space=space)).write(tmp_path / "d.parquet")
    cost = SimpleNamespace(images_per_second=1.0)
    monkeypatch.setattr("fastgan_aug.gan.cost.measure_cost", lambda *_, **__: cost)
    monkeypatch.setattr("downstream.classifier_pieces.seconds_left", lambda *_: 1.0)
    config = Config.of({"name": "toy", "network": {"size": 32}, "downstream": {"arms": ["real"]}})
    run_nested(Nested(tmp_path / "d.parquet", config, tmp_path), Console(width=200), dry_run=True)
    told = capsys.readouterr().out
    assert f"predicted: shape ({', '.join(f'[{v}]' for v in values)})" in told
    tested = [line for line in told.splitlines() if ", test: " in line]
    assert tested
    assert all(f"[{v}] " in line for line in tested for v in values)


def test_the_tables_heads_are_the_classes(tmp_path: Path) -> None:
    settings = JudgeSettings(bootstrap=100)
    simulated = simulate(World(folds=2, seeds=3, patients=20), ARMS, np.random.default_rng(0))
    classes = [f"[{name}]" for name in CLASSES]
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    print_report(judge(*simulated, ARMS, classes, settings), console)
    told = console.export_text()
    assert all(f"recall {name}" in told for name in classes)


@dataclass(frozen=True)
class Fitting:
    """Rows of a fit that is finished when they are read; the time is then over for that worker."""

    dataset: Dataset
    result: Path
    record: dict[str, object]

    def __call__(self) -> tuple[Dataset, Dataset]:
        if not self.result.is_file():
            write_json(self.result, self.record)
            fold_generator.time = SimpleNamespace(time=lambda: math.inf)  # type: ignore[assignment]
        return self.dataset, self.dataset


def test_generators_that_wait_for_a_worker_are_not_begun_when_the_time_is_over(
    toy: Dataset, tmp_path: Path
) -> None:
    config = Config.of({"name": "toy", "network": {"size": 32}})
    record = {"config_digest": fit_digest(config), "dataset_digest": toy.digest}
    pieces = []
    for number in range(5):
        told = record | {"seed": number, "verdict": {"passed": True}}
        parts = Fitting(toy, tmp_path / f"pieces/fit-fold-{number}.json", told)
        pieces.append(GeneratorPiece("fold", number, config, tmp_path, tmp_path, parts))
    write_json(pieces[4].result_path, pieces[4].parts.record)

    def fitted(workers: int, deadline: float) -> list[int]:
        asked = Nested(tmp_path, config, tmp_path, workers)
        rung = SimpleNamespace(generators=pieces, name="")
        with (tmp_path / "log").open("w") as log:
            records = nested_command._fit_generators(asked, rung, deadline, Console(file=log))  # type: ignore[arg-type]
        return [record["seed"] for record in records]

    assert fitted(1, deadline=0) == [4], "a finished one is looked at when it is too late, too"
    *begun, last = fitted(2, deadline=math.inf)
    assert last == 4
    assert 1 <= len(begun) <= 2, "all were sent, a worker begins one"
    assert [piece.seed for piece in pieces if piece.done] == [*begun, last]


@pytest.mark.parametrize("option", [None, "http://127.0.0.1:8"])
def test_the_configurations_mlflow_counts_unless_another_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str | None
) -> None:
    asked: list[Nested] = []
    monkeypatch.setattr(nested_command, "run_nested", lambda one, *_, **__: asked.append(one))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "own.toml").write_text(f'[tracking]\nuri = "{NOWHERE}"\n')
    app = typer.Typer()
    register_commands(app)
    words = ["--data", str(tmp_path / "d.parquet"), "--config", str(tmp_path / "own.toml")]
    words += ["--out", str(tmp_path / "out"), *(["--tracking-uri", option] if option else [])]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert [one.tracking_uri for one in asked] == [option or NOWHERE]


def test_what_is_predicted_and_balanced_are_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Nested] = []
    monkeypatch.setattr(nested_command, "run_nested", lambda one, *_, **__: asked.append(one))
    (tmp_path / "own.toml").write_text('[downstream]\nfactor = "level"\nsteps = 7\n')
    app = typer.Typer()
    register_commands(app)
    words = ["--data", str(tmp_path / "d.parquet"), "--config", str(tmp_path / "own.toml")]
    for more in ([], ["--predict", "pattern", "--balance", "level"]):
        CliRunner().invoke(app, [*words, *more], catch_exceptions=False)
    found = [(o.factor, o.balance, o.steps) for o in (one.config.downstream for one in asked)]
    assert found == [("level", None, 7), ("pattern", "level", 7)]


@pytest.fixture(scope="module")
def report() -> UsefulnessReport:
    world = World(folds=2, seeds=3, patients=20)
    settings = JudgeSettings(bootstrap=100, provenance={"generators": [{"version": "7"}]})
    return judge(*simulate(world, ARMS, np.random.default_rng(0)), ARMS, CLASSES, settings)


class NoServer:
    """An MLflow that takes nothing."""

    def __init__(self, spool: Spool, uri: str) -> None: ...

    def send_next(self) -> bool:
        return False


@pytest.mark.parametrize("killed", ["__init__", "start", "metrics", "finish"])
def test_a_record_that_a_kill_interrupted_is_completed(
    report: UsefulnessReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    monkeypatch.setattr(mlflow_tracking, "Sender", NoServer)
    monkeypatch.setattr(RunTracker, "close", lambda self: None)
    for name in FILES:
        (tmp_path / name).write_text(name)
    asked = Nested(tmp_path / "d.parquet", load_config("demo"), tmp_path, tracking_uri=NOWHERE)

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunTracker, killed, kill)
        with pytest.raises(KeyboardInterrupt):
            record_nested(asked, report)
    record_nested(asked, report)
    (folder,) = (tmp_path / "told").iterdir()
    told = [entry.kind for entry in Spool(folder).entries()]
    assert {"start", "metrics", "file"} < set(told)
    assert told.count("metrics") == told.count("finish") == 1
    assert told[-1] == "finish"
    record_nested(asked, report)
    assert [entry.kind for entry in Spool(folder).entries()] == told, "told once"
