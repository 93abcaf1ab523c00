"""deploy/serve.yaml by the real `serve deploy`, on a Ray with a dashboard and its own token."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from toy_demo import MARK, describe, survivors

from benchmarks.replicas import wait_until
from fastgan_aug.engines.mlflow_promotion import promote
from fastgan_aug.engines.mlflow_server import free_port
from fastgan_aug.errors import FastGANAugError
from serving.client import Client
from serving.request import BatchRequest
from serving.server.tokens import add_to_file, make_token
from tests.served import registered

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
COUNTS = {"disc": 60, "ring": 40, "bar": 24}
IMAGES = 20 + 36


@dataclass(frozen=True)
class Cluster:
    """A Ray of its own: what its processes and commands find in their environment."""

    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    log: Path

    def call(self, *command: str | Path) -> str:
        """Runs one of Ray's commands against this Ray, and gives what it said."""
        done = subprocess.run(
            [BIN / command[0], *command[1:]], env=self.environment, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """`ray start --head` as deploy/cluster.yaml does it; `ray stop` would end others' Ray too."""
    dashboard, mark = free_port(), secrets.token_hex(8)
    token = tmp_path / "auth_token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        MARK: mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }  # fmt: skip
    ports = {"dashboard-port": dashboard, "port": free_port()} | {
        name: free_port()
        for name in ("ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")
    }
    # Sockets lie in this folder, and their paths may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="fa", dir="/tmp", ignore_cleanup_errors=True) as folder:
        log = tmp_path / "ray.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [BIN / "ray", "start", "--head", "--block", "--num-cpus=2",
                 "--node-ip-address=127.0.0.1", f"--temp-dir={folder}",
                 f"--object-store-memory={100 << 20}", "--include-dashboard=true",
                 *(f"--{name}={port}" for name, port in ports.items())],
                env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield Cluster(process, environment, log)
        finally:
            process.send_signal(signal.SIGTERM)
            left = survivors(mark, 60)  # Ray itself waits 30 s for what still runs
            told = [describe(p) for p in left]
            for survivor in left:
                survivor.kill()
            process.wait(10)
        assert not told


def whole(url: str, token: str) -> int:
    """The status of a batch that is asked for in one answer."""
    return httpx.post(
        f"{url}/v1/balanced-batch", content=BatchRequest(COUNTS).to_json(),
        headers={"authorization": f"Bearer {token}"}, timeout=60,
    ).status_code  # fmt: skip


def status(url: str) -> int:
    """Of an answer; 0 where there is none."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return 0


@contextmanager
def asking(url: str, token: str, wanted: bytes) -> Iterator[list[str]]:
    """Three clients that ask all the while; what came of each call, "" where it was right."""
    ended, made = threading.Event(), list[str]()

    def ask() -> None:
        with Client(url, token=token) as client:
            while not ended.is_set():
                try:
                    found = client.request_balanced_batch(COUNTS, seed=3).images.tobytes()
                    made.append("" if found == wanted else "other images")
                except FastGANAugError as error:
                    made.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)


def test_the_file_is_deployed_asked_and_deployed_again(cluster, mlflow_uri, tmp_path):
    plain = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text(encoding="utf-8"))
    name, port = plain["applications"][0]["args"]["model_name"], free_port()
    version = registered(tmp_path, mlflow_uri, name, 1).version
    promote(name, version, mlflow_uri, by="a test", reason="the first", override=True)
    token, entry = make_token("lab", "generate")
    add_to_file(entry, tmp_path / "tokens.toml")
    plain["http_options"]["port"] = port
    plain["applications"][0]["args"] |= {
        "tracking_uri": mlflow_uri, "tokens": str(tmp_path / "tokens.toml"),
    }  # fmt: skip
    file, url = tmp_path / "serve.yaml", f"http://127.0.0.1:{port}"

    def deploy() -> None:
        file.write_text(yaml.safe_dump(plain), encoding="utf-8")
        cluster.call("serve", "deploy", file)

    dashboard = cluster.environment["RAY_DASHBOARD_ADDRESS"]
    # Ray's own token guards what `serve deploy` talks to.
    wait_until(lambda: status(f"{dashboard}/api/serve/applications/") in (401, 403), 60)
    deploy()
    wait_until(lambda: status(f"{url}/v1/health/ready") == 200, 120)
    assert "RUNNING" in cluster.call("serve", "status")
    assert httpx.post(f"{url}/v1/balanced-batch", content=b"{}").status_code == 401
    with Client(url, token=token) as client:
        batch = client.request_balanced_batch(COUNTS, seed=3)
    assert len(batch) == IMAGES
    assert (batch.provenance.model, batch.provenance.version) == (name, version)
    assert whole(url, token) == 200

    with asking(url, token, batch.images.tobytes()) as made:
        plain["applications"][0]["args"]["most_images"] = 50
        deploy()
        wait_until(lambda: whole(url, token) == 422, 120)  # page by page it is still given
        after = len(made)
        wait_until(lambda: len(made) > after + 5, 60)
    assert set(made) == {""}
    cluster.call("serve", "shutdown", "-y")
    wait_until(lambda: not status(url), 60)
