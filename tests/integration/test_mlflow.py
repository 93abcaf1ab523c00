"""A real MLflow server: runs, versions, champions, and an outage."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from test_local_engine import toy_config
from typer.testing import CliRunner

from fastgan_aug.balance import BalancePlan
from fastgan_aug.cli.main import app
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines import local
from fastgan_aug.engines import mlflow_promotion as promotion
from fastgan_aug.engines import mlflow_registry as registry
from fastgan_aug.engines.job import FitJob, training_part
from fastgan_aug.engines.mlflow_client import connect, local_uri
from fastgan_aug.engines.mlflow_server import (
    check_port,
    free_port,
    start_tracking_server,
    tracking_server,
)
from fastgan_aug.engines.mlflow_tracking import RunTracker, TrackedDataset, replay
from fastgan_aug.errors import (
    CheckpointError,
    GateRefused,
    ModelNotFound,
    PortInUse,
    RegistryError,
)
from fastgan_aug.gan.checkpoint import GENERATOR, META, Lineage, read_meta, write_checkpoint
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.training import new_state
from fastgan_aug.quality.gate import Rule, judge
from fastgan_aug.quality.metric import Metric
from fastgan_aug.quality.report import QualityReport
from serving.batch import BalancedBatch
from serving.protocol import Header, Provenance

pytestmark = pytest.mark.integration

SPACE = {"shape": ["ring", "bar", "dot", "cross"]}
NETWORK = NetworkConfig(size=32, latent=8, embedding=8, generator_width=4, discriminator_width=4)
LINEAGE = Lineage(
    config={"network": {"size": 32}},
    config_digest="c" * 64,
    space=SPACE,
    class_counts={"ring": 20, "bar": 10, "dot": 5, "cross": 0},
    dataset_digest="d" * 64,
    patient_digests=["a" * 64, "b" * 64],
    code_version="0.1.0+abcdef0",
    pseudonym_key="unkeyed",
    grouping="patient",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def uri(folder: Path) -> Iterator[str]:
    with tracking_server(folder, free_port()) as address:
        yield address


def checkpoint(folder: Path, seed: int = 0) -> Path:
    dimension = ConditionSpace.of(SPACE).dimension
    state = new_state(NETWORK, TrainingConfig(seed=seed), dimension, torch.device("cpu"))
    state.images_seen = 4000
    write_checkpoint(folder, state, state.generator, LINEAGE)
    return folder


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (320, 320), 99).save(stream, "PNG")
    return stream.getvalue()


def finished_run(folder: Path, uri: str) -> str:
    tracker = RunTracker(folder, uri=uri, experiment="toy", name="toy")
    tracker.start(
        {"training": {"batch": 4, "seed": 0}, "text": "x" * 9000},
        TrackedDataset("shapes", LINEAGE.dataset_digest, LINEAGE.class_counts),
        {"code_version": LINEAGE.code_version},
    )
    for step in range(100, 4100, 100):
        tracker.metrics(step, {"loss_d": 1 / step, "loss_g": float("nan")})
    tracker.picture("samples", 4000, png())
    tracker.artefact(checkpoint(folder / "images-000004000"), "checkpoints/images-000004000")
    tracker.finish()
    assert tracker.close(60)
    assert tracker.run_id is not None
    return tracker.run_id


def artefacts(client: object, run_id: str, path: str | None = None) -> set[str]:
    found: set[str] = set()
    for item in client.list_artifacts(run_id, path):  # type: ignore[attr-defined]
        found |= artefacts(client, run_id, item.path) if item.is_dir else {item.path}
    return found


@pytest.fixture(scope="module")
def run(uri: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("run")
    return folder, finished_run(folder, uri)


def test_a_run_is_recorded_with_its_configuration_data_curves_and_pictures(
    uri: str, run: tuple[Path, str]
) -> None:
    client = connect(uri)
    told = client.get_run(run[1])
    assert told.info.status == "FINISHED"
    assert told.data.params["training.batch"] == "4"
    assert 5000 < len(told.data.params["text"]) <= 6000
    assert told.data.tags["code_version"] == LINEAGE.code_version
    points = client.get_metric_history(run[1], "loss_d")
    assert [p.step for p in points] == list(range(100, 4100, 100))
    data = told.inputs.dataset_inputs[0].dataset
    assert data.name == "shapes"
    assert LINEAGE.dataset_digest.startswith(data.digest)
    assert json.loads(data.profile)["cells"] == dict(LINEAGE.class_counts)
    names = artefacts(client, run[1])
    assert {"config.json", f"checkpoints/images-000004000/{META}"} <= names
    assert sum(n.startswith("images/samples+step+4000+") for n in names) == 2
    assert not list((run[0] / "tracking" / "files").iterdir())


def test_registered_fetched_promoted(uri: str, run: tuple[Path, str], tmp_path: Path) -> None:
    folder, run_id = run
    source = folder / "images-000004000"
    made = registry.register(source, uri=uri, model_name="toy", run_id=run_id)
    words = connect(uri).get_model_version("toy", made.version).description
    link = re.search(r"\((get-artifact\?.+)\)", words)
    assert link is not None
    picture = httpx.get(f"{uri}/{link[1]}")
    assert picture.content == png(), "the version's page shows the sample grid"
    assert made.aliases == ("candidate",)
    assert json.loads(made.tags["class_counts"])["cross"] == 0
    again = registry.register(source, uri=uri, model_name="toy", run_id=run_id)
    assert again.version == made.version

    with pytest.raises(ModelNotFound, match="fastgan-aug promote"):
        registry.fetch("toy", "champion", uri, tmp_path)
    with pytest.raises(ModelNotFound, match="candidate"):
        registry.find("toy", "99", uri)
    with pytest.raises(ModelNotFound, match="nothing-here"):
        registry.find("nothing-here", "champion", uri)

    with pytest.raises(RegistryError, match="name and a reason"):
        promotion.promote("toy", made.version, uri, by=" ", reason="better")
    record(made, uri, tmp_path / "quality", 0.01)
    champion = promotion.promote("toy", "candidate", uri, by="A. Person", reason="first one")
    assert champion.aliases == ("candidate", "champion")
    assert champion.tags["promoted_by"] == "A. Person"
    assert champion.tags["promoted_over"] == "none"
    assert champion.tags["promoted_override"] == "no"

    fetched = registry.fetch("toy", "champion", uri, tmp_path)
    assert fetched.folder is not None
    assert {p.name for p in fetched.folder.iterdir()} == {META, GENERATOR}
    assert (fetched.folder / GENERATOR).read_bytes() == (source / GENERATOR).read_bytes()
    # A copy that was damaged on disk is fetched again.
    (fetched.folder / GENERATOR).write_bytes(b"damaged")
    assert registry.fetch("toy", "champion", uri, tmp_path) == fetched
    assert (fetched.folder / GENERATOR).read_bytes() == (source / GENERATOR).read_bytes()

    points = registry.loss_curves(made, uri)
    assert [point["images_seen"] for point in points] == list(range(100, 4100, 100))
    assert points[0]["loss_d"] == pytest.approx(0.01)

    origin = registry.lineage("toy", made.version, uri)
    assert origin["run"]["id"] == run_id
    assert origin["dataset"] == {"digest": "d" * 64, "names": ["shapes"]}
    assert origin["code_version"] == LINEAGE.code_version


@pytest.mark.parametrize("name", [META, GENERATOR])
def test_a_damaged_artefact_is_refused(
    name: str, uri: str, folder: Path, run: tuple[Path, str], tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "source", seed=1)
    made = registry.register(source, uri=uri, model_name=f"damaged-{name[:4]}", run_id=run[1])
    stored = [
        path
        for path in (folder / "mlartifacts").rglob(name)
        if path.read_bytes() == (source / name).read_bytes()
    ]
    assert stored
    for path in stored:
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        registry.fetch(made.name, made.version, uri, tmp_path / "cache")
    assert not list((tmp_path / "cache" / made.name).iterdir())


def test_a_run_that_is_not_there_leaves_no_model(uri: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError):
        registry.register(
            checkpoint(tmp_path / "c"), uri=uri, model_name="of no run", run_id="0" * 32
        )
    assert not connect(uri).search_registered_models("name = 'of no run'")


def test_a_new_champion_names_the_one_before(
    uri: str, run: tuple[Path, str], tmp_path: Path
) -> None:
    first, second = (
        registry.register(
            checkpoint(tmp_path / str(seed), seed), uri=uri, model_name="two", run_id=run[1]
        )
        for seed in (2, 3)
    )
    for number, version in enumerate((first, second)):
        record(version, uri, tmp_path / f"quality {number}", 0.01)
    promotion.promote("two", first.version, uri, by="A", reason="only one", expect="none")
    now = promotion.promote(
        "two", second.version, uri, by="B", reason="better", expect=first.version
    )
    assert now.tags["promoted_over"] == first.version
    assert registry.find("two", "champion", uri).version == second.version
    assert registry.find("two", first.version, uri).aliases == ()


def record(
    version: registry.RegisteredVersion, uri: str, folder: Path, kid: float
) -> QualityReport:
    """A quality report of that version, which passes up to a KID of 0.05, logged."""
    metrics = [Metric("kid", "disc", kid, 5, bound=0.05)]
    sha = version.tags["checkpoint_sha256"]
    report = QualityReport(metrics, {}, judge([Rule("kid")], metrics), {"checkpoint": sha})
    report.write(folder / "report.json")
    (folder / "report.html").write_text("<p>looked at</p>")
    promotion.record_report(version, folder, uri)
    return report


@pytest.fixture
def fresh(uri: str, run: tuple[Path, str], tmp_path: Path) -> registry.RegisteredVersion:
    """A version of a model of its own, without a report."""
    name = f"gate {tmp_path.name}"
    return registry.register(checkpoint(tmp_path / "c", 5), uri=uri, model_name=name, run_id=run[1])


def promoted(version: registry.RegisteredVersion, uri: str, **more: object):
    named = {"by": "A. Person", "reason": "a reason"} | more
    return promotion.promote(version.name, version.version, uri, **named)  # type: ignore[arg-type]


def champion_of(version: registry.RegisteredVersion, uri: str) -> str | None:
    return connect(uri).get_registered_model(version.name).aliases.get("champion")


def test_without_a_report_nothing_is_promoted(uri: str, fresh: registry.RegisteredVersion) -> None:
    with pytest.raises(GateRefused, match="no quality report"):
        promoted(fresh, uri)
    assert champion_of(fresh, uri) is None
    assert "promoted_by" not in registry.find(fresh.name, fresh.version, uri).tags


def test_a_fail_is_promoted_by_a_named_override_alone_and_that_is_recorded(
    uri: str, fresh: registry.RegisteredVersion, tmp_path: Path
) -> None:
    record(fresh, uri, tmp_path / "bad", 0.5)
    assert registry.find(fresh.name, fresh.version, uri).tags["quality"] == "FAIL"
    with pytest.raises(GateRefused, match=r"kid of disc is 0\.5"):
        promoted(fresh, uri)
    assert champion_of(fresh, uri) is None
    with pytest.raises(RegistryError, match="name and a reason"):
        promoted(fresh, uri, by="", override=True)
    tags = promoted(fresh, uri, override=True).tags
    assert champion_of(fresh, uri) == fresh.version
    assert (tags["promoted_by"], tags["promoted_reason"]) == ("A. Person", "a reason")
    assert "says FAIL" in tags["promoted_override"]
    origin = registry.lineage(fresh.name, fresh.version, uri)
    assert "says FAIL" in origin["promoted"]["promoted_override"]
    # A better report later, and the next promotion overrides nothing.
    record(fresh, uri, tmp_path / "good", 0.01)
    assert promoted(fresh, uri).tags["promoted_override"] == "no"


def test_reports_are_kept_side_by_side_and_verified(
    uri: str, folder: Path, fresh: registry.RegisteredVersion, tmp_path: Path
) -> None:
    record(fresh, uri, tmp_path / "bad", 0.5)
    made = record(fresh, uri, tmp_path / "good", 0.01)
    version = registry.find(fresh.name, fresh.version, uri)
    read = promotion.recorded_report(version, uri)
    assert read is not None
    assert read.digest == made.digest == version.tags["quality_report_sha256"]
    place = f"quality/version-{version.version}"
    kept = artefacts(connect(uri), version.run_id, place)
    assert {
        f"{version.tags['quality_report']}/{name}" for name in ("report.json", "report.html")
    } <= kept
    assert len(kept) >= 4
    # A tag alone opens nothing: the report itself is read again.
    stored = next((folder / "mlartifacts").rglob(f"{version.tags['quality_report']}/report.json"))
    stored.write_text(stored.read_text().replace("0.01", "0.02"))
    with pytest.raises(GateRefused, match="sha256"):
        promoted(fresh, uri)
    stored.unlink()
    with pytest.raises(GateRefused, match="gone"):
        promoted(fresh, uri)
    assert champion_of(fresh, uri) is None


def test_the_report_of_another_checkpoint_is_refused(
    uri: str, fresh: registry.RegisteredVersion, run: tuple[Path, str], tmp_path: Path
) -> None:
    other = registry.register(
        checkpoint(tmp_path / "d", 6), uri=uri, model_name=fresh.name, run_id=run[1]
    )
    record(other, uri, tmp_path / "quality", 0.01)
    with pytest.raises(RegistryError, match="of the checkpoint"):
        promotion.record_report(fresh, tmp_path / "quality", uri)
    theirs = registry.find(other.name, other.version, uri).tags
    for key in ("quality", "quality_report", "quality_report_sha256"):
        connect(uri).set_model_version_tag(fresh.name, fresh.version, key, theirs[key])
    with pytest.raises(GateRefused, match="cannot be trusted"):
        promoted(fresh, uri)


def test_the_expected_champion_must_be_the_champion(
    uri: str, fresh: registry.RegisteredVersion, tmp_path: Path
) -> None:
    record(fresh, uri, tmp_path / "quality", 0.01)
    with pytest.raises(RegistryError, match="is nobody, not version 7"):
        promoted(fresh, uri, expect="7")
    assert champion_of(fresh, uri) is None
    promoted(fresh, uri, expect="none")
    with pytest.raises(RegistryError, match=f"is version {fresh.version}, not nobody"):
        promoted(fresh, uri, expect="none")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_promotion_overtaken_by_another_takes_itself_back(
    moment: str,
    uri: str,
    fresh: registry.RegisteredVersion,
    run: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one promotes for real, at the moment that a slow network would give it."""
    rival = registry.register(
        checkpoint(tmp_path / "d", 6), uri=uri, model_name=fresh.name, run_id=run[1]
    )
    for number, version in enumerate((fresh, rival)):
        record(version, uri, tmp_path / f"quality {number}", 0.01)
    move = promotion._move

    def overtaken(client: object, model: str, version: str, previous: str) -> None:
        monkeypatch.setattr(promotion, "_move", move)
        if moment == "before":
            promoted(rival, uri)
        else:
            after_setting(client, lambda: promoted(rival, uri))
        move(client, model, version, previous)

    monkeypatch.setattr(promotion, "_move", overtaken)
    with pytest.raises(RegistryError, match="somebody else moved the champion"):
        promoted(fresh, uri)
    assert champion_of(fresh, uri) == rival.version
    assert "promoted_by" not in registry.find(fresh.name, fresh.version, uri).tags


