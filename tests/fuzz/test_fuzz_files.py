"""Damaged files of every format: only typed errors leave, quickly and in bounded memory."""

from __future__ import annotations

import contextlib
import io
import resource
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastgan_aug.data.importers import dicom_reader
from fastgan_aug.data.importers.dicom_worker import DicomWorker
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.importers.nifti import read_header, read_volume
from fastgan_aug.data.importers.npz import import_npz
from fastgan_aug.data.importers.pictures import IMAGE_SUFFIXES, read_picture
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.errors import DataError, FastGANAugError, UnreadableImage

SEEDS = Path(__file__).parent / "seeds"
BOUNDED = settings(
    max_examples=150, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


def seeds(kind: str) -> list[Path]:
    return sorted((SEEDS / kind).iterdir())


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> bytes:
    """A seed that was cut, had bits flipped, or bytes overwritten by extremes."""
    content = bytearray(draw(st.sampled_from(seeds(kind))).read_bytes())
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        if content and draw(st.booleans()):
            content[place] ^= 1 << draw(st.integers(0, 7))
        else:
            new = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\x7f", b"\0\x80"]))
            content[place : place + len(new)] = new
    if draw(st.booleans()):
        del content[draw(st.integers(min(1, len(content)), len(content))) :]
    return bytes(content)


def dicom(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in its own process nobody hears them
        for pixels in (False, True):
            with contextlib.suppress(dicom_reader.Refused):
                dicom_reader.read(io.BytesIO(content), pixels=pixels)


def nifti(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        volume = read_volume(path, read_header(path))
        assert volume.counts(0).ndim == 2


def picture(path: Path, content: bytes) -> None:
    path = path.with_suffix(IMAGE_SUFFIXES[content[0] % len(IMAGE_SUFFIXES)])
    path.write_bytes(content[1:])
    with contextlib.suppress(UnreadableImage):
        assert read_picture(path).counts.ndim == 2


def npz(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(FastGANAugError):
        found = import_npz(path, size=8)
        assert found.dataset is not None or found.refused


def labels(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with contextlib.suppress(FastGANAugError):
        found = import_folder(path.parent, path, factors=["kind"], key=PseudonymKey(bytes(32)))
        assert found.dataset is None, "there are no images"


@BOUNDED
@given(content=damaged("dicom"))
def test_damaged_dicom(content: bytes):
    dicom(content)


@BOUNDED
@given(content=damaged("nifti"))
def test_damaged_nifti(content: bytes, tmp_path: Path):
    nifti(tmp_path / "a.nii", content)


@BOUNDED
@given(content=damaged("pictures"))
def test_damaged_pictures(content: bytes, tmp_path: Path):
    picture(tmp_path / "a", content)


@BOUNDED
@given(content=damaged("npz"))
def test_damaged_archives(content: bytes, tmp_path: Path):
    npz(tmp_path / "a.npz", content)


@BOUNDED
@given(content=damaged("labels"))
def test_damaged_labels(content: bytes, tmp_path: Path):
    labels(tmp_path / "labels.csv", content)


@pytest.mark.parametrize("kind", ["dicom", "nifti", "pictures", "npz", "labels"])
def test_every_seed_in_time_and_bounded_memory(kind: str, tmp_path: Path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in seeds(kind):
        started = time.monotonic()
        if kind == "dicom":
            dicom(path.read_bytes())
        elif kind == "nifti":
            nifti(tmp_path / "a.nii", path.read_bytes())
        elif kind == "npz":
            npz(tmp_path / "a.npz", path.read_bytes())
        elif kind == "labels":
            labels(tmp_path / "labels.csv", path.read_bytes())
        else:
            picture(tmp_path / "a", path.read_bytes())
        assert time.monotonic() - started < 5, path.name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024


def test_every_seed_goes_through_the_limited_process():
    with DicomWorker(seconds=10) as worker:
        for path in seeds("dicom"):
            with contextlib.suppress(DataError):
                worker.voxels(path)
        assert worker.started == 1
