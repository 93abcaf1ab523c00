from __future__ import annotations

import numpy as np
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


# -- pairs and penalty ----------------------------------------------------------------------------


def test_pairs_lose_by_their_difference_alone() -> None:
    random = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(4, 5, 5, generator=random) for _ in range(2))
    of_d, nothing, of_g = losses.adversarial_losses(real, fake, relativistic=True)
    expected = torch.log1p(torch.exp(-(real - fake))).mean()
    assert of_d.item() == pytest.approx(expected.item(), rel=1e-5)
    assert nothing.item() == 0
    # Swapped, they are each other's; by how much all logits are shifted is the same to both.
    swapped, _, back = losses.adversarial_losses(fake + 3, real + 3, relativistic=True)
    torch.testing.assert_close((swapped, back), (of_g, of_d))
    # log(1 + e^-x) and log(1 + e^x) differ by x: the sign of the argument, and nothing else.
    assert (of_g - of_d).item() == pytest.approx((real - fake).mean().item(), abs=1e-5)
    # Row by row: another pairing of the same logits is another loss.
    other = losses.relativistic_loss(real, fake.flip(0))
    assert abs(other.item() - of_d.item()) > 1e-3


def test_without_pairs_the_losses_are_the_papers() -> None:
    real, fake = torch.randn(4, 5, 5), torch.randn(4, 5, 5)
    found = losses.adversarial_losses(real, fake, relativistic=False)
    expected = losses.real_loss(real), losses.fake_loss(fake), losses.generator_loss(fake)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def signs(rows: int, seed: int = 0) -> torch.Tensor:
    return (
        torch.randint(0, 2, (rows, 1, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    )


def test_a_constant_is_not_steep_and_a_line_is_by_the_square_of_its_slope() -> None:
    images, slope = torch.zeros(20_000, 1, 8, 8), torch.linspace(-1, 1, 64).reshape(8, 8)
    nudged = images + losses.NUDGE * signs(len(images))

    def line(x: torch.Tensor) -> torch.Tensor:
        return (x * slope).sum((2, 3), keepdim=True)[:, 0]

    assert losses.steepness(torch.ones(9, 5, 5), torch.ones(9, 5, 5)).item() == 0
    exact = slope.square().sum().item()
    assert losses.steepness(line(images), line(nudged)).item() == pytest.approx(exact, rel=0.03)


def test_steepness_of_a_smooth_function_is_its_exact_gradients_norm() -> None:
    random = torch.Generator().manual_seed(1)
    weights = torch.randn(64, 6, generator=random) / 8
    image = torch.randn(1, 1, 8, 8, generator=random) / 2

    def smooth(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.flatten(1) @ weights)[:, :, None]

    given = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(smooth(given).mean((1, 2)).sum(), given)
    rows = image.expand(20_000, -1, -1, -1)
    found = losses.steepness(smooth(rows), smooth(rows + losses.NUDGE * signs(len(rows))))
    assert found.item() == pytest.approx(gradient.square().sum().item(), rel=0.05)


# -- energy distance -----------------------------------------------------------------------------

CONDITION = torch.eye(2)[[0, 0, 0, 0, 1, 1, 1, 1]]


def slices(random: np.random.Generator, spread: float = 1.0, rows: int = 8) -> torch.Tensor:
    """(rows, 1, 32, 32): a smooth pattern of random strength, so that views at all scales vary."""
    base = np.outer(np.hanning(32), np.linspace(0, 1, 32))
    strength = 0.3 + spread * 0.1 * random.standard_normal((rows, 1, 1, 1))
    return torch.from_numpy((strength * base).astype(np.float32) * 2 - 1)


def views(images: torch.Tensor) -> list[torch.Tensor]:
    """The slices at two resolutions, and their means."""
    scales = [torch.nn.functional.avg_pool2d(images, size) for size in (2, 8, 32)]
    return [scale.flatten(1) for scale in scales]


def energy(real: torch.Tensor, fake: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    return losses.energy_distance(views(real), views(fake), condition)


def brute_force(real: torch.Tensor, fake: torch.Tensor, condition: torch.Tensor) -> float:
    """Pair by pair in float64, by the definition."""
    total, rows = 0.0, range(len(real))
    same = [(i, j) for i in rows for j in rows if torch.equal(condition[i], condition[j])]
    others = [(i, j) for i, j in same if i != j]
    for x, y in zip(views(real), views(fake), strict=True):
        x, y = x.double().numpy(), y.double().numpy()
        among = {(i, j): float(np.linalg.norm(x[i] - x[j])) for i, j in others}
        overall = np.mean(list(among.values()))
        for i, j in same:
            own = [d for (k, _), d in among.items() if torch.equal(condition[i], condition[k])]
            spread = max((sum(own) + 2 * overall) / (len(own) + 2), overall / 4)
            total += 2 * np.linalg.norm(x[i] - y[j]) / spread / len(same)
            if i != j:
                within = np.linalg.norm(y[i] - y[j]) + among[i, j]
                total -= within / spread / len(others)
    return float(total)


def test_energy_distance_is_the_definition() -> None:
    random = np.random.default_rng(0)
    real = torch.from_numpy(random.uniform(-1, 1, (8, 1, 32, 32)).astype(np.float32))
    fake = torch.from_numpy(random.uniform(-1, 0.5, (8, 1, 32, 32)).astype(np.float32))
    value = energy(real, fake, CONDITION).item()
    assert value == pytest.approx(brute_force(real, fake, CONDITION), rel=1e-3)


def test_energy_distance_finds_a_spread_that_is_too_small_or_too_large() -> None:
    """The means are right: only the spread differs, which no single slice shows."""

    def mean(spread: float) -> float:
        draws = [
            energy(slices(r), slices(r, spread), CONDITION).item()
            for r in map(np.random.default_rng, range(300))
        ]
        return float(np.mean(draws))

    assert mean(1.0) < min(mean(0.3), mean(2.5))


def test_energy_distance_pushes_alike_slices_apart() -> None:
    """Its gradient widens a batch that is too alike."""
    random = np.random.default_rng(1)
    real = slices(random, rows=64)
    fake = slices(random, 0.2, rows=64).requires_grad_()
    energy(real, fake, torch.ones(64, 1)).backward()
    assert fake.grad is not None
    strength = fake.detach().amax((1, 2, 3))
    direction = (fake.grad * (fake.detach() + 1)).sum((1, 2, 3))
    weak, strong = strength < strength.median(), strength > strength.median()
    assert direction[weak].mean() > 0 > direction[strong].mean()


def test_energy_distance_of_cells_of_one_slice_says_nothing() -> None:
    fake = torch.rand(3, 1, 32, 32, requires_grad=True)
    value = energy(torch.rand(3, 1, 32, 32), fake, torch.eye(3))
    value.backward()
    assert value.item() == 0
    assert fake.grad is not None
    assert torch.isfinite(fake.grad).all()