def after_setting(client: object, then: object) -> None:
    """Lets something happen right after the client has set an alias."""
    set_alias = client.set_registered_model_alias  # type: ignore[attr-defined]

    def slow(*arguments: object) -> None:
        set_alias(*arguments)
        then()  # type: ignore[operator]

    client.set_registered_model_alias = slow  # type: ignore[attr-defined]


def test_an_outage_stops_nothing_and_replay_sends_the_rest_once(tmp_path: Path) -> None:
    store, run, port = tmp_path / "store", tmp_path / "run", free_port()
    server = start_tracking_server(store, port)
    try:
        tracker = RunTracker(run, uri=server.uri, experiment="toy", name="outage")
        tracker.start({"a": 1})
        tracker.metrics(100, {"loss": 1.0})
        wait_until(lambda: not tracker.spool.pending())
    finally:
        server.stop()
    listed = subprocess.run(["ps", "-eo", "pgid="], capture_output=True, text=True, check=True)
    assert str(server.pid) not in listed.stdout.split(), "stopping leaves no process"
    check_port(port)
    began = time.monotonic()
    for step in range(200, 5200, 100):
        tracker.metrics(step, {"loss": 100 / step})
    tracker.picture("samples", 5000, png())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "note.txt").write_text("kept")
    tracker.artefact(elsewhere, "notes")
    shutil.rmtree(elsewhere)
    tracker.finish()
    assert time.monotonic() - began < 5, "telling must not wait for the server"
    assert not tracker.close(2)
    assert time.monotonic() - began < 15
    with pytest.raises(RegistryError, match="refused or could not be reached"):
        replay(run, server.uri)

    # The same records, from another port: the run's id is in the spool.
    with tracking_server(store, free_port()) as uri:
        assert replay(run, uri) == 0
        assert replay(run, uri) == 0
        client = connect(uri)
        experiment = client.get_experiment_by_name("toy")
        assert len(client.search_runs([experiment.experiment_id])) == 1
        steps = [p.step for p in client.get_metric_history(tracker.run_id, "loss")]
        assert steps == list(range(100, 5200, 100))
        assert client.get_run(tracker.run_id).info.status == "FINISHED"
        names = artefacts(client, tracker.run_id)
        assert "notes/note.txt" in names
        assert sum(name.startswith("images/") for name in names) == 2


