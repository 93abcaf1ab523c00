"""A real MLflow server: runs, and an outage."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from mlflow_toy import LINEAGE, artefacts, finished_run, png

from fastgan_aug.engines import mlflow_registry as registry
from fastgan_aug.engines.mlflow_client import connect, local_uri
from fastgan_aug.engines.mlflow_server import (
    check_port,
    free_port,
    start_tracking_server,
    tracking_server,
)
from fastgan_aug.engines.mlflow_tracking import RunTracker, replay
from fastgan_aug.errors import PortInUse, RegistryError
from fastgan_aug.gan.checkpoint import META

pytestmark = pytest.mark.integration


def test_a_run_is_recorded_with_its_configuration_data_curves_and_pictures(
    mlflow_uri: str, mlflow_run: tuple[Path, str]
) -> None:
    client = connect(mlflow_uri)
    told = client.get_run(mlflow_run[1])
    assert told.info.status == "FINISHED"
    assert told.data.params["training.batch"] == "4"
    assert 5000 < len(told.data.params["text"]) <= 6000
    assert told.data.tags["code_version"] == LINEAGE.code_version
    points = client.get_metric_history(mlflow_run[1], "loss_d")
    assert [p.step for p in points] == list(range(100, 4100, 100))
    data = told.inputs.dataset_inputs[0].dataset
    assert data.name == "shapes"
    assert LINEAGE.dataset_digest.startswith(data.digest)
    assert json.loads(data.profile)["cells"] == dict(LINEAGE.class_counts)
    names = artefacts(client, mlflow_run[1])
    assert {"config.json", f"checkpoints/images-000004000/{META}"} <= names
    assert sum(n.startswith("images/samples+step+4000+") for n in names) == 2
    assert not list((mlflow_run[0] / "tracking" / "files").iterdir())


def wait_until(holds: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


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


def test_a_taken_port_is_refused(mlflow_uri: str, tmp_path: Path) -> None:
    port = int(mlflow_uri.rpartition(":")[2])
    with pytest.raises(PortInUse, match=str(port)):
        start_tracking_server(tmp_path / "other", port)
