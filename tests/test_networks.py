from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastgan_aug.gan.networks import Binomial, Discriminator, Generator, crop_positions
from fastgan_aug.gan.settings import NetworkConfig

TINY = NetworkConfig(size=32, latent=4, embedding=8, generator_width=4, discriminator_width=4)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_shapes_at_every_size(size: int, folded: bool) -> None:
    config = replace(TINY, size=size, folded=folded)
    generator, discriminator = Generator(config, 5), Discriminator(config, 5)
    condition = torch.eye(5)[:2]
    images = generator(torch.randn(2, generator.latent_size), condition)
    assert images.shape == (2, 1, size, size)
    assert images.abs().max() <= 1
    logits, second, third = discriminator(images, condition)
    assert logits.ndim == 3
    assert second.shape[-1] == 2 * third.shape[-1]
    assert crop_positions(size) == second.shape[-1] // 2 + 1
    half = second.shape[-1] // 2
    assert discriminator.crop_decoder(second[:, :, :half, :half]).shape[-1] == 4 * half
    assert discriminator.whole_decoder(third).shape[-1] == min(size, 64)


def test_paper_sizes_are_fastgans() -> None:
    generator = Generator(NetworkConfig(), 6)
    assert generator.embed.in_features == 256 + 6
    assert generator.embed.out_features == 64
    assert [tuple(b.convolutions[0].weight.shape[:2]) for b in generator.up] == [
        (1024, 1024), (512, 512), (256, 256), (256, 128),
    ]  # fmt: skip


def test_condition_and_noise_reach_the_image() -> None:
    generator = Generator(
        NetworkConfig(size=32, latent=4, generator_width=4, discriminator_width=4), 2
    )
    for module in generator.modules():
        if hasattr(module, "gain"):
            torch.nn.init.constant_(module.gain, 0.5)
    generator.eval()
    latents = torch.randn(1, generator.latent_size)
    first = generator(latents, torch.tensor([[1.0, 0.0]]))
    assert not torch.equal(first, generator(latents, torch.tensor([[0.0, 1.0]])))
    other = latents.clone()
    other[:, generator.latent :] += 1
    assert not torch.equal(first, generator(other, torch.tensor([[1.0, 0.0]])))


def test_without_noise_the_latent_is_z_alone() -> None:
    assert Generator(replace(TINY, latent=7, noise=False), 2).latent_size == 7


def test_condition_decides_the_logits() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(NetworkConfig(size=32, discriminator_width=4), 2).eval()
    image = torch.rand(1, 1, 32, 32)
    one, _, _ = discriminator(image, torch.tensor([[1.0, 0.0]]))
    two, _, _ = discriminator(image, torch.tensor([[0.0, 1.0]]))
    assert not torch.equal(one, two)


def test_a_unit_maximum_is_exact() -> None:
    generator = Generator(replace(TINY, unit_maximum=True), 2)
    images = generator(torch.randn(5, generator.latent_size), torch.eye(2)[[0, 1, 0, 1, 1]])
    assert images.amax((1, 2, 3)).tolist() == pytest.approx([1.0] * 5, abs=1e-6)
    assert images.min() >= -1


def test_folded_pixels_leave_no_checkerboard() -> None:
    smooth = Binomial()
    board = torch.ones(1, 1, 8, 8)
    board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1
    torch.testing.assert_close(smooth(board)[..., 1:-1, 1:-1], torch.zeros(1, 1, 6, 6))
    torch.testing.assert_close(smooth(torch.full((1, 1, 8, 8), 0.4)), torch.full((1, 1, 8, 8), 0.4))


@pytest.mark.parametrize("bad", [{"size": 48}, {"latent": 0}, {"generator_width": 6}])
def test_impossible_sizes_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        NetworkConfig(**bad)  # type: ignore[arg-type]
