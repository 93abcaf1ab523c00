"""Fuzzes NIfTI: only typed errors may leave."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fastgan_aug.data", "nibabel"]):
    import nibabel.nifti2  # noqa: F401 imported late by the reader

    from fastgan_aug.data.importers.nifti import read_header, read_volume
    from fastgan_aug.errors import DataError

PATH = Path(tempfile.mkdtemp(prefix="fuzz-")) / "a.nii"


def one(data: bytes) -> None:
    PATH.write_bytes(data)
    try:
        volume = read_volume(PATH, read_header(PATH))
        for index in range(min(3, len(volume.z))):
            assert volume.counts(index).ndim == 2
    except DataError:
        pass


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
