from __future__ import annotations

import pytest
import torch

from fastgan_aug.gan import losses
from fastgan_aug.gan.networks import Discriminator
from fastgan_aug.gan.settings import NetworkConfig


def test_hinge_losses_are_the_papers_equations() -> None:
    logits = torch.randn(4, 5, 5, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(())
    assert losses.generator_loss(logits).item() == pytest.approx(-logits.mean().item())  # Eq. 1
    eq2 = -torch.minimum(zero, -1 + logits).mean()
    eq3 = -torch.minimum(zero, -1 - logits).mean()
    assert losses.real_loss(logits).item() == pytest.approx(eq2.item())
    assert losses.fake_loss(logits).item() == pytest.approx(eq3.item())


def test_reconstruction_is_the_l1_of_crop_and_whole() -> None:
    torch.manual_seed(0)
    network = Discriminator(NetworkConfig(size=64, discriminator_width=4), 2).eval()
    images = torch.rand(3, 1, 64, 64) * 2 - 1
    _, second, third = network(images, torch.eye(2)[[0, 1, 0]])
    value = losses.reconstruction_loss(network, images, second, third, (2, 5))
    crop = network.crop_decoder(second[:, :, 2:10, 5:13])
    expected = (crop - images[:, :, 8:40, 20:52]).abs().mean()
    expected += (network.whole_decoder(third) - images).abs().mean()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
