"""Laws of the experiment, on the one-factor toy set."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer
from rich.console import Console
from served import NETWORK, FolderModels, InProcess, lineage, tiny_checkpoint
from test_arms import RULES, replayed
from typer.testing import CliRunner

from downstream.arms.catalogue import ARMS
from downstream.classifiers import torch_kind
from downstream.experiment import run_experiment
from downstream.report import Judgement, UsefulnessReport, usefulness_table
from fastgan_aug.cli.downstream import print_report, register_commands, write_report
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.errors import (
    ConfigError,
    DataError,
    LeakageError,
    PseudonymKeysDiffer,
    StorageError,
)
from fastgan_aug.quality.likeness.classifier import FitSettings
from serving.client import Client
from serving.server.app import create_app

QUICK = DownstreamConfig(
    seeds=[0, 1], steps=30, batch=32, learning_rate=3e-3, width=6, bootstrap=100
)


@pytest.fixture(scope="module")
def parts(toy: Dataset) -> tuple[Dataset, Dataset]:
    return split_by_patient(toy, 0.4, seed=0)


def experiment_on(
    train: Dataset, test: Dataset, config: DownstreamConfig = QUICK, **changes: object
) -> UsefulnessReport:
    settings = {"seen": SeenPatients.of(train)} | changes
    return run_experiment(train, test, config, RULES, replayed(train), **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(parts: tuple[Dataset, Dataset]) -> UsefulnessReport:
    return experiment_on(*parts)


def only(report: UsefulnessReport) -> Judgement:
    (judgement,) = report.judgements
    return judgement


def test_learns_the_toy_set(report: UsefulnessReport) -> None:
    arms = only(report).arms
    assert [arm.name for arm in arms] == [arm.name for arm in ARMS]
    assert max(arm.macro_f1.value for arm in arms) > 0.6
    for arm in arms:
        for found in (arm.macro_f1, arm.balanced_accuracy, *arm.recall.values()):
            assert 0 <= found.low <= found.value <= found.high <= 1
        assert arm.macro_f1.value == pytest.approx(np.mean(arm.each))


def test_counts_and_parents_are_told(
    parts: tuple[Dataset, Dataset], report: UsefulnessReport
) -> None:
    train, test = parts
    told = report.provenance
    counts = list(told["train_slices"].values())
    assert counts == list(train.class_counts.values())
    assert report.test_slices == tuple(test.class_counts.values())
    assert (told["train_digest"], told["test_digest"]) == (train.digest, test.digest)
    missing = sum(max(counts) - n for n in counts)
    everywhere = len(counts) * max(counts)
    assert [arm.n_synthetic for arm in only(report).arms] == [0, 0, 0, 0, missing, everywhere]


def test_the_rival_is_chosen_without_the_test(report: UsefulnessReport) -> None:
    judgement = only(report)
    comparison, other = judgement.comparisons
    assert comparison.arm == "real + synthetic"
    assert other.rival == comparison.rival
    validation = {arm.name: arm.validation or 0 for arm in judgement.arms if not arm.synthetic}
    assert comparison.rival == max(validation, key=lambda name: validation[name])
    assert "validation" in judgement.how
    scores = {arm.name: arm.macro_f1.value for arm in judgement.arms}
    difference = scores[comparison.arm] - scores[comparison.rival]
    assert comparison.difference.value == pytest.approx(difference)
    assert comparison.difference.low <= difference <= comparison.difference.high


def test_same_seeds_same_report(parts: tuple[Dataset, Dataset]) -> None:
    short = QUICK.model_copy(update={"steps": 5, "seeds": [4]})
    first, second = (experiment_on(*parts, short) for _ in range(2))
    for a, b in zip(only(first).arms, only(second).arms, strict=True):
        assert replace(a, seconds_per_fit=0) == replace(b, seconds_per_fit=0)


def test_all_arms_take_the_same_steps_and_tell_their_progress(
    parts: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[FitSettings] = set()
    fits = 0
    told: list[tuple[str, int, int]] = []
    original = torch_kind.fit_network

    def watched(make, images, labels, classes, settings, **more):  # type: ignore[no-untyped-def]
        nonlocal fits
        fits += 1
        asked.add(settings)
        return original(make, images, labels, classes, settings, **more)

    monkeypatch.setattr(torch_kind, "fit_network", watched)
    short = QUICK.model_copy(update={"steps": 3, "seeds": [0, 1]})
    experiment_on(*parts, short, progress=lambda *event: told.append(event))
    assert asked == {FitSettings(3, 32, 3e-3, 6)}
    rivals = sum(arm.source == "real" for arm in ARMS)
    assert fits == len(told) == told[-1][2] == (rivals + len(ARMS)) * 2
    assert [done for _, done, _ in told] == list(range(len(told)))


def test_shuffled_labels_give_chance(toy: Dataset) -> None:
    donors = toy.column("patient_id").astype(str)
    shapes = dict(zip(donors, toy.column("shape"), strict=True))
    names, values = list(shapes), [v or "disc" for v in shapes.values()]
    moved = dict(zip(names, np.random.default_rng(1).permutation(values), strict=True))
    labels = [
        moved[d] if v is not None else None
        for d, v in zip(donors, toy.column("shape"), strict=True)
    ]
    position = toy.table.column_names.index("shape")
    table = toy.table.set_column(
        position, "shape", pa.array([None if v is None else str(v) for v in labels], pa.string())
    )
    train, test = split_by_patient(Dataset(table, toy.meta), 0.4, seed=0)
    found = experiment_on(train, test, QUICK.model_copy(update={"seeds": [0]}))
    assert all(arm.balanced_accuracy.value < 0.55 for arm in only(found).arms)


def test_synthetic_slices_never_enter_the_test(parts: tuple[Dataset, Dataset]) -> None:
    train, test = parts
    for left, right in ((train, marked(test)), (marked(train), test)):
        with pytest.raises(LeakageError, match="synthetic"):
            experiment_on(left, right)


def test_leakage_is_refused(parts: tuple[Dataset, Dataset], toy: Dataset) -> None:
    train, test = parts
    with pytest.raises(LeakageError, match="patients"):
        experiment_on(toy, test)
    with pytest.raises(LeakageError, match="test patients"):
        experiment_on(train, test, seen=SeenPatients.of(toy))


def test_data_without_patients_or_classes_are_refused(parts: tuple[Dataset, Dataset]) -> None:
    train, test = parts
    ungrouped = Dataset(train.table, replace(train.meta, grouping="none"))
    with pytest.raises(DataError, match="no patients"):
        experiment_on(ungrouped, test)
    with pytest.raises(DataError, match="fewer than two"):
        experiment_on(train.take(train.column("shape") == "disc"), test)
    with pytest.raises(DataError, match="labelled"):
        experiment_on(train, test.take(~test.labelled))


def test_what_is_not_known_or_missing_is_said(parts: tuple[Dataset, Dataset]) -> None:
    train, test = parts
    short = QUICK.model_copy(update={"steps": 2, "seeds": [0]})
    known = test.take(test.column("shape") != "cross")
    found = experiment_on(train, known, short, seen=None)
    assert any("not known" in note for note in found.notes)
    for comparison in only(found).comparisons:
        assert comparison.verdict == "NO EVIDENCE"
        assert "may have seen the test patients" in comparison.reason
    assert any("cross has no test slice" in note for note in found.notes)
    assert "cross" not in only(found).arms[0].recall
    assert "recall cross" not in usefulness_table(only(found))[0]


def test_table_json_page_and_print(report: UsefulnessReport, tmp_path: Path) -> None:
    judgement = only(report)
    rows = usefulness_table(judgement)
    assert [row["arm"] for row in rows] == [arm.name for arm in judgement.arms]
    assert rows[-1]["verdict"].startswith(judgement.comparisons[0].verdict)
    write_report(report, tmp_path / "out")
    assert json.loads((tmp_path / "out/downstream.json").read_text()) == report.to_dict()
    assert judgement.how[:9] in (tmp_path / "out/downstream.html").read_text()
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    print_report(report, console)
    assert judgement.comparisons[0].verdict in console.export_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_report(report, tmp_path / "file")


def marked(dataset: Dataset) -> Dataset:
    """The data set with its first row called synthetic."""
    flags = pa.array([True] + [False] * (len(dataset) - 1))
    position = dataset.table.column_names.index("synthetic")
    return Dataset(dataset.table.set_column(position, "synthetic", flags), dataset.meta)


CONFIG = """
[data]
test_fraction = {fraction}
[downstream]
seeds = [0]
steps = 3
width = 2
bootstrap = 100
"""


def command(toy: Dataset, folder: Path, fraction: float = 0.4, *more: str):  # type: ignore[no-untyped-def]
    toy.write(folder / "toy.parquet")
    (folder / "toy.toml").write_text(CONFIG.format(fraction=fraction))
    app = typer.Typer()
    register_commands(app)
    words = ["--url", "http://127.0.0.1:8000", "--data", folder / "toy.parquet"]
    words += ["--config", folder / "toy.toml", "--out"]
    return CliRunner().invoke(app, [*map(str, words), str(folder / "out"), *more])


def serve_model_of(seen: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets the command reach, in process, a real service with a model of this training data."""
    counts = {str(c): n for c, n in seen.class_counts.items()}
    origin = replace(
        lineage(seen.meta.space.to_dict(), counts),
        dataset_digest=seen.digest,
        patient_digests=seen.patient_digests,
        pseudonym_key=seen.meta.pseudonym_key,
        grouping=seen.meta.grouping,
    )
    assert seen.meta.size == NETWORK.size
    checkpoint = tiny_checkpoint(folder / "model", origin)
    transport = InProcess(create_app(FolderModels(checkpoint)))
    monkeypatch.setattr("serving.client.Client", partial(Client, transport=transport))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return checkpoint


