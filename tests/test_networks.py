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


def judge(**change: bool) -> Discriminator:
    """In eval mode, with weights so large that features do not fade on their way."""
    torch.manual_seed(0)
    network = Discriminator(replace(TINY, **change), 5).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


@pytest.mark.parametrize("change", [{}, {"minibatch_sd": True}, {"folded": True}])
def test_a_projection_is_what_the_logits_hold_of_the_condition(change: dict[str, bool]) -> None:
    """Features are of the image alone; the logits are theirs plus a product that is linear."""
    network = judge(projection=True, **change)
    images = torch.rand(4, 1, 32, 32)
    condition = torch.eye(5)[[0, 0, 1, 1]] + torch.eye(5)[[2, 2, 3, 3]]
    logits, second, third = network(images, condition)
    other, again, too = network(images, condition.flip(0))
    assert torch.equal(second, again)
    assert torch.equal(third, too)
    added = logits - network(images, condition, influence=0.0)[0]
    torch.testing.assert_close(added, added[:, :1, :1].expand_as(added), atol=1e-5, rtol=1e-4)
    assert network.embed is not None
    product = (network.embed(condition) * third.mean((2, 3))).sum(1)
    torch.testing.assert_close(added[:, 0, 0], product, atol=1e-5, rtol=1e-4)
    halves = network.embed(torch.eye(5)[[0]]) + network.embed(torch.eye(5)[[2]])
    torch.testing.assert_close(network.embed(condition[:1]), halves)
    assert not torch.allclose(logits, other)


def test_a_projection_judges_a_row_by_its_own_condition() -> None:
    network = judge(projection=True)
    images, condition = torch.rand(3, 1, 32, 32), torch.eye(5)[:3]
    logits, _, _ = network(images, condition)
    changed, _, _ = network(images, condition[[0, 2, 1]])
    assert torch.equal(logits[0], changed[0])
    assert not torch.equal(logits[1], changed[1])


def test_the_deviation_reaches_the_logits() -> None:
    network = judge(minibatch_sd=True)
    images, condition = torch.rand(4, 1, 32, 32), torch.eye(5)[[0, 0, 1, 1]]
    images[1] = images[0]
    alone, _, _ = network(images[:1], condition[:1])
    logits, _, third = network(images, condition)
    assert third.shape[1] == 8 * TINY.discriminator_width
    torch.testing.assert_close(logits[0], alone[0], atol=1e-4, rtol=1e-4)  # alike: 0, as if alone
    alone, _, _ = network(images[2:3], condition[2:3])
    assert not torch.allclose(logits[2], alone[0], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("projection", [False, True])
def test_without_influence_all_conditions_are_alike(projection: bool) -> None:
    torch.manual_seed(0)
    config = replace(TINY, projection=projection)
    generator, discriminator = Generator(config, 5).eval(), judge(projection=projection)
    latents = torch.randn(1, generator.latent_size).expand(5, -1)
    images = generator(latents, torch.eye(5), 0.0)
    torch.testing.assert_close(images[0], images[1], atol=1e-6, rtol=0)
    logits, _, _ = discriminator(images, torch.eye(5), 0.0)
    torch.testing.assert_close(logits[0], logits[4], atol=1e-5, rtol=1e-5)
    for network, given in ((generator, latents), (discriminator, images)):
        whole, plain = network(given, torch.eye(5), 1.0), network(given, torch.eye(5))
        assert torch.equal(whole[0], plain[0])


def test_a_weakened_condition_is_served_as_it_was_trained() -> None:
    generator = Generator(TINY, 3).eval()
    latents = torch.randn(3, generator.latent_size)
    trained = generator(latents, torch.eye(3), 0.3)
    generator.weaken_condition(0.3)
    torch.testing.assert_close(generator(latents, torch.eye(3)), trained)


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
