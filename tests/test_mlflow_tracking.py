"""The spool alone: nothing here reaches an MLflow server."""

from __future__ import annotations

import io
import json
import logging
import math
import time
from pathlib import Path

import pytest
from PIL import Image

from fastgan_aug.engines.mlflow_client import without_password
from fastgan_aug.engines.mlflow_sender import PARAM_LENGTH, cut, flatten, in_parts
from fastgan_aug.engines.mlflow_server import check_port, free_port, open_command
from fastgan_aug.engines.mlflow_spool import Spool
from fastgan_aug.engines.mlflow_tracking import RunTracker, metric_name, replay
from fastgan_aug.errors import DataError, PortInUse, StorageError

NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once


def spool(folder: Path) -> Spool:
    made = Spool(folder)
    made.create("experiment", "name", NOWHERE)
    return made


def test_what_is_appended_is_pending_until_confirmed(tmp_path: Path) -> None:
    kept = spool(tmp_path)
    for step in range(3):
        kept.append("metrics", {"step": step, "values": {"a": math.nan}})
    pending = kept.pending()
    assert [e.values["step"] for e in pending] == [0, 1, 2]
    kept.confirm(offset=pending[1].end, run_id="r")
    assert [e.values["step"] for e in Spool(tmp_path).pending()] == [2]
    assert Spool(tmp_path).sent["run_id"] == "r"


def test_a_spool_is_continued_under_the_same_identity(tmp_path: Path) -> None:
    identity = spool(tmp_path).identity
    again = Spool(tmp_path)
    again.create("other", "other", NOWHERE)
    assert again.identity == identity


def test_a_spool_keeps_the_address_of_its_run(tmp_path: Path) -> None:
    kept = spool(tmp_path)
    kept.create("experiment", "name", "http://another")
    assert kept.identity["uri"] == "http://another"
    kept.confirm(run_id="r")  # made there: it stays there
    kept.create("experiment", "name", NOWHERE)
    assert kept.identity["uri"] == "http://another"


def test_no_password_is_written_down(tmp_path: Path) -> None:
    for number, uri in enumerate(
        ("http://user:geheim@127.0.0.1:9", "postgresql://127.0.0.1:9/db?password=geheim")
    ):
        folder = tmp_path / str(number)
        tracker = RunTracker(folder, uri=uri, experiment="e", name="n")
        tracker.close(0)
        assert "127.0.0.1:9" in tracker.spool.identity["uri"]
        assert "***" in tracker.spool.identity["uri"]
        written = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
        assert b"geheim" not in written


def test_addresses_without_a_password_stay_as_they_are() -> None:
    for uri in (NOWHERE, "sqlite:////folder/mlflow.db", "sqlite:///mlflow.db", "folder/mlruns"):
        assert without_password(uri) == uri
    assert "geheim" not in without_password("http://user:geheim@[::1")


def test_half_a_line_of_a_killed_process_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = spool(tmp_path)
    kept.append("finish", {"status": "KILLED"})
    lines = tmp_path / "tracking" / "entries.jsonl"
    lines.write_bytes(lines.read_bytes() + b'{"kind": "metr')
    assert len(kept.entries()) == 1
    again = spool(tmp_path)
    again.append("finish", {"status": "FINISHED"})
    with caplog.at_level(logging.WARNING):
        assert [e.values["status"] for e in again.entries()] == ["KILLED", "FINISHED"]
    assert "broken" in caplog.text


def test_kept_files_are_forgotten_after_sending(tmp_path: Path) -> None:
    source = tmp_path / "elsewhere"
    source.mkdir()
    (source / "a.txt").write_text("a")
    kept = spool(tmp_path / "run")
    for place, kind in ((kept.keep(source), "folder"), (kept.keep_file("b.png", b"b"), "file")):
        kept.append(kind, {"path": str(place), "to": "x", "remove": True})
    folder, file = kept.entries()
    assert (kept.path(folder) / "a.txt").read_text() == "a"
    assert kept.path(file).read_bytes() == b"b"
    kept.forget(folder)
    kept.forget(file)
    assert not list((kept.folder / "files").iterdir())
    assert (source / "a.txt").is_file()


def test_a_folder_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        RunTracker(tmp_path / "file" / "run", uri=NOWHERE, experiment="e", name="n")


