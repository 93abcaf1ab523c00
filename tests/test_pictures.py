from __future__ import annotations

import io
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fastgan_aug.data.importers.pictures import MAX_PIXELS, read_picture
from fastgan_aug.errors import UnreadableImage

GREY = np.arange(64, dtype=np.uint16).reshape(8, 8)
NAME = "DOE_JANE"


def png(width: int, height: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A grey PNG of 8 bits that declares this size, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    text = chunk(b"zTXt", extra) if extra else b""
    data = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + text + data


def npy(shape: str, kind: str = "<f8", content: bytes = bytes(64)) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\0v\0" + header.ljust(117) + b"\n" + content


def refused(path: Path) -> str:
    """Why; reading takes neither long nor much memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(UnreadableImage) as caught:
        read_picture(path)
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
    assert NAME not in str(caught.value)
    return caught.value.what


@pytest.mark.parametrize(
    ("suffix", "content", "why"),
    [
        ("png", png(60000, 60000, bytes(60001 * 64)), "decoded"),
        ("png", png(5000, 5000, bytes(5001 * 5000)), "5000 x 5000"),
        ("png", png(20000, 10000, b""), "decoded"),
        ("png", png(2**31 - 1, 2**31 - 1, b""), "decoded"),
        ("png", png(0, 8, b""), ""),
        ("png", png(8, 1, bytes(9)), "1 x 8"),
        ("png", png(8, 8, bytes(10)), "decoded"),
        ("png", png(8, 8, bytes(72), b"a\0\0" + zlib.compress(bytes(2**27), 9)), "decoded"),
        ("npy", npy("(99999, 99999)"), "decoded"),
        ("npy", npy("(10**9, 10**9)"), "decoded"),
        ("npy", npy("(-8, 8)"), ""),
        ("npy", npy("(8,)"), "1 dimensions"),
        ("npy", npy("(0, 8)"), ""),
        ("npy", npy("(2, 2)", "<c16"), "c16"),
        ("npy", npy("(2, 2)", "|O"), "decoded"),
        ("npy", npy("(2, 2)", "|S4"), "S4"),
        ("tif", b"II*\0\x08\0\0\0\xff\xff", "decoded"),
        ("gif", b"GIF89a", "another"),
    ],
)  # fmt: skip
def test_bombs_and_damage_are_refused_at_once(
    tmp_path: Path, suffix: str, content: bytes, why: str
):
    path = tmp_path / f"{NAME}.{suffix}"
    path.write_bytes(content)
    assert why in refused(path)


def test_a_bomb_among_arrays_is_not_read(tmp_path: Path):
    np.lib.format.open_memmap(
        tmp_path / f"{NAME}.npy", "w+", np.uint8, (MAX_PIXELS // 1024 + 1, 1024)
    )
    assert "its size is" in refused(tmp_path / f"{NAME}.npy")


def test_one_format_under_the_suffix_of_another_is_read_or_refused(tmp_path: Path):
    Image.fromarray(GREY).save(tmp_path / "a.tif", "png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").counts, GREY)
    Image.fromarray(GREY.astype(np.uint8)).save(tmp_path / f"{NAME}.png", "jpeg")
    assert "decoded" in refused(tmp_path / f"{NAME}.png")
    np.savez(tmp_path / "b.npz", GREY)
    (tmp_path / "b.npz").rename(tmp_path / f"{NAME}.npy")
    assert "decoded" in refused(tmp_path / f"{NAME}.npy")


def test_several_pages_are_refused(tmp_path: Path):
    page = Image.fromarray(GREY)
    page.save(tmp_path / f"{NAME}.tif", save_all=True, append_images=[page])
    assert "several pictures" in refused(tmp_path / f"{NAME}.tif")


def test_the_mark_of_synthetic_pictures_is_seen(tmp_path: Path):
    told = PngImagePlugin.PngInfo()
    told.add_text("Synthetic", "YES")
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "png", pnginfo=told)
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    assert read_picture(tmp_path / "a.png").synthetic
    Image.fromarray(GREY).save(tmp_path / "b.png")
    assert not read_picture(tmp_path / "b.png").synthetic
