"""Writes the seeds of the fuzzers anew: small whole files of every format, and damaged ones.

Run as `python tests/fuzz/make_seeds.py` with `tests` on the path.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from clinical import nm_header, write_dicom, write_nifti
from numpy.typing import NDArray
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


def npz(folder: Path) -> None:
    """MedMNIST's layout, stored and packed; a zip bomb, objects, absurd and empty shapes."""
    images, labels = np.arange(192, dtype=np.uint8).reshape(3, 8, 8), np.arange(3, dtype=np.uint8)
    plain = {"train_images.npy": npy(images), "train_labels.npy": npy(labels[:, None])}
    archive(folder / "plain.npz", plain)
    archive(folder / "packed.npz", plain, zipfile.ZIP_DEFLATED)
    archive(folder / "bomb.npz", plain | {
        "train_images.npy": npy_header((2**20, 28, 28)) + bytes(2**22),
    }, zipfile.ZIP_DEFLATED)  # fmt: skip
    archive(folder / "objects.npz", plain | {
        "train_labels.npy": npy_header((3,), "|O") + pickle.dumps([{"a": 1}] * 3),
    })  # fmt: skip
    archive(folder / "absurd.npz", plain | {"train_images.npy": npy_header((2**40,) * 3)})
    archive(folder / "empty.npz", plain | {"train_images.npy": npy_header((0, 8, 8))})
    (folder / "truncated.npz").write_bytes((folder / "packed.npz").read_bytes()[:-30])


def archive(path: Path, entries: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> None:
    """A zip archive whose bytes are the same in every run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", packed) as made:
        for name, content in entries.items():
            made.writestr(zipfile.ZipInfo(name), content, compress_type=packed)


def npy(array: NDArray[Any]) -> bytes:
    """An array as ``.npy``."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npy_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """What stands before the values, whatever follows."""
    stream = io.BytesIO()
    declared = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, declared)
    return stream.getvalue()


def labels(folder: Path) -> None:
    """A table; quotes, commas and NUL where they do not belong; long cells, other encodings."""
    folder.mkdir(parents=True, exist_ok=True)
    header = b"file,kind,patient_id\n"
    for name, content in (
        ("plain", header + b"a.png,x,p\nb.npy,,q\n"),
        ("quoted", header + b'"a,b.png",x,"p\nq"\n'),
        ("comma", header + b"a.png,p, q,x\nb.png,x,p\n"),
        ("short", header + b"a.png\nb.png,x,p\n"),
        ("open_quote", header + b'a.png,"x,p\n' * 3),
        ("twice", b"file,kind,patient_id,kind\na.png,x,p,y\n"),
        ("nul", header + b"a\0.png,x,p\0\n\0\n"),
        ("long", header + b"a" * 5000 + b".png,x,p\n" + b"../" * 2000 + b",x,p\n"),
        ("too_long", header + b"a.png," + b"x" * 140_000 + b",p\n"),
        ("latin", header + b"\xe4.png,x,p\n"),
        ("utf16", header.decode().encode("utf-16")),
        ("marked", b"\xef\xbb\xbf" + header + b"a.png,x,p\r\n"),
        ("empty", b""),
    ):
        (folder / f"{name}.csv").write_bytes(content)


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
    npz(SEEDS / "npz")
    labels(SEEDS / "labels")
