"""Fuzzes the CSV of labels, and the names of files in it: only typed errors may leave."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastgan_aug.data"]):
    from fastgan_aug.data.importers.folder import import_folder
    from fastgan_aug.data.pseudonyms import PseudonymKey
    from fastgan_aug.errors import FastGANAugError

PATH = Path(tempfile.mkdtemp(prefix="fuzz-")) / "labels.csv"
KEY = PseudonymKey(bytes(32))


def one(data: bytes) -> None:
    PATH.write_bytes(data)
    with contextlib.suppress(FastGANAugError):
        found = import_folder(PATH.parent, PATH, factors=["kind"], key=KEY)
        assert found.dataset is None
        assert len(found.refused) == len(found.items)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
