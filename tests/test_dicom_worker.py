from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from clinical import nm_header, truth, write_nm
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from fastgan_aug.data.importers.dicom_worker import DicomWorker
from fastgan_aug.errors import DataError, IdentifiableData

NAME = "DOE_JANE"


def deflated(path: Path, content: bytes) -> Path:
    """A DICOM file whose data set is this raw deflate stream."""
    header = nm_header()
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with path.open("wb") as stream:
        stream.write(bytes(128) + b"DICM")
        write_file_meta_info(stream, header.file_meta, enforce_standard=False)
        stream.write(content)
    return path


def test_one_reader_serves_many_files(tmp_path: Path):
    path = write_nm(tmp_path / "a.dcm")
    with DicomWorker() as worker:
        for _ in range(20):
            assert worker.header(path)["frames"] == 6
            np.testing.assert_array_equal(worker.voxels(path), truth())
        assert worker.started == 1


def test_what_leaves_is_an_allow_list(tmp_path: Path):
    path = write_nm(
        tmp_path / "a.dcm", PatientBirthDate="19520101", StudyDate="20200101",
        StudyDescription=NAME, ReferringPhysicianName=NAME, DeviceSerialNumber=NAME,
        SeriesInstanceUID="1.2.3", SOPInstanceUID="1.2.4",  # a random one may hold any four digits
    )  # fmt: skip
    with DicomWorker() as worker:
        fields = worker.header(path)
    assert set(fields) == {
        "patient", "issuer", "series", "instance", "frames", "rows", "columns", "orientation",
        "position", "spacing", "between", "places", "slope", "intercept", "unit", "synthetic",
        "eight_bit", "lossy", "capture", "bytes",
    }  # fmt: skip
    assert NAME not in repr(fields)
    assert "1952" not in repr(fields)


def test_a_refusal_has_its_type_and_no_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    burned = write_nm(tmp_path / f"{NAME}.dcm", BurnedInAnnotation="YES", PatientID=NAME)
    (tmp_path / NAME).write_bytes(b"junk")
    with DicomWorker() as worker:
        with pytest.raises(IdentifiableData) as caught:
            worker.header(burned)
        for path in (tmp_path / NAME, tmp_path / "missing" / NAME, tmp_path):
            with pytest.raises(DataError) as other:
                worker.header(path)
            assert NAME not in str(other.value)
        assert worker.started == 1
    assert NAME not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_hangs_is_stopped_and_the_next_file_read(tmp_path: Path):
    os.mkfifo(tmp_path / NAME)  # opening it for reading waits for a writer
    good = write_nm(tmp_path / "a.dcm")
    with DicomWorker(seconds=1.5) as worker:
        before = time.monotonic()
        with pytest.raises(DataError, match="was stopped") as caught:
            worker.header(tmp_path / NAME)
        assert time.monotonic() - before < 5
        assert worker.header(good)["frames"] == 6
        assert worker.started == 2
    assert caught.value.__cause__ is None
    assert NAME not in str(caught.value)


def test_a_reader_that_died_is_started_again(tmp_path: Path):
    good = write_nm(tmp_path / "a.dcm")
    with DicomWorker() as worker:
        worker.header(good)
        assert worker._process is not None
        worker._process.kill()
        worker._process.wait()
        assert worker.header(good)["frames"] == 6
        assert worker.started == 2
        process = worker._process
    assert process is not None
    assert process.poll() is not None, "the reader ends with the import"


def test_a_deflate_bomb_is_refused_in_bounded_memory(tmp_path: Path):
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(2**26)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = deflated(tmp_path / "bomb.dcm", block * 48 + packer.flush())  # 3 GiB of zeros
    assert bomb.stat().st_size < 2**22
    good = write_nm(tmp_path / "a.dcm")
    with DicomWorker() as worker:
        with pytest.raises(DataError, match=r"memory|stopped"):
            worker.header(bomb)
        assert worker.header(good)["frames"] == 6


@pytest.mark.parametrize("depth", [100, 20_000])
def test_nested_sequences_end(tmp_path: Path, depth: int):
    tag = struct.pack("<HH", 0x0054, 0x0022)
    opened = tag + b"SQ\0\0" + b"\xff" * 4 + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closed = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = packer.compress(opened * depth + closed * depth) + packer.flush()
    path = deflated(tmp_path / "deep.dcm", content)
    good = write_nm(tmp_path / "a.dcm")
    with DicomWorker(seconds=20) as worker:
        with pytest.raises(DataError):
            worker.header(path)
        assert worker.header(good)["frames"] == 6
