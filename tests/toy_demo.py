"""The real demo on the toy shapes: started, left serving, ended as Ctrl-C ends it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 400
STOP_SECONDS = 60
# Whatever the demo starts inherits this variable, wherever it moves its session or its parent.
MARK = "FASTGAN_AUG_TEST_DEMO"
CONFIG = """
name = "toy-shapes"
[data]
test_fraction = 0.3
[network]
size = 32
latent = 32
generator_width = 4
discriminator_width = 4
[training]
images = 640
batch = 16
log_every = 64
checkpoint_every = 320
ema_half_life = 200
sampling_power = 0.5
[augment]
flip = { shape = ["disc", "ring"] }
[engine]
kind = "ray"
workers = 1
cpus_per_worker = 0.4
[tracking]
experiment = "toy shapes"
model = "toy-shapes"
[serving]
cpus_per_replica = 0.2
[downstream]
seeds = [0]
steps = 40
bootstrap = 200
"""


@dataclass
class Demo:
    """A demo that has finished and is left serving.

    Attributes:
        folder: What it wrote.
        data: The data set that it was given.
        process: It; leader of a session of its own.
        mark: Value of `MARK` in the environment of everything that it started.
        log: What it printed.
        started: Seconds until it was serving.
        ended: What `stop` saw; None while it runs.
    """

    folder: Path
    data: Path
    process: subprocess.Popen[bytes]
    mark: str
    log: Path
    started: float = 0.0
    ended: Ended | None = None

    @property
    def results(self) -> dict[str, Any]:
        """The figures of results.json."""
        return dict(json.loads((self.folder / "results.json").read_text(encoding="utf-8")))

    @property
    def url(self) -> str:
        """Of the service."""
        return str(self.results["service"])

    @property
    def tracking_uri(self) -> str:
        """Of the MLflow server."""
        return str(self.results["tracking_uri"])

    @property
    def version(self) -> str:
        """Number of the registered version."""
        return str(self.results["model"]).rpartition("/")[2]

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return str(self.results["config"]["tracking"]["model"])

    def said(self, lines: int = 40) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> Ended:
        """Ends it as Ctrl-C in a terminal does; whatever that leaves is told, then killed."""
        if self.ended is None:
            before = marked(self.mark)
            temporary = {f for p in before for f in ray_folders(p)}
            began = time.monotonic()
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGINT)
            try:
                code = self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            seconds = time.monotonic() - began
            left = survivors(self.mark)
            self.ended = Ended(code, seconds, [describe(p) for p in left], len(before), temporary)
            for process in left:
                process.kill()
        return self.ended


@dataclass(frozen=True)
class Ended:
    """How a demo ended.

    Attributes:
        code: Its exit status; None where it did not end in time.
        seconds: From the signal to its end.
        left: Processes that outlived it, in words.
        processes: How many there were before.
        temporary: Ray's temporary folders.
    """

    code: int | None
    seconds: float
    left: list[str]
    processes: int
    temporary: set[Path] = field(default_factory=set)


def start_demo(out: Path, config: Path, data: Path, log: Path) -> Demo:
    """Starts it in a session of its own."""
    command = [
        *(sys.executable, "-m", "fastgan_aug.cli.main", "demo", "--config", str(config)),
        *("--data", str(data), "--out", str(out), "--keep-serving"),
    ]
    mark = secrets.token_hex(8)
    # A cluster or a server of whoever runs the tests is none of the demo's.
    environment = {
        k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
    }
    environment |= {MARK: mark, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True, preexec_fn=heed_ctrl_c,
        )  # fmt: skip
    return Demo(out, data, process, mark, log)


def heed_ctrl_c() -> None:
    """A shell that runs the tests in its background has them ignore Ctrl-C, children included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_serving(demo: Demo) -> None:
    """Waits until the demo has said that Ctrl-C ends it."""
    began = time.monotonic()
    while "Ctrl-C ends both" not in demo.said():
        code = demo.process.poll()
        assert code is None, f"the demo ended with code {code}:\n{demo.said()}"
        assert time.monotonic() - began < START_SECONDS, (
            f"the demo was not serving within {START_SECONDS} s:\n{demo.said()}"
        )
        time.sleep(0.25)
    demo.started = time.monotonic() - began


def marked(mark: str) -> list[psutil.Process]:
    """Every process whose environment carries the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return found


def survivors(mark: str, grace: float = 5.0) -> list[psutil.Process]:
    """What carries the mark after ``grace`` seconds; Ray's processes end just after their owner."""
    deadline = time.monotonic() + grace
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def describe(process: psutil.Process) -> str:
    """Id and the begin of its command."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"{process.pid}"


def ray_folders(process: psutil.Process) -> set[Path]:
    """Ray's temporary folders that a command line names."""
    try:
        return {Path(f) for f in re.findall(r"/[^\s=:,]*/ray-[^/\s]+", " ".join(process.cmdline()))}
    except psutil.Error:
        return set()
