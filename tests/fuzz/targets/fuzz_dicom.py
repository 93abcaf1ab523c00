"""Fuzzes the parser of DICOM that runs in the limited process: only its own refusal may leave."""

from __future__ import annotations

import io
import sys

import atheris

with atheris.instrument_imports(include=["fastgan_aug.data.importers.dicom_reader", "pydicom"]):
    import pydicom.pixels  # imported late by the reader: it would not be instrumented
    import pydicom.pixels.decoders.rle  # noqa: F401

    from fastgan_aug.data.importers import dicom_reader


def one(data: bytes) -> None:
    for pixels in (False, True):
        try:
            fields, voxels = dicom_reader.read(io.BytesIO(data), pixels=pixels)
        except dicom_reader.Refused:
            continue
        assert (voxels is not None) == pixels
        assert fields["rows"] > 0


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
