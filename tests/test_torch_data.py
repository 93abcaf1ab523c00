"""The data set for torch: real images first, generated ones after, workers safe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastgan_aug.errors import DataError
from serving.offline import OfflineClient
from serving.torch_data import BalancedDataset
from tests.served import ONE_COUNTS, ONE_FACTOR, lineage, tiny_checkpoint

LABELS = ["ring"] * 4 + ["disc"] * 9 + ["bar"] * 2


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return OfflineClient(tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((15, 32, 32), np.float32)


def test_real_images_come_first_and_every_class_is_filled(client, images):
    data = BalancedDataset.fill(client, images, LABELS, seed=7)
    batch = client.request_balanced_batch(LABELS, seed=7)
    assert len(data) == 27
    assert data.classes == ("ring", "disc", "bar")
    assert torch.bincount(data.targets).tolist() == [9, 9, 9]
    assert data.synthetic.tolist() == [False] * 15 + [True] * 12
    assert data.images[:15, 0].numpy().tobytes() == images.tobytes()
    assert data.images[15:, 0].numpy().tobytes() == batch.images.tobytes()
    image, target = data[3]
    assert image.shape == (1, 32, 32)
    assert (image.dtype, target, data.classes[target]) == (torch.float32, 0, "ring")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_each_once_whatever_its_workers(client, images, workers):
    data = BalancedDataset.fill(client, images, np.asarray(LABELS), seed=7)
    loader = DataLoader(data, batch_size=4, num_workers=workers, multiprocessing_context=(
        "spawn" if workers else None))  # fmt: skip
    parts = list(loader)
    assert torch.equal(torch.cat([x for x, _ in parts]), data.images)
    assert torch.equal(torch.cat([y for _, y in parts]), data.targets)


def test_a_transform_is_applied_when_an_image_is_taken(client, images):
    data = BalancedDataset.fill(client, images, LABELS, transform=lambda image: 1 - image)
    assert torch.equal(data[0][0], 1 - data.images[0])


def test_classes_are_the_values_that_were_counted(tmp_path):
    space = {"level": ["LOW", "HIGH"], "pattern": ["none", "left"]}
    counts = dict.fromkeys(("LOW/none", "LOW/left", "HIGH/none", "HIGH/left"), 5)
    client = OfflineClient(tiny_checkpoint(tmp_path / "checkpoint", lineage(space, counts)))
    real = torch.zeros(4, 1, 32, 32)
    data = BalancedDataset.fill(client, real, ["none", "none", "none", "left"])
    assert data.classes == ("none", "left")
    assert data.targets.tolist() == [0, 0, 0, 1, 1, 1]
    numbered = lineage({"digit": ["0", "1"]}, {"0": 5, "1": 5})
    client = OfflineClient(tiny_checkpoint(tmp_path / "digits", numbered))
    data = BalancedDataset.fill(client, real, torch.tensor([1, 1, 1, 0]))
    assert data.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.classes == ("1", "0")


def test_what_does_not_fit_is_refused(client, images):
    batch = client.request_balanced_batch(LABELS)
    for real, labels in ((images * 255, LABELS), (images[:, 1:], LABELS), (images, LABELS[1:]),
                         (images, ["cross"] * 15)):  # fmt: skip
        with pytest.raises(DataError):
            BalancedDataset(real, labels, batch)
