"""What a run wants to tell MLflow, kept on disk until MLflow has it."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan_aug.errors import StorageError
from fastgan_aug.storage import replace_when_complete

SPOOL_NAME = "tracking"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One line of the spool.

    Attributes:
        kind: ``start``, ``metrics``, ``file``, ``folder`` or ``finish``.
        time_ms: When it was said, milliseconds since 1970; sent again it is the same, so that
            MLflow takes a repeated metric only once.
        values: What was said.
        end: Byte offset behind the line.
    """

    kind: str
    time_ms: int
    values: Mapping[str, Any]
    end: int


class Spool:
    """Append-only lines in ``RUNFOLDER/tracking``, and how far MLflow has them.

    ``entries.jsonl`` is only ever appended to; ``sent.json`` holds the offset that was confirmed
    and the run's id; ``identity.json`` a random key, by which a run whose creation was answered
    too late is found again instead of made twice. One writer and one sender use it at a time.
    """

    def __init__(self, run_folder: Path) -> None:
        self.run_folder = run_folder.resolve()
        self.folder = self.run_folder / SPOOL_NAME
        self._entries = self.folder / "entries.jsonl"
        self._lock = threading.Lock()

    def create(self, experiment: str, name: str, uri: str) -> None:
        """Makes the folder and the identity; an existing spool is continued as it is.

        Args:
            experiment: Name of the MLflow experiment.
            name: Of the run.
            uri: MLflow's address without a password: this file is kept.

        Raises:
            StorageError: the folder cannot be written.
        """
        known = self.identity
        new = {"key": secrets.token_hex(16), "experiment": experiment, "name": name}
        # The address may change until MLflow has made the run there.
        place = {"uri": uri} if self.sent["run_id"] is None else {}
        if (identity := (known or new) | place) != known:
            self._replace("identity.json", identity)
        try:
            (self.folder / "files").mkdir(exist_ok=True)
            self._end_broken_line()
        except OSError as error:
            raise _not_written(self.folder, error) from error

    @property
    def identity(self) -> dict[str, str]:
        """``key``, ``experiment``, ``name`` and ``uri``, where ``***`` stands for a password."""
        return dict(self._read("identity.json"))

    @property
    def sent(self) -> dict[str, Any]:
        """``offset`` in bytes and ``run_id`` (None before MLflow made the run)."""
        return {"offset": 0, "run_id": None} | self._read("sent.json")

    def confirm(self, **changes: Any) -> None:
        """Records how far MLflow has the spool."""
        with self._lock:
            self._replace("sent.json", self.sent | changes)

    def append(self, kind: str, values: Mapping[str, Any]) -> None:
        """Adds one line.

        Raises:
            StorageError: the disk is full, or the folder is gone.
        """
        line = json.dumps({"kind": kind, "time_ms": time.time_ns() // 1_000_000} | dict(values))
        try:
            with self._lock, self._entries.open("ab") as stream:
                stream.write(line.encode() + b"\n")
        except OSError as error:
            raise _not_written(self._entries, error) from error

    def keep_file(self, name: str, content: bytes) -> Path:
        """Stores bytes that wait to be sent; the returned path is relative to the run's folder.

        Raises:
            StorageError: the disk is full, or the folder is gone.
        """
        target = self.folder / "files" / name
        with replace_when_complete(target) as temporary:
            temporary.write_bytes(content)
        return target.relative_to(self.run_folder)

    def keep(self, source: Path) -> Path:
        """Links or copies a file or folder that waits to be sent; relative to the run's folder.

        Raises:
            StorageError: ``source`` is missing, the disk is full, or the folder is gone.
        """
        target = self.folder / "files" / secrets.token_hex(8) / source.name
        with replace_when_complete(target) as temporary:
            if source.is_dir():
                shutil.copytree(source, temporary, copy_function=_link_or_copy)
            else:
                _link_or_copy(source, temporary)
        return target.relative_to(self.run_folder)

    def forget(self, entry: Entry) -> None:
        """Removes the bytes that were kept for an entry that was sent."""
        if entry.values.get("remove"):
            path = self.path(entry)
            own = path if path.parent == self.folder / "files" else path.parent
            if own.is_dir():
                shutil.rmtree(own, ignore_errors=True)
            else:
                own.unlink(missing_ok=True)

    def path(self, entry: Entry) -> Path:
        """What a file or folder entry refers to."""
        return self.run_folder / str(entry.values["path"])

    def entries(self, start: int = 0) -> list[Entry]:
        """The complete lines from byte ``start`` on; a line that is no JSON is left out."""
        if not self._entries.is_file():
            return []
        with self._entries.open("rb") as stream:
            stream.seek(start)
            lines = stream.read().splitlines(keepends=True)
        found, end = [], start
        for line in lines:
            end += len(line)
            if line.endswith(b"\n") and (values := _parse(line)) is not None:
                found.append(Entry(values.pop("kind"), values.pop("time_ms"), values, end))
        return found

    def pending(self) -> list[Entry]:
        """The lines that MLflow does not have yet."""
        return self.entries(self.sent["offset"])

    def _end_broken_line(self) -> None:
        # A killed process may have left half a line; what follows must start on its own.
        if self._entries.is_file() and self._entries.stat().st_size:
            with self._entries.open("r+b") as stream:
                stream.seek(-1, 2)
                if stream.read(1) != b"\n":
                    stream.write(b"\n")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def _replace(self, name: str, values: Mapping[str, Any]) -> None:
        with replace_when_complete(self.folder / name) as temporary:
            temporary.write_text(json.dumps(values))


def _link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        return values if {"kind", "time_ms"} <= values.keys() else None
    except (ValueError, AttributeError):
        logger.warning("a line of the tracking spool is broken and was left out")
        return None


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} could not be written: {error}",
        do="free some space or choose another run folder",
    )
