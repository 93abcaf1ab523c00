"""Fuzzes PNG, TIFF and .npy: only typed errors may leave. The first byte tells the format."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastgan_aug.data", "PIL"]):
    import PIL.PngImagePlugin  # imported late by the reader
    import PIL.TiffImagePlugin  # noqa: F401

    from fastgan_aug.data.importers.pictures import IMAGE_SUFFIXES, read_picture
    from fastgan_aug.errors import UnreadableImage

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def one(data: bytes) -> None:
    if not data:
        return
    path = FOLDER / f"a{IMAGE_SUFFIXES[data[0] % len(IMAGE_SUFFIXES)]}"
    path.write_bytes(data[1:])
    with contextlib.suppress(UnreadableImage):
        assert read_picture(path).counts.ndim == 2


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
