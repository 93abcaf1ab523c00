"""Fuzzes NPZ archives: only typed errors may leave, and no pickle is opened."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastgan_aug.data", "zipfile", "numpy.lib"]):
    from fastgan_aug.data.importers.npz import import_npz
    from fastgan_aug.errors import FastGANAugError

PATH = Path(tempfile.mkdtemp(prefix="fuzz-")) / "a.npz"


def one(data: bytes) -> None:
    PATH.write_bytes(data)
    with contextlib.suppress(FastGANAugError):
        found = import_npz(PATH, size=8)
        assert found.dataset is None or found.dataset.column("scale").min() > 0


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
