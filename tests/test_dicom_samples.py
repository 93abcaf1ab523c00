"""Every sample file of pydicom and of its package of larger samples, none of which is fetched."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import data_store
import numpy as np
import pydicom
import pytest

from fastgan_aug.data.importers.dicom_worker import DicomWorker
from fastgan_aug.data.importers.gathering import numbered_files
from fastgan_aug.errors import DataError, IdentifiableData

LARGER = Path(data_store.__file__).parent / "data"
FOLDERS = (LARGER, Path(pydicom.__file__).parent / "data" / "test_files")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("JPEG2000_UNC.dcm", "secondary capture"),
        ("JPEG-LL.dcm", "secondary capture"),
    ],
)
def test_the_samples_of_nuclear_medicine_are_refused_for_what_they_are(name: str, why: str):
    """Whole-body images that were captured: neither slices nor free of burned-in text."""
    sample = pydicom.dcmread(LARGER / name, stop_before_pixels=True)
    assert (sample.Modality, sample.ImageType[2]) == ("NM", "WHOLE BODY")
    assert "ConversionType" in sample
    with DicomWorker() as worker, pytest.raises(IdentifiableData, match=why):
        worker.header(LARGER / name)


def test_each_sample_is_read_or_refused_by_one_reader_in_time():
    outcomes: Counter[str] = Counter()
    names = {path.stem for folder in FOLDERS for path in folder.rglob("*") if path.is_file()}
    with DicomWorker(seconds=10) as worker:
        for folder in FOLDERS:
            for _, path in numbered_files(folder):
                before = time.monotonic()
                try:
                    voxels = worker.voxels(path)
                    assert np.isfinite(voxels).all()
                    outcomes["read"] += 1
                except DataError as error:
                    outcomes[error.what] += 1
                assert time.monotonic() - before < 5
        assert worker.started == 1
    assert outcomes["read"] > 30
    assert sum(outcomes.values()) > 200
    assert not any(name in why for name in names if len(name) > 6 for why in outcomes)
    damaged = sum(n for why, n in outcomes.items() if "damaged" in why)
    assert damaged <= 3, outcomes
