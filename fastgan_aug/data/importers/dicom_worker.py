"""The other end of ``dicom_reader``: starts it, asks it, starts it again when it was stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.importers.dicom_reader import IDENTIFIABLE
from fastgan_aug.data.importers.volumes import MAX_BYTES
from fastgan_aug.errors import DataError, IdentifiableData

SECONDS = 60.0
_MAX_LINE = 2**20
_PROGRAM = "from fastgan_aug.data.importers.dicom_reader import main; main()"


class DicomWorker:
    """One long-lived reader; used as a context manager.

    Args:
        seconds: Wall-clock time for one file, after which the reader is stopped.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = 0.0

    def __enter__(self) -> Self:
        """Raises ModuleNotFoundError where pydicom is missing: else every file would be blamed."""
        if importlib.util.find_spec("pydicom") is None:
            raise ModuleNotFoundError("No module named 'pydicom'", name="pydicom")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def header(self, path: Path) -> dict[str, Any]:
        """What ``dicom_reader.describe`` lists.

        Raises:
            DataError: it is no image that can be taken.
            IdentifiableData: it could tell who the patient is.
        """
        return self._ask(path, pixels=False)[0]

    def voxels(self, path: Path) -> NDArray[np.float32]:
        """The stored values, (frames, rows, columns) float32.

        Raises:
            DataError: as ``header``, or its pixels are damaged.
        """
        fields, content = self._ask(path, pixels=True)
        shape = fields["frames"], fields["rows"], fields["columns"]
        return np.frombuffer(content, np.float32).reshape(shape)

    def _ask(self, path: Path, *, pixels: bool) -> tuple[dict[str, Any], bytearray]:
        try:
            process = self._running()
            assert process.stdin is not None
            request = json.dumps({"path": str(path.absolute()), "pixels": pixels})
            self._deadline = time.monotonic() + self.seconds
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            fields, content = self._answer()
        except (OSError, EOFError, ValueError):
            # Not the error itself: it may hold the path.
            self._stop()
            raise DataError(
                "its reader was stopped: it took too long, too much memory, or crashed",
                do="store the file again with another program, or leave it out",
            ) from None
        except BaseException:
            self._stop()  # else the next answer would be this one's
            raise
        if "refused" in fields:
            kind = IdentifiableData if fields.get("kind") == IDENTIFIABLE else DataError
            raise kind(str(fields["refused"]))
        return fields, content

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            package = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
            kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LD_LIBRARY_PATH")}
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                # -P: no module is ever loaded from the folder of the images.
                [sys.executable, "-P", "-c", _PROGRAM],
                env=kept | threads | {"PYTHONPATH": os.pathsep.join(p for p in package if p)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
            )
            self.started += 1
        return self._process

    def _answer(self) -> tuple[dict[str, Any], bytearray]:
        """One line of JSON, and the bytes it announces."""
        content = bytearray()
        while (end := content.find(b"\n")) < 0:
            content += self._some(_MAX_LINE)
            if len(content) > 2 * _MAX_LINE:
                raise ValueError("no line")
        fields = json.loads(bytes(content[:end]))
        del content[: end + 1]
        wanted = int(fields["bytes"])
        if wanted > MAX_BYTES:
            raise ValueError("too many bytes")
        while len(content) < wanted:
            content += self._some(wanted - len(content))
        return fields, content

    def _some(self, most: int) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            left = self._deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise EOFError
        some = os.read(self._process.stdout.fileno(), min(most, _MAX_LINE))
        if not some:
            raise EOFError
        return some

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
