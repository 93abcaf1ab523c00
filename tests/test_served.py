"""The served form: what the trained generator makes, row by row alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastgan_aug.gan.appearance import COARSE, Appearance
from fastgan_aug.gan.descriptors import resampled, resampled_by_products
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.served import ServedGenerator
from fastgan_aug.gan.settings import NetworkConfig
from fastgan_aug.gan.synthesizer import CHUNK

SMALL = {"latent": 8, "embedding": 8, "generator_width": 4, "discriminator_width": 4}
NETWORKS = {
    "paper": NetworkConfig(size=32, **SMALL),
    "without noise": NetworkConfig(size=128, noise=False, unit_maximum=True, **SMALL),
    "demo": NetworkConfig(size=64, folded=True, unit_maximum=True, appearance=True, **SMALL),
}
CONDITION, CELLS, ROWS = 4, 2, CHUNK  # fewer rows are never served


@pytest.fixture(params=NETWORKS)
def generator(request) -> Generator:
    """As if trained: nothing in it is 0, 1 or symmetric."""
    network = NETWORKS[request.param]
    appearance = Appearance(network.size, CELLS, CONDITION) if network.appearance else None
    made = Generator(network, CONDITION, appearance)
    random = torch.Generator().manual_seed(0)
    for name, value in made.named_parameters():
        value.data.normal_(0, 0.3, generator=random)
        if "gain" in name:
            value.data.fill_(0.3)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=random)
            module.running_var.uniform_(0.5, 2, generator=random)
    if appearance is not None:
        appearance.mean.uniform_(0.1, 0.7, generator=random)
        appearance.basis.normal_(0, 1 / COARSE, generator=random)
        appearance.cell_mean[:, -4:] = torch.tensor([1.5, 0.1, -0.1, -2.5])
    return made.eval().requires_grad_(False)


def asked(generator: Generator) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(ROWS, generator.latent_size, generator=random)
    return latents, torch.eye(CONDITION)[torch.arange(ROWS) % CONDITION]


def test_it_makes_what_the_generator_makes(generator: Generator) -> None:
    latents, condition = asked(generator)
    theirs, ours = generator(latents, condition), ServedGenerator(generator)(latents, condition)
    assert theirs.std() > 0.01
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5


def test_an_image_does_not_depend_on_its_row(generator: Generator) -> None:
    latents, condition = asked(generator)
    served = ServedGenerator(generator)
    images = served(latents, condition)
    for turn in range(1, ROWS):
        turned = served(latents.roll(turn, 0), condition.roll(turn, 0))
        assert torch.equal(turned.roll(-turn, 0), images)


def test_pixels_are_taken_from_the_same_places_by_products() -> None:
    random = torch.Generator().manual_seed(2)
    images = torch.rand(3, 16, 16, generator=random)
    rows, columns = (20 * torch.rand(3, 16, generator=random) - 2 for _ in range(2))
    there = resampled(images, rows, columns)
    assert (resampled_by_products(images, rows, columns) - there).abs().max() <= 1e-5