def test_without_a_server_everything_is_in_one_folder(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    run_id = finished_run(tmp_path / "run", local_uri(store))
    assert (store / "mlartifacts").is_dir()
    made = registry.register(
        tmp_path / "run" / "images-000004000",
        uri=local_uri(store),
        model_name="toy",
        run_id=run_id,
    )
    fetched = registry.fetch("toy", made.version, local_uri(store), tmp_path / "cache")
    assert fetched.folder is not None


def test_a_registry_that_is_not_there_is_a_quick_typed_error(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(RegistryError, match="could not be reached"):
        registry.fetch("toy", "champion", f"http://127.0.0.1:{free_port()}", tmp_path)
    assert time.monotonic() - began < 30


def test_a_taken_port_is_refused(uri: str, tmp_path: Path) -> None:
    port = int(uri.rpartition(":")[2])
    with pytest.raises(PortInUse, match=str(port)):
        start_tracking_server(tmp_path / "other", port)


def wait_until(holds: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_command_line_registers_promotes_and_prints_the_lineage(tmp_path: Path) -> None:
    runner, store, run_folder = CliRunner(), tmp_path / "store", tmp_path / "run"
    store.mkdir()
    address = local_uri(store)
    run_id = finished_run(run_folder, address)
    source = run_folder / "images-000004000"
    sha = read_meta(source).digest

    def call(*arguments: str) -> str:
        result = runner.invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    # The default address is where the run was tracked.
    assert "models:/toy/1" in call("register", str(source), "--model", "toy")
    promote = ("promote", "candidate", "--by", "A. Person", "--reason", "the first")
    where = ("--model", "toy", "--tracking-uri", address)
    refused = runner.invoke(app, [*promote, *where])
    assert isinstance(refused.exception, GateRefused)
    assert "--override" in refused.exception.do
    said = call(*promote, *where, "--override", "--expect", "none")
    assert "before: none" in said
    assert "no quality report" in said

    batch = tmp_path / "batch.parquet"
    origin = Provenance(
        "toy", "1", "champion", run_id, sha, LINEAGE.dataset_digest, LINEAGE.config_digest,
        LINEAGE.code_version, "torch-cpu-fp32", 7, "request",
    )  # fmt: skip
    plan = BalancePlan({}, {})
    none = np.zeros(0, np.uint64)
    images = np.zeros((0, 32, 32), np.float32)
    header = Header(32, SPACE, plan, origin)
    BalancedBatch(header, images, [], none, none.astype(np.uint32), none.astype(bool)).to_parquet(
        batch
    )
    alone = call("lineage", str(batch))
    for part in ("models:/toy/1", run_id, sha, "c" * 64, "d" * 64, LINEAGE.code_version):
        assert part in alone
    assert "= MLflow" not in alone
    compared = call("lineage", str(batch), "--tracking-uri", address)
    assert compared.count("= MLflow") == 5
    assert "promoted by A. Person (overrode: models:/toy/1 has no quality report)" in compared
    away = call("lineage", str(batch), "--tracking-uri", f"http://127.0.0.1:{free_port()}")
    assert "could not be reached" in away
    assert run_id in away


def test_an_evaluation_decides_the_promotion(tmp_path: Path, toy: Dataset) -> None:
    """Fit, register, evaluate, promote: by the command line, on a bare SQLite file."""
    store, run_folder, data = tmp_path / "store", tmp_path / "run", tmp_path / "toy.parquet"
    store.mkdir()
    address = local_uri(store)
    toy.write(data)
    config = toy_config(images=48)
    train, _ = training_part(config, toy)
    made = local.fit(FitJob(config, train, run_folder, address), lambda seen, values: None)
    lenient = tmp_path / "lenient.toml"
    lenient.write_text('[[quality.gate]]\nmetric = "kid"\nat_most = 1e9\n')
    where = ("--model", "toy", "--tracking-uri", address)
    evaluate = ("evaluate", "candidate", str(data), "--no-classifier", "--out", str(tmp_path / "q"))
    promote = ("promote", "candidate", "--by", "A. Person", "--reason", "the first")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, *where], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    call("register", str(made.checkpoint))
    assert "quality = FAIL on models:/toy/1" in call(*evaluate)
    refused = CliRunner().invoke(app, [*promote, *where])
    assert isinstance(refused.exception, GateRefused)
    assert "quality = PASS on models:/toy/1" in call(*evaluate, "--config", str(lenient))
    assert "overridden" not in call(*promote)
    version = registry.find("toy", "champion", address)
    assert version.tags["promoted_override"] == "no"
    report = promotion.recorded_report(version, address)
    assert report is not None
    assert report.provenance["checkpoint"] == version.tags["checkpoint_sha256"]
    assert "training curves" in (tmp_path / "q" / "report.html").read_text().lower()
