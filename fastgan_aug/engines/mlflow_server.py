"""A real `mlflow server` on this machine: SQLite and artefacts in one folder, loopback only."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from fastgan_aug.engines.mlflow_client import artifact_folder, local_uri
from fastgan_aug.errors import PortInUse, ServiceUnavailable, StorageError

HOST = "127.0.0.1"
LOG_NAME = "mlflow-server.log"
# Job execution starts four more processes (20 s and 2.3 GB instead of 9 s and 0.5 GB).
ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "DO_NOT_TRACK": "true",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class TrackingServer:
    """A running server.

    Attributes:
        uri: What clients and browsers open.
        pid: Leader of the server's own process group.
        log: What the server printed.
    """

    uri: str
    pid: int
    log: Path

    def stop(self, grace: float = 10.0) -> None:
        """Ends every process of the server's group; after ``grace`` seconds by force."""
        for kind, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            if not _signal_group(self.pid, kind):
                return
            deadline = time.monotonic() + wait
            while time.monotonic() < deadline:
                _reap(self.pid)
                if not _signal_group(self.pid, 0):
                    return
                time.sleep(0.05)


def start_tracking_server(
    folder: Path, port: int = 5000, *, timeout: float = 120
) -> TrackingServer:
    """Starts a server that outlives this process, and waits until it answers.

    Args:
        folder: Holds ``mlflow.db``, ``mlartifacts/`` and the log; made when missing.
        port: TCP port on 127.0.0.1.
        timeout: Seconds to wait for ``/health``.

    Raises:
        PortInUse: another process listens there.
        ServiceUnavailable: it ended, or did not answer in time; the log's end is in the message.
        StorageError: the folder cannot be written.
    """
    check_port(port)
    log = folder / LOG_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                server_command(folder, port),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | ENVIRONMENT,
                start_new_session=True,  # its own group: one signal ends it with its workers
            )
    except OSError as error:
        raise StorageError(
            f"the tracking server's folder {folder} cannot be used: {error}",
            do="choose another folder",
        ) from error
    server = TrackingServer(f"http://{HOST}:{port}", process.pid, log)
    try:
        _wait_until_healthy(server, process, timeout)
    except BaseException:
        server.stop()
        raise
    return server


@contextmanager
def tracking_server(folder: Path, port: int = 5000, *, timeout: float = 120) -> Iterator[str]:
    """Runs a server for the length of the block; yields its URI and leaves no process behind.

    Raises:
        PortInUse: another process listens there.
        ServiceUnavailable: it ended, or did not answer in time.
        StorageError: the folder cannot be written.
    """
    server = start_tracking_server(folder, port, timeout=timeout)
    try:
        yield server.uri
    finally:
        server.stop()


def server_command(folder: Path, port: int) -> list[str]:
    """The command line; also what a person types to open the same records again."""
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", local_uri(folder)),
        *("--artifacts-destination", artifact_folder(folder).as_uri()),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]


def open_command(folder: Path, port: int = 5000) -> str:
    """What to type to open the interface over ``folder`` later."""
    settings = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true"
    return f"{settings} {shlex.join(server_command(folder, port))}"


def check_port(port: int, host: str = HOST) -> None:
    """Makes sure that ``port`` can be listened on.

    Raises:
        PortInUse: it cannot.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise PortInUse(
                f"port {port} on {host} cannot be listened on: {error}",
                allowed="a free TCP port between 1024 and 65535",
                do="choose another port, or end the process that has it",
            ) from error


def free_port(host: str = HOST) -> int:
    """A TCP port that is free at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(
    server: TrackingServer, process: subprocess.Popen[bytes], timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            raise _unavailable(f"the tracking server ended with code {code}", server.log)
        try:
            if httpx.get(f"{server.uri}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise _unavailable(f"the tracking server did not answer within {timeout:g} s", server.log)


def _unavailable(what: str, log: Path) -> ServiceUnavailable:
    last = log.read_text(errors="replace").strip().splitlines()[-3:]
    return ServiceUnavailable(
        f"{what}; its last words: {' | '.join(last) or 'none'}", do=f"read {log}"
    )


def _signal_group(pid: int, kind: int) -> bool:
    """Signals the group; False when none of it is left."""
    try:
        os.killpg(pid, kind)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _reap(pid: int) -> None:
    """Collects the ended leader, which would stay in the group as a zombie."""
    with suppress(ChildProcessError):  # not our child, or collected already
        os.waitpid(pid, os.WNOHANG)
