"""Reading one grey picture (PNG, TIFF, ``.npy``) whose declared size is checked before decoding."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import UnreadableImage

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
# 128 MiB as float64. A file of a few kilobytes may declare any size.
MAX_PIXELS = 4096**2


@dataclass(frozen=True)
class Picture:
    """One file.

    Attributes:
        counts: (R, C) float64.
        eight_bit: Whether the file had eight bits.
        synthetic: Whether it is marked as this project's exports are.
    """

    counts: NDArray[np.float64]
    eight_bit: bool
    synthetic: bool = False


def read_picture(path: Path) -> Picture:
    """Reads one picture.

    Raises:
        UnreadableImage: it is missing, damaged, coloured, too large or not two-dimensional. The
            error shows neither the path nor the decoder's own words, which may name it.
    """
    if not path.is_file():
        raise _refusal("there is no file of that name")
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise _refusal("its type is another")
    try:
        return _read_npy(path) if suffix == ".npy" else _read_pillow(path)
    except UnreadableImage:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise _refusal(f"it cannot be decoded ({type(error).__name__})") from None


def _read_npy(path: Path) -> Picture:
    # Mapped, so that nothing is allocated for what a header merely declares; a header that
    # declares more than the file holds, or objects (a pickle), is refused by numpy.
    values = np.lib.format.open_memmap(path, mode="r")
    if values.dtype.kind not in "uif" or values.dtype.itemsize > 8:
        raise _refusal(f"its type is {values.dtype.kind}{values.dtype.itemsize}")
    if values.ndim != 2:
        raise _refusal(f"it has {values.ndim} dimensions")
    _check_size(values.shape)
    return Picture(np.array(values, np.float64), values.dtype == np.uint8)


def _read_pillow(path: Path) -> Picture:
    from PIL import Image

    # At DEBUG it logs the text of a file's tags.
    logging.getLogger("PIL").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning may quote metadata of the file
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=("PNG", "TIFF")) as picture:
            _check_size((picture.height, picture.width))
            # Colours and palettes are no counts; their order need not follow brightness.
            if picture.mode not in ("L", "F", "I") and not picture.mode.startswith("I;16"):
                raise _refusal(f"its mode is {picture.mode!r}")
            if getattr(picture, "is_animated", False):
                raise _refusal("it holds several pictures")
            marked = picture.info.get("Synthetic") == "YES"
            return Picture(np.asarray(picture, np.float64), picture.mode == "L", marked)


def _check_size(shape: tuple[int, ...]) -> None:
    if not 0 < shape[0] * shape[1] <= MAX_PIXELS or min(shape) < 2:
        raise _refusal(f"its size is {shape[0]} x {shape[1]}")


def _refusal(why: str) -> UnreadableImage:
    return UnreadableImage(
        why,
        allowed="a grey image of one page, PNG or TIFF of 8 or 16 bit or .npy, at most "
        f"{MAX_PIXELS} pixels",
        do="export the slice again, or remove its row from the CSV",
    )
