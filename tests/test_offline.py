"""Without a service: the same calls, the same images, byte by byte; and the files they become."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from fastgan_aug.data.importers.dicom import import_dicom
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.errors import CheckpointError, DataError, UnknownCell, UnseenCell
from serving.client import Client
from serving.offline import OfflineClient
from serving.server.app import create_app
from tests.served import (
    TWO_COUNTS,
    TWO_FACTORS,
    FolderModels,
    InProcess,
    lineage,
    tiny_checkpoint,
)

COUNTS = {"none": 30, "left": 12, "both": 25}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return tiny_checkpoint(folder, lineage(TWO_FACTORS, TWO_COUNTS))


@pytest.fixture(scope="module")
def client(checkpoint):
    return OfflineClient(checkpoint)


@pytest.fixture(scope="module")
def batch(client):
    return client.request_balanced_batch(COUNTS, seed=7)


def test_it_answers_as_the_service_byte_by_byte(checkpoint, batch):
    with Client(transport=InProcess(create_app(FolderModels(checkpoint)))) as service:
        served = service.request_balanced_batch(COUNTS, seed=7)
        plan = service.plan(COUNTS, seed=7)
    assert served.images.tobytes() == batch.images.tobytes()
    assert served.cells == batch.cells
    assert served.plan == batch.plan == plan.plan
    for name in ("seeds", "index", "unseen"):
        np.testing.assert_array_equal(getattr(served, name), getattr(batch, name))
    assert served.provenance.checkpoint == batch.provenance.checkpoint
    assert served.provenance.engine == batch.provenance.engine


def test_another_process_makes_the_same_bytes(checkpoint, batch, tmp_path):
    code = (
        "import sys, json, pathlib; from serving.client import Client;"
        "client, counts = Client.offline(sys.argv[1]), json.loads(sys.argv[2]);"
        "batch = client.request_balanced_batch(counts, seed=7);"
        "pathlib.Path(sys.argv[3]).write_bytes(batch.images.tobytes())"
    )
    out = tmp_path / "images"
    subprocess.run(
        [sys.executable, "-c", code, str(checkpoint), json.dumps(COUNTS), str(out)],
        check=True, timeout=120,
    )  # fmt: skip
    assert out.read_bytes() == batch.images.tobytes()


def test_any_number_of_threads_makes_the_same_bytes(checkpoint, batch):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            again = OfflineClient(checkpoint, threads=threads)
            made = again.request_balanced_batch(COUNTS, seed=7)
            assert made.images.tobytes() == batch.images.tobytes()
    finally:
        torch.set_num_threads(before)


def test_batches_plan_and_errors_are_the_services(client, batch):
    parts = list(client.iter_batches(COUNTS, seed=7, batch_size=10))
    assert b"".join(part.images.tobytes() for part in parts) == batch.images.tobytes()
    assert client.plan(COUNTS, seed=7).plan == batch.plan
    assert client.model()["training_counts"] == TWO_COUNTS
    with client as same:
        assert same.ready()
    with pytest.raises(UnknownCell):
        client.request_balanced_batch({"odd": 1})
    with pytest.raises(UnseenCell):
        client.plan({"LOW/both": 1}, 2)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError):
        Client.offline(tmp_path)


def test_keys_are_what_was_counted(batch):
    assert set(batch.keys) == {"left", "both"}
    assert batch.classes == ("none", "left", "both")
    assert [key in cell.split("/") for key, cell in zip(batch.keys, batch.cells, strict=True)]
    _, classes = batch.to_torch()
    assert [batch.classes[i] for i in classes] == batch.keys


def read_back(read, folder):
    taken = read(
        folder, folder / "labels.csv", factors=list(TWO_FACTORS), values=TWO_FACTORS, size=32,
        key=PseudonymKey(bytes(32)),
    )  # fmt: skip
    assert not taken.refused
    return taken.dataset


def check(again, batch, full: float) -> None:
    """Every image came back: within half a step of 16 bits of its counts, and marked."""
    assert [str(cell) for cell in again.cells] == batch.cells
    assert again.column("synthetic").all()
    scale = again.column("scale").astype(np.float64)[:, None, None]
    np.testing.assert_allclose(again.images * scale / full, batch.images, atol=0.6 / 65535)


@pytest.fixture(scope="module")
def varied(batch):
    """Other pixels: a generator that was never fitted makes images of one grey."""
    images = np.random.default_rng(0).random(batch.images.shape, np.float32)
    return replace(batch, images=images)


def test_a_folder_of_pictures_comes_back_by_the_importer(varied, tmp_path):
    varied.to_folder(tmp_path / "out")
    picture = Image.open(tmp_path / "out" / "images" / "000000.png")
    assert (picture.mode, picture.text["Synthetic"]) == ("I;16", "YES")
    check(read_back(import_folder, tmp_path / "out"), varied, 65535)


def test_dicom_files_say_that_they_are_synthetic_and_come_back(varied, tmp_path):
    varied.to_dicom(tmp_path / "out")
    files = sorted((tmp_path / "out").glob("*.dcm"))
    assert len(files) == len(varied)
    for file, seed in zip(files, varied.seeds, strict=True):
        read = pydicom.dcmread(file)
        assert read.SyntheticData == "YES"
        assert "SYNTHETIC DATA, NOT FOR DIAGNOSIS" in read.ImageComments
        assert str(seed) in read.ImageComments
    check(read_back(import_dicom, tmp_path / "out"), varied, 1)


def test_nothing_is_no_export(client, tmp_path):
    empty = client.request_balanced_batch({"none": 5})
    with pytest.raises(DataError):
        empty.to_folder(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
