"""Writes the seeds of the fuzzers anew: small whole files of every format, and damaged ones.

Run as `python tests/fuzz/make_seeds.py` with `tests` on the path.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from clinical import nm_header, write_dicom, write_nifti
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

SEEDS = Path(__file__).parent / "seeds"


def dicom(folder: Path) -> None:
    """Every transfer syntax, a slice of a series, absurd sizes, a bomb, nested sequences."""
    picture = np.arange(32, dtype=np.uint16).reshape(2, 4, 4)
    for name, syntax in (
        ("implicit", ImplicitVRLittleEndian), ("big_endian", ExplicitVRBigEndian),
        ("deflated", DeflatedExplicitVRLittleEndian), ("rle", None), ("explicit", None),
    ):  # fmt: skip
        header = seed_header()
        header.file_meta.TransferSyntaxUID = syntax or header.file_meta.TransferSyntaxUID
        path = write_dicom(folder / f"{name}.dcm", header, picture)
        if name == "rle":
            packed = dcmread(path)
            packed.compress(RLELossless, generate_instance_uid=False)
            packed.save_as(path)
    single = seed_header()
    del single.NumberOfFrames, single.SliceVector, single.FrameIncrementPointer
    single.Modality, single.ImageType = "PT", ["ORIGINAL", "PRIMARY"]
    single.ImagePositionPatient = [0, 0, 0]
    write_dicom(folder / "slice.dcm", single, picture[:1])
    for name, changes in (
        ("absurd_rows", {"Rows": 65535, "Columns": 65535}),
        ("absurd_frames", {"NumberOfFrames": 2**31 - 1}),
        ("absurd_bits", {"BitsStored": 0, "HighBit": 65535}),
        ("not_a_number", {"RescaleSlope": "1e999"}),
    ):
        header = seed_header()
        for key, value in changes.items():
            setattr(header, key, value)
        write_dicom(folder / f"{name}.dcm", header, picture)
    deep = seed_header()
    for _ in range(30):
        inner = Dataset()
        inner.DetectorInformationSequence = deep.DetectorInformationSequence
        deep.DetectorInformationSequence = [inner]
    write_dicom(folder / "nested.dcm", deep, picture)
    whole = (folder / "deflated.dcm").read_bytes()
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(2**15)) + packer.flush()
    meta = 144 + struct.unpack("<I", whole[140:144])[0]
    (folder / "deflate_bomb.dcm").write_bytes(whole[:meta] + bomb)
    (folder / "truncated.dcm").write_bytes((folder / "explicit.dcm").read_bytes()[:-9])


def seed_header() -> Dataset:
    """Two frames of 4 x 4, with UIDs that are the same in every run."""
    header = nm_header(2, Rows=4, Columns=4, PatientName="SEED", PatientID="SEED")
    header.SOPInstanceUID = generate_uid(entropy_srcs=["image"])
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    return header


def nifti(folder: Path) -> None:
    """Plain, packed, without forms, cut short, and a bomb."""
    plain = write_nifti(folder / "plain.nii", "LAS", np.uint8).read_bytes()
    (folder / "packed.nii").write_bytes(gzip.compress(plain, mtime=0))
    write_nifti(folder / "unformed.nii", "RAS", np.uint8, sform=0, qform=0)
    (folder / "truncated.nii").write_bytes(gzip.compress(plain, mtime=0)[:-40])
    (folder / "short.nii").write_bytes(plain[:100])
    huge = plain[:42] + struct.pack("<3h", 512, 512, 256) + plain[48:352] + bytes(2**22)
    (folder / "bomb.nii").write_bytes(gzip.compress(huge, mtime=0))


def pictures(folder: Path) -> None:
    """Each format behind the byte that tells it; a PNG that declares a bomb; a pickled array."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for name, content, kind in (
        ("grey8.png", picture.astype(np.uint8), "png"), ("grey16.png", picture, "png"),
        ("grey16.tif", picture, "tiff"), ("float.tif", picture.astype(np.float32), "tiff"),
        ("packed.tif", picture, "tiff"), ("colour.png", np.zeros((4, 4, 3), np.uint8), "png"),
    ):  # fmt: skip
        stream = io.BytesIO()
        options = {"compression": "tiff_adobe_deflate"} if name == "packed.tif" else {}
        Image.fromarray(content).save(stream, kind, **options)
        (folder / name).write_bytes((b"\0" if kind == "png" else b"\1") + stream.getvalue())
    for name, array in (
        ("array.npy", picture.astype(np.float32)), ("objects.npy", np.array([[{"a": 1}]])),
    ):  # fmt: skip
        stream = io.BytesIO()
        np.save(stream, array)
        (folder / name).write_bytes(b"\3" + stream.getvalue())
    (folder / "bomb.png").write_bytes(b"\0" + png(60000, 60000, bytes(60001 * 64)))
    (folder / "wide.png").write_bytes(b"\0" + png(2**31 - 1, 2**31 - 1, b""))
    header = b"\x93NUMPY\x01\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999)}"
    (folder / "absurd.npy").write_bytes(b"\3" + header.ljust(127) + b"\n" + bytes(64))


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG of 8 bits that declares this size, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


if __name__ == "__main__":
    dicom(SEEDS / "dicom")
    nifti(SEEDS / "nifti")
    pictures(SEEDS / "pictures")
