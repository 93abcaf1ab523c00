"""Bulk into an object store: `fastgan-aug sample --out s3://` against a real S3 server (moto)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pyarrow.fs import FileSelector, FileSystem, LocalFileSystem, copy_files
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.engines.mlflow_client import local_uri
from fastgan_aug.engines.mlflow_server import free_port
from fastgan_aug.errors import ConfigError, DataError, StorageError
from serving.batch import BalancedBatch
from serving.offline import OfflineClient
from serving.out_folder import OutFolder
from tests.served import ONE_COUNTS, ONE_FACTOR, lineage, registered, tiny_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
KEY, SECRET, BUCKET = "AKIATESTING", "s3cr3t-of-a-test", "s3://images"
ASK = ["sample", "--counts", "disc=60,ring=40,bar=24", "--seed", "7"]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A server with one empty bucket; this process and its children find it by AWS_*."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        try:
            wait_for(server, port)
            filesystem, bucket = FileSystem.from_uri(f"{BUCKET}?allow_bucket_creation=true")
            filesystem.create_dir(bucket)
            yield url
        finally:
            server.kill()
            server.wait()


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert server.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS))


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def here(*arguments: str | Path) -> list[str]:
    return [*ASK, "--local", "--workers", "1", *map(str, arguments)]


def in_a_process(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fastgan_aug.cli.main", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def fetched(out: str, folder: Path) -> Path:
    filesystem, path = FileSystem.from_uri(out)
    folder.mkdir()
    copy_files(
        path, str(folder), source_filesystem=filesystem, destination_filesystem=LocalFileSystem()
    )
    return folder


def images(folder: Path) -> bytes:
    parts = sorted(folder.glob("part-*.parquet"))
    return b"".join(BalancedBatch.read(part).images.tobytes() for part in parts)


def test_the_shards_are_those_of_a_folder(store, checkpoint, tmp_path):
    out = f"{BUCKET}/whole"
    assert "56 images" in run(*here("--checkpoint", checkpoint, "--out", out, "--dry-run"))
    assert OutFolder.of(out).names() == set()
    told = run(*here("--checkpoint", checkpoint, "--out", f"{out}/"))
    assert f"56 images: {out}/" in " ".join(told.split())
    run(*here("--checkpoint", checkpoint, "--out", tmp_path / "here"))
    there = fetched(out, tmp_path / "there")
    assert {p.name for p in there.iterdir()} == {p.name for p in (tmp_path / "here").iterdir()}
    assert images(there) == images(tmp_path / "here")
    manifests = {(f / "_manifest.json").read_text() for f in (there, tmp_path / "here")}
    assert len(manifests) == 1
    expected = OfflineClient(checkpoint).request_balanced_batch(ONE_COUNTS | {"cross": 60}, seed=7)
    assert images(there) == expected.images.tobytes()


@pytest.mark.slow
def test_ray_data_fills_it_too(store, checkpoint, tmp_path):
    out = f"{BUCKET}/by-ray?endpoint_override={store.replace('://', '%3A%2F%2F')}"
    process = in_a_process([*ASK, "--checkpoint", str(checkpoint), "--workers", "1", "--out", out])
    _, told = process.communicate(timeout=180)
    assert process.returncode == 0, told
    there = fetched(f"{BUCKET}/by-ray", tmp_path / "there")
    assert json.loads((there / "_manifest.json").read_text())["images"] == 56
    run(*here("--checkpoint", checkpoint, "--out", tmp_path / "here"))
    assert images(there) == images(tmp_path / "here")


def test_a_run_that_is_killed_goes_on(store, checkpoint, tmp_path):
    out = f"{BUCKET}/killed"
    command = ["sample", "--counts", "disc=0", "--target", "6000", "--seed", "7", "--local",
               "--workers", "1", "--checkpoint", str(checkpoint), "--out", out]  # fmt: skip
    folder = OutFolder.of(out)
    begun = in_a_process(command)
    while "part-00000.parquet" not in folder.names() and begun.poll() is None:
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    kept = changed(folder)
    assert "_manifest.json" not in kept
    assert len(images(fetched(out, tmp_path / "killed"))) % (2048 * 32 * 32 * 4) == 0
    run(*command)
    assert {name: changed(folder)[name] for name in kept} == kept
    expected = OfflineClient(checkpoint).request_balanced_batch({"disc": 0}, 6000, seed=7)
    assert images(fetched(out, tmp_path / "there")) == expected.images.tobytes()


def changed(folder: OutFolder) -> dict[str, int]:
    found = folder.filesystem.get_file_info(FileSelector(folder.path))
    return {info.base_name: info.mtime_ns for info in found}


def test_what_fails_while_it_is_made_is_not_there(store):
    folder = OutFolder.of(f"{BUCKET}/failed")

    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="disk is full"):
        folder.put("part-00000.parquet", half)
    assert folder.names() == set()


def test_other_folders_are_refused(store, checkpoint, tmp_path):
    ask = here("--checkpoint", checkpoint, "--out")
    run(*ask, f"{BUCKET}/begun")
    with pytest.raises(DataError, match="another request"):
        run(*ask, f"{BUCKET}/begun", "--seed", "8")
    (tmp_path / "notes.txt").write_text("mine")
    OutFolder.of(f"{BUCKET}/other").put("notes.txt", lambda path: path.write_text("mine") and None)
    for out in (f"{BUCKET}/other", f"{BUCKET}/other/notes.txt", BUCKET):
        with pytest.raises(DataError, match="something else"):
            run(*ask, out)
    assert OutFolder.of(f"{BUCKET}/other").names() == {"notes.txt"}


def refused(*arguments: str | Path) -> str:
    with pytest.raises(StorageError) as caught:
        run(*arguments)
    told = str(caught.value)
    assert "credentials" in told
    assert "bucket exists" in told
    assert KEY not in told
    assert SECRET not in told
    return told


def test_no_bucket_no_rights_and_no_network_are_told(store, checkpoint):
    ask = here("--checkpoint", checkpoint, "--out")
    assert "NO_SUCH_BUCKET" in refused(*ask, "s3://nowhere/images")
    nobody = f"127.0.0.1%3A{free_port()}"
    assert "connect" in refused(*ask, f"{BUCKET}/x?scheme=http&endpoint_override={nobody}")
    # From here on the server asks who may do what, and knows nobody.
    httpx.post(f"{store}/moto-api/reset-auth", content=b"0").raise_for_status()
    try:
        assert "ACCESS" in refused(*ask, f"{BUCKET}/x").upper()
    finally:
        httpx.post(f"{store}/moto-api/reset-auth", content=b"inf").raise_for_status()


def test_one_file_and_a_version_on_other_machines_are_refused(store, checkpoint, monkeypatch):
    with pytest.raises(ConfigError, match="one file"):
        run(*here("--checkpoint", checkpoint, "--out", f"{BUCKET}/batch.parquet"))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ConfigError, match="cluster"):
        run(*ASK, "--tracking-uri", "http://127.0.0.1:9", "--out", f"{BUCKET}/cluster")


def test_a_registered_version_fills_it(store, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    uri, out = local_uri(tmp_path), f"{BUCKET}/registered"
    registered(tmp_path, uri, "toy-shapes", 1)
    before = set(tmp_path.iterdir())
    ask = here("--tracking-uri", uri, "--name", "toy-shapes", "--model", "candidate", "--out")
    for _ in range(2):  # the second finds all images, and fetches the version again
        run(*ask, out)
    assert {p for p in tmp_path.iterdir() if p.name.startswith("fastgan-aug-")} <= before
    there = fetched(out, tmp_path / "there")
    assert sorted(p.name for p in there.iterdir()) == [
        "_manifest.json", "_plan.json", "part-00000.parquet",
    ]  # fmt: skip
    assert BalancedBatch.read(there / "part-00000.parquet").provenance.version == "1"