@pytest.mark.parametrize("words", [["--dry-run"], ["--ray"], ["--workers", "2"], ["--budget", "1"]])
def test_options_of_the_folds_are_refused_for_a_served_version(
    toy: Dataset, tmp_path: Path, words: list[str]
) -> None:
    """Nothing is begun, above all not where a dry run was asked for."""
    result = command(toy, tmp_path, 0.4, *words)
    assert result.exit_code
    assert "--url without them" in f"{result.output} {result.exception!r} {result.exception}"
    assert not (tmp_path / "out").exists()


def test_the_command_asks_a_real_service(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = split_by_patient(toy, 0.4, seed=0)
    serve_model_of(train, tmp_path, monkeypatch)
    result = command(toy, tmp_path)
    assert result.exit_code == 0, result.output
    assert re.search("HELPS|NO EVIDENCE|HARMS", result.output)
    found = json.loads((tmp_path / "out/downstream.json").read_text())
    counts = found["provenance"]["train_slices"].values()
    (judgement,) = found["judgements"]
    filled, everywhere = (arm["n_synthetic"] for arm in judgement["arms"][-2:])
    assert filled == sum(max(counts) - n for n in counts)
    assert everywhere == len(counts) * max(counts)
    assert not any("not known" in note for note in found["notes"])


def test_the_command_refuses_a_model_whose_patients_are_unknown(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_model_of(toy, tmp_path, monkeypatch)
    result = command(toy, tmp_path)
    assert isinstance(result.exception, LeakageError)
    assert "--tracking-uri" in result.exception.do
    assert not (tmp_path / "out").exists()


def with_two_factors(toy: Dataset, names: tuple[str, str]) -> Dataset:
    """Whether a slice is curved and whether it is thick, in that order."""
    shapes = toy.table["shape"].to_pylist()
    table = toy.table.drop_columns(["shape"])
    for name, true in (("curved", ("disc", "ring")), ("thick", ("disc", "cross"))):
        told = [None if s is None else ("yes" if s in true else "no") for s in shapes]
        table = table.append_column(name, pa.array(told, pa.string()))
    space = ConditionSpace.of({name: ["yes", "no"] for name in names})
    return Dataset(table, replace(toy.meta, space=space))


def test_a_model_whose_cells_mean_something_else_is_refused(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of factors in another order ``yes/no`` is another cell, and nothing else would tell."""
    seen, _ = split_by_patient(with_two_factors(toy, ("thick", "curved")), 0.4, seed=0)
    serve_model_of(seen, tmp_path, monkeypatch)
    known = SeenPatients.of(seen)
    monkeypatch.setattr("fastgan_aug.cli.downstream._model_patients", lambda *_: known)
    result = command(with_two_factors(toy, ("curved", "thick")), tmp_path)
    assert isinstance(result.exception, DataError)
    assert "thick, curved" in result.exception.allowed
    assert not (tmp_path / "out").exists()
    same = command(with_two_factors(toy, ("thick", "curved")), tmp_path)
    assert same.exit_code == 0, same.output


def test_the_command_needs_test_patients(toy: Dataset, tmp_path: Path) -> None:
    result = command(toy, tmp_path, 0.0)
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "out").exists()


def rekeyed(dataset: Dataset, **changes: str) -> Dataset:
    return Dataset(dataset.table, replace(dataset.meta, **changes))


def test_models_and_data_of_different_keys_are_refused(parts: tuple[Dataset, Dataset]) -> None:
    train, test = parts
    seen = replace(SeenPatients.of(train), pseudonym_key="KANOTHERKEY00")
    with pytest.raises(PseudonymKeysDiffer, match="KANOTHERKEY00"):
        experiment_on(train, test, seen=seen)
    with pytest.raises(PseudonymKeysDiffer):
        experiment_on(train, rekeyed(test, pseudonym_key="KANOTHERKEY00"))


def test_a_test_without_patients_proves_nothing(
    parts: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, test = (rekeyed(part, grouping="none") for part in parts)
    short = QUICK.model_copy(update={"steps": 2, "seeds": [0]})
    with pytest.raises(DataError, match="no patients"):
        experiment_on(train, test, short)
    found = experiment_on(train, test, short, unsafe_no_groups=True)
    assert found.caveat.startswith("This report proves nothing")
    assert {c.verdict for c in only(found).comparisons} == {"NO EVIDENCE"}
    assert all("one person" in c.reason for c in only(found).comparisons)
    assert json.loads(found.to_json())["caveat"] == found.caveat
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    print_report(found, console)
    assert console.export_text().startswith(found.caveat), "said before everything else"


def test_the_command_refuses_data_without_patients(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ungrouped = rekeyed(toy, grouping="none")
    train, _ = split_by_patient(ungrouped, 0.4, seed=0, unsafe_no_groups=True)
    serve_model_of(train, tmp_path, monkeypatch)
    result = command(ungrouped, tmp_path)
    assert isinstance(result.exception, DataError)
    assert "no patients" in result.exception.what
    assert not (tmp_path / "out").exists()
    result = command(ungrouped, tmp_path, 0.4, "--unsafe-no-groups")
    assert result.exit_code == 0, result.output
    told = [line for line in result.output.splitlines() if line.strip()]
    assert "proves nothing" in told[1], "right below the line that names the model"
    assert "proves nothing" in json.loads((tmp_path / "out/downstream.json").read_text())["caveat"]


@pytest.mark.parametrize("name", ["focal loss", "mixup", "synthetic, then real", "synthetic alone"])
def test_every_arm_takes_the_same_steps(
    parts: tuple[Dataset, Dataset], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    fit = torch_kind.fit_network

    def counted(*arguments: object, **options: object) -> object:
        taken.append(arguments[4].steps)  # type: ignore[attr-defined]
        return fit(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch_kind, "fit_network", counted)
    config = QUICK.model_copy(update={"arms": ["real", name], "seeds": [0], "steps": 31})
    report = experiment_on(*parts, config=config)
    own = taken[-(2 if "then" in name else 1) :]
    assert sum(own) == 31
    assert only(report).arms[1].macro_f1.value > 0.3  # it learns: chance gives 0.25 at most