def test_without_a_server_telling_is_quick_and_closing_is_bounded(tmp_path: Path) -> None:
    tracker = RunTracker(tmp_path, uri=NOWHERE, experiment="e", name="n")
    began = time.monotonic()
    tracker.start({"a": {"b": 1}}, None, {"code": "c"})
    for step in range(200):
        tracker.metrics(step, {"loss": float(step)})
    assert time.monotonic() - began < 2
    tracker.finish()
    assert not tracker.close(1)
    assert time.monotonic() - began < 10
    assert tracker.run_id is None
    assert [e.kind for e in Spool(tmp_path).pending()] == ["start", *["metrics"] * 200, "finish"]


def test_a_resumed_run_does_not_repeat_its_curves(tmp_path: Path) -> None:
    first = RunTracker(tmp_path, uri=NOWHERE, experiment="e", name="n")
    first.metrics(100, {"loss": 1.0})
    first.metrics(200, {"loss": 2.0})
    first.close(0)
    second = RunTracker(tmp_path, uri=NOWHERE, experiment="e", name="n")
    for step in (100, 200, 300):
        second.metrics(step, {"loss": 5.0, "new": 5.0})
    second.close(0)
    told = [e.values for e in Spool(tmp_path).entries()]
    assert [t["step"] for t in told if "loss" in t["values"]] == [100, 200, 300]
    assert [t["step"] for t in told if "new" in t["values"]] == [100, 200, 300]


def test_a_picture_is_one_series_with_a_thumbnail(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("L", (900, 300)).save(stream, "PNG")
    tracker = RunTracker(tmp_path, uri=NOWHERE, experiment="e", name="n")
    tracker.picture("samples/one", 500, stream.getvalue())
    with pytest.raises(DataError):
        tracker.picture("samples", 500, b"no picture")
    tracker.close(0)
    full, small = (tmp_path / e.values["path"] for e in Spool(tmp_path).entries())
    assert full.name.startswith("samples~one+step+500+timestamp+")
    assert small.name == full.stem + "+compressed.webp"
    with Image.open(small) as image:
        assert max(image.size) == 256


def test_replay_needs_a_spool(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tracking"):
        replay(tmp_path, NOWHERE)


def test_parameters_are_flat_and_within_limits() -> None:
    nested = {"a": {"b": [1, 2], "c": None}, "d": "text", "e": 0.5}
    flat = dict(flatten(nested))
    assert flat == {"a.b": "[1, 2]", "a.c": "null", "d": "text", "e": "0.5"}
    assert json.loads(flat["a.b"]) == [1, 2]
    assert cut("x" * 9000, PARAM_LENGTH).endswith("x…")
    assert len(cut("x" * 9000, PARAM_LENGTH)) == PARAM_LENGTH
    assert cut("short", PARAM_LENGTH) == "short"


def test_parts_keep_order_and_lose_nothing() -> None:
    items = list(range(25))
    parts = list(in_parts(items, 10))
    assert [len(p) for p in parts] == [10, 10, 5]
    assert [x for part in parts for x in part] == items


def test_metric_names_are_taken_by_mlflow() -> None:
    assert metric_name("loss/COR (ä)") == "loss/COR ___"


def test_cells_whose_names_mlflow_does_not_take_keep_a_curve_each(tmp_path: Path) -> None:
    tracker = RunTracker(tmp_path, uri=NOWHERE, experiment="e", name="n")
    try:
        for step in (1, 2):
            tracker.metrics(step, {"score/<5": 1.0, "score/>5": 2.0, "score/5 (ä)": 3.0})
    finally:
        tracker.close(0)
    first, second = (e.values["values"] for e in tracker.spool.entries() if e.kind == "metrics")
    assert list(first) == list(second)
    assert sorted(first.values()) == [1.0, 2.0, 3.0]
    assert first["score/5 ___"] == 3.0
    assert all(name == metric_name(name) for name in first)


def test_a_taken_port_is_named() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            check_port(port)
    with pytest.raises(PortInUse):
        check_port(70000)
    check_port(free_port())


def test_the_command_to_open_the_records_is_complete(tmp_path: Path) -> None:
    command = open_command(tmp_path, 5001)
    assert f"sqlite:///{tmp_path}/mlflow.db" in command
    assert "--port 5001" in command
