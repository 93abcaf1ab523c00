"""The record of a run in MLflow. A tracking server that goes away never stops a training.

Everything is first appended to a spool in the run's folder; a thread sends it on, keeps what it
could not send and tries again. `replay` sends the rest later. Whatever is sent twice is taken once:
metrics carry the time at which they were measured, files their final path.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fastgan_aug.engines.mlflow_client import without_password
from fastgan_aug.engines.mlflow_sender import Sender
from fastgan_aug.engines.mlflow_spool import SPOOL_NAME, Spool
from fastgan_aug.errors import DataError

logger = logging.getLogger(__name__)
Status = Literal["FINISHED", "FAILED", "KILLED"]
LAST_WAIT = 60.0
ROUND = 1.0
THUMBNAIL = 256


@dataclass(frozen=True)
class TrackedDataset:
    """What MLflow shows as the run's input.

    Attributes:
        name: Of the data set.
        digest: Sha256 of its content, 64 hex digits.
        class_counts: ``{cell: training slices}``.
        source: Where the slices come from, in words, without identifiers.
    """

    name: str
    digest: str
    class_counts: Mapping[str, int] = field(default_factory=dict)
    source: str = ""


class RunTracker:
    """One run's record; used by rank 0 alone, on this machine or in a Ray worker.

    Opening it on a folder that has a spool continues that spool's run, under the same run id: so a
    resumed training adds to its own curves.

    Args:
        run_folder: The run's folder; the spool is ``run_folder/tracking``.
        uri: MLflow's address; nothing fails when it does not answer.
        experiment: Name of the MLflow experiment.
        name: Name of the run.

    Raises:
        StorageError: the run's folder cannot be written.
    """

    def __init__(self, run_folder: Path, *, uri: str, experiment: str, name: str) -> None:
        self.spool = Spool(run_folder)
        self.spool.create(experiment, name, without_password(uri))
        self._last = _last_steps(self.spool)
        self._sender = Sender(self.spool, uri)
        self._wake, self._closing = threading.Event(), threading.Event()
        self._deadline = math.inf
        self._thread = threading.Thread(target=self._send, name="mlflow-sender", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until MLflow was reached."""
        run_id = self.spool.sent["run_id"]
        return None if run_id is None else str(run_id)

    def start(
        self,
        config: Mapping[str, Any],
        dataset: TrackedDataset | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Records what the run is decided by.

        Args:
            config: Nested plain values: each leaf becomes a parameter, all of it ``config.json``.
            dataset: Becomes an input of the run.
            tags: Code version, digests and whatever else is to be found by.

        Raises:
            StorageError: the spool cannot be written.
        """
        data = asdict(dataset) if dataset else None
        self.spool.append("start", {"config": config, "dataset": data, "tags": dict(tags or {})})
        self._wake.set()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Records points of curves. ``step`` is the number of images seen.

        A point at or before a curve's last step is left out: a run resumed from a checkpoint
        repeats what it had already told.

        Raises:
            StorageError: the spool cannot be written.
        """
        names = metric_names(values)
        named = {names[k]: float(v) for k, v in values.items()}
        fresh = {k: v for k, v in named.items() if step > self._last.get(k, -1)}
        if fresh:
            self._last |= dict.fromkeys(fresh, step)
            self.spool.append("metrics", {"step": int(step), "values": fresh})

    def picture(self, name: str, step: int, png: bytes) -> None:
        """Records a PNG; MLflow shows the pictures of one name as a series over images seen.

        Raises:
            StorageError: the spool cannot be written.
            DataError: ``png`` is no picture.
        """
        # The file name is MLflow's own format for stepped images; `MlflowClient.log_image` would
        # add a random part, and a repeated sending would then show the picture twice.
        key = re.sub(r"[^\w\-. ]", "~", name, flags=re.ASCII)
        stamp = f"{key}+step+{step}+timestamp+{time.time_ns() // 1_000_000}+{key}-{step}"
        for file, content in (
            (f"{stamp}.png", png),
            (f"{stamp}+compressed.webp", _thumbnail(png)),
        ):
            kept = self.spool.keep_file(file, content)
            self.spool.append("file", {"path": str(kept), "to": "images", "remove": True})

    def artefact(self, path: Path, name: str) -> None:
        """Records a file, or what a folder holds (a checkpoint), in the artefact folder ``name``.

        Inside the run's folder it is read when it is sent: what was pruned before that is left out.
        What lies elsewhere may vanish, so the spool keeps a link or a copy until it was sent.

        Raises:
            StorageError: the spool cannot be written.
        """
        absolute, kind = path.resolve(), "folder" if path.is_dir() else "file"
        inside = absolute.is_relative_to(self.spool.run_folder)
        stored = (
            absolute.relative_to(self.spool.run_folder) if inside else self.spool.keep(absolute)
        )
        self.spool.append(kind, {"path": str(stored), "to": name, "remove": not inside})

    def finish(self, status: Status = "FINISHED") -> None:
        """Records how the run ended.

        Raises:
            StorageError: the spool cannot be written.
        """
        self.spool.append("finish", {"status": status})
        self._wake.set()

    def close(self, wait: float = 30.0) -> bool:
        """Sends what is left for at most ``wait`` seconds.

        Returns:
            Whether MLflow has everything; if not, `replay` sends the rest later.
        """
        self._deadline = time.monotonic() + wait
        self._closing.set()
        self._wake.set()
        self._thread.join(wait)
        complete = not self.spool.pending()
        if not complete:
            logger.warning(
                "the tracking server does not have everything; the rest waits in %s",
                self.spool.folder,
            )
        return complete

    def _send(self) -> None:
        pause = ROUND
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            closing = self._closing.is_set()
            try:
                while self._sender.send_next():
                    if time.monotonic() > self._deadline:
                        return
                pause = ROUND
                if closing and not self.spool.pending():
                    return
            except Exception as error:  # never let a record stop a training
                if pause == ROUND:
                    logger.warning("MLflow is not reached, will try again: %s", _first_line(error))
                pause = min(pause * 2, LAST_WAIT) if not closing else 0.5
            if time.monotonic() > self._deadline:
                return


def replay(run_folder: Path, uri: str, *, wait: float = 60.0) -> int:
    """Sends what an outage left in a run's spool. Called twice, it sends nothing twice.

    Returns:
        How many records are still waiting: 0 when MLflow has everything.

    Raises:
        DataError: the folder has no spool.
        RegistryError: MLflow refused or could not be reached.
    """
    from fastgan_aug.engines.mlflow_client import registry_errors

    spool = Spool(run_folder)
    if not (spool.folder / "identity.json").is_file():
        raise DataError(
            f"{run_folder} holds no {SPOOL_NAME}/ folder",
            allowed="the folder of a training run",
            do="give the folder that `fastgan-aug train --out` wrote",
        )
    sender, deadline = Sender(spool, uri), time.monotonic() + wait
    with registry_errors(uri):
        while time.monotonic() < deadline and sender.send_next():
            pass
    return len(spool.pending())


def metric_name(name: str) -> str:
    """``name`` with every character that MLflow does not take replaced by ``_``."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:250]


def metric_names(names: Iterable[str]) -> dict[str, str]:
    """The ``metric_name`` of each; a part of its digest follows where others have the same."""
    plain = {name: metric_name(name) for name in names}
    often = Counter(plain.values())
    return {
        name: short
        if often[short] == 1
        else f"{short[:240]} {hashlib.sha256(name.encode()).hexdigest()[:8]}"
        for name, short in plain.items()
    }


def _last_steps(spool: Spool) -> dict[str, int]:
    last: dict[str, int] = {}
    for entry in spool.entries():
        if entry.kind == "metrics":
            for key in entry.values["values"]:
                last[key] = max(last.get(key, -1), entry.values["step"])
    return last


def _thumbnail(png: bytes) -> bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(png)) as image:
            small = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"the picture cannot be read: {error}", allowed="PNG bytes") from error
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, format="WEBP")
    return stream.getvalue()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
