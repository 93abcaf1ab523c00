from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastgan_aug.config import Config, load_config
from fastgan_aug.errors import ConfigError
from fastgan_aug.gan.appearance import DESCRIPTORS, LINEAR, Appearance
from fastgan_aug.gan.appearance_fit import LEAST, calibrate, fit_appearance
from fastgan_aug.gan.batch import Share, TrainingData
from fastgan_aug.gan.checkpoint import write_checkpoint
from fastgan_aug.gan.descriptors import (
    FRAME,
    columns_at,
    midlines,
    resampled,
    side_descriptors,
)
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.step import new_state, share_appearance
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.gan.training import served_generator
from tests import gan_toy
from tests.test_descriptors import heads

# Two factors of two values; the last cell has no slice.
VECTORS = torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
COUNTS = (60, 50, 40, 0)
MEAN = 1  # the second descriptor of the sides is the balance, the first mean counts


def head_data(counts: tuple[int, ...] = COUNTS) -> TrainingData:
    """Heads whose cells differ in brightness (first factor) and in asymmetry (second)."""
    images, cell = heads(sum(counts)), np.repeat(np.arange(len(counts)), counts)
    row = torch.arange(64)[:, None]
    for i, k in enumerate(cell):
        if k >= 2:
            images[i] *= 0.6 + 0.4 * (row < 32)
        if k % 2 == 0:
            images[i] = (images[i] + images[i].flip(-1)) / 2
    images = images / images.amax((1, 2), keepdim=True)
    return TrainingData(
        images[:, None] * 2 - 1, np.arange(len(cell)), cell, VECTORS,
        [np.empty(0, np.int64)] * len(cell), np.asarray([True, False, True, False]),
    )  # fmt: skip


def shaded(data: TrainingData) -> TrainingData:
    """Heads whose inside differs too: in their frame, they are otherwise all but the same."""
    share = np.random.default_rng(5).uniform(-1, 1, (6, len(data.images), 1, 1))
    a, b, c, d, e, f = torch.from_numpy(share.astype(np.float32))
    v, u = torch.linspace(-1, 1, 64)[:, None], torch.linspace(-1, 1, 64)[None]
    shade = 1 + 0.5 * a * v + 0.9 * b * (2 * v**2 - 0.3) + 0.5 * c * u + 1.6 * d * u * v
    shade = shade + 0.9 * e * (4 * u**2 - 0.5) + 0.9 * f * torch.sin(3 * v)
    counts = (data.images[:, 0] + 1) / 2 * shade.clamp_min(0.1)
    counts = counts / counts.amax((1, 2), keepdim=True)
    return replace(data, images=counts[:, None] * 2 - 1)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return head_data()


@pytest.fixture(scope="module")
def model(data: TrainingData) -> Appearance:
    return fit_appearance(data)


def drawn(model: Appearance, cell: int, count: int = 4000) -> torch.Tensor:
    noise = torch.randn(count, DESCRIPTORS, generator=torch.Generator().manual_seed(cell))
    return model.draw(noise, VECTORS[cell].expand(count, -1))


def test_what_is_drawn_is_distributed_as_the_cell(model: Appearance, data: TrainingData) -> None:
    for cell in (0, 1, 2):
        slices = data.images[torch.from_numpy(data.cell == cell)]
        if data.flippable[cell]:
            slices = torch.cat([slices, slices.flip(-1)])
        real, made = model.describe(slices), drawn(model, cell)
        spread = model.cell_sd[cell]
        assert ((made.mean(0) - real.mean(0)) / spread).abs().max() < 0.1
        varying = real.std(0) > 0.2 * model.scale
        ratio = made.std(0)[varying] / real.std(0)[varying]
        # The second cell's asymmetry is borrowed from cells that have none.
        assert ratio.min() > (0.7 if cell == 1 else 0.9)
        assert ratio.max() < (1.3 if cell == 1 else 1.2)


def test_the_picture_is_as_asymmetric_as_the_slice_that_is_wanted(model: Appearance) -> None:
    """Components drawn one by one would add up to far more."""
    wanted = drawn(model, 1, 400)
    counts = model.picture(wanted)[:, 0].clamp(0, 1)
    balance = side_descriptors(counts, midlines(counts))[:, 1]
    asked = wanted[:, LINEAR + 1]
    assert torch.corrcoef(torch.stack([balance, asked]))[0, 1] > 0.9
    assert 0.7 < balance.std() / asked.std() < 1.2


def test_slices_are_described_about_their_own_axis(model: Appearance, data: TrainingData) -> None:
    """A moved slice differs by its place alone."""
    images = data.images[:30]
    columns = torch.arange(64.0).expand(30, -1)
    moved = columns_at((images[:, 0] + 1) / 2, columns - 2)[:, None] * 2 - 1
    before, after = model.describe(images), model.describe(moved)
    torch.testing.assert_close(after[:, -1], before[:, -1] + 2, atol=0.1, rtol=0)
    off = (after - before)[:, :8] / model.scale[:8]
    assert off.abs().max() < 0.3


def test_slices_are_described_in_their_own_frame(model: Appearance, data: TrainingData) -> None:
    """A larger slice at another place differs by its frame alone, and its picture is its own."""
    counts = (data.images[:30, 0] + 1) / 2
    offset = torch.arange(64.0).expand(30, -1) - 31.5
    larger = resampled(counts, (offset - 2) / 1.1 + 31.5, offset / 1.05 + 31.5)[:, None]
    before, after = model.describe(data.images[:30]), model.describe(larger * 2 - 1)
    row, height, width, column = (after - before)[:, -FRAME:].unbind(1)
    about = before[:, -FRAME] * 0.1 + 2  # the row of the middle is moved away by the growth too
    torch.testing.assert_close(row, about, atol=0.25, rtol=0)
    torch.testing.assert_close(height, torch.full((30,), 1.1).log(), atol=0.02, rtol=0)
    torch.testing.assert_close(width, torch.full((30,), 1.05).log(), atol=0.02, rtol=0)
    assert column.abs().max() < 0.3
    off = (after - before)[:, :8] / model.scale[:8]
    assert off.abs().mean() < 0.15
    left = (model.picture(after) - larger).square().mean()
    assert left < 1.5 * (model.picture(before)[:, 0] - counts).square().mean()


def test_pictures_without_an_object_are_not_framed() -> None:
    """Blobs anywhere have no place and size in common that their other parts would follow."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[:64, :64]
    still = np.exp(-np.hypot(row - 40, column - 20) / 6)
    pictures = [
        still + np.exp(-np.hypot(row - 20, column - random.uniform(30, 60)) / 6) for _ in range(60)
    ]
    images = torch.from_numpy(np.asarray(pictures, np.float32))[:, None]
    images = images / images.amax((1, 2, 3), keepdim=True) * 2 - 1
    data = TrainingData(
        images, np.arange(60), np.zeros(60, np.int64), torch.ones(1, 1),
        [np.empty(0, np.int64)] * 60, np.asarray([False]),
    )  # fmt: skip
    model = fit_appearance(data)
    assert model.aligned == 0
    assert not model.describe(images)[:, -FRAME:].any()


def test_numbers_that_go_together_do_so_when_drawn(model: Appearance, data: TrainingData) -> None:
    real = model.describe(data.images[torch.from_numpy(data.cell == 1)])
    varying = real.std(0) > 0.2 * model.scale
    of_real = torch.corrcoef(real[:, varying].T).fill_diagonal_(0)
    of_drawn = torch.corrcoef(drawn(model, 1)[:, varying].T)
    strong = of_real.abs() > 0.8
    assert strong.sum() >= 6
    # Shrunk towards what the other cells say, so weaker, but of the same sign.
    assert ((of_drawn * of_real.sign())[strong] > 0).float().mean() > 0.9
    assert (of_drawn * of_real.sign())[strong].mean() > 0.2


def test_a_cell_without_slices_adds_the_effects_of_its_elements(model: Appearance) -> None:
    """As bright as the cells of its first factor, as asymmetric as those of its second."""
    made = drawn(model, 3)
    assert torch.isfinite(made).all()
    dark, bright = model.cell_mean[2, LINEAR], model.cell_mean[0, LINEAR]
    assert (model.cell_mean[3, LINEAR] - dark).abs() < (model.cell_mean[3, LINEAR] - bright).abs()
    lopsided, even = model.cell_mean[1, LINEAR + 1], model.cell_mean[0, LINEAR + 1]
    balance = model.cell_mean[3, LINEAR + 1]
    assert (balance - lopsided).abs() < (balance - even).abs()


def test_the_picture_of_a_slice_is_the_slice_without_its_details(
    model: Appearance, data: TrainingData
) -> None:
    images = data.images[:40]
    counts = (images + 1) / 2
    picture = model.picture(model.describe(images))
    left = (picture - counts).square().mean()
    assert left < 0.2 * (model.picture(model.cell_mean[:1]) - counts).square().mean()
    residual = model.residuals(images)[0]
    assert (residual @ model.basis.T).abs().max() < 1e-4


def test_the_error_is_nil_for_what_was_wanted_alone(model: Appearance, data: TrainingData) -> None:
    images, condition = data.images[:8], VECTORS[[1] * 8]
    wanted = model.describe(images)
    assert model.error(images, wanted, condition).item() == pytest.approx(0, abs=1e-6)
    one = wanted.clone()
    one[:, LINEAR + 1] += 3 * model.cell_sd[1, LINEAR + 1]
    # Huber's loss of 3 SD, ten times a component's weight.
    assert model.error(images, one, condition).item() == pytest.approx(10 * 2.5 / DESCRIPTORS)


def test_two_fits_are_the_same(model: Appearance, data: TrainingData) -> None:
    again = fit_appearance(data)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("counts", [(1, 0, 0, 0), (LEAST - 1, 2, 0, 0), (3, 3, 3, 3), (9, 0, 0, 1)])
def test_few_slices_are_enough(counts: tuple[int, ...]) -> None:
    model = fit_appearance(head_data(counts))
    for cell in range(4):
        assert torch.isfinite(drawn(model, cell, 50)).all()
    assert (model.cell_sd > 0).all()


class Damped(Generator):
    """Makes what is wanted, but with too little spread."""

    share = 0.75

    def forward(self, latents: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        assert self.appearance is not None
        wanted, mean = self.wanted(latents, condition), self.appearance.cell_mean[1]
        counts = self.appearance.picture(mean + self.share * (wanted - mean))
        return 2 * counts - 1


def components_of(generator: Generator, model: Appearance) -> torch.Tensor:
    noise = torch.randn(2000, generator.latent_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.describe(generator(noise, VECTORS[1].expand(2000, -1)))[:, :LINEAR]


def test_calibration_restores_a_spread_that_is_lost(data: TrainingData) -> None:
    model = fit_appearance(shaded(data))
    network = replace(gan_toy.NETWORK, size=64, appearance=True)
    generator = Damped(network, 4, model).eval()
    leading = [0, 1, LINEAR // 2, LINEAR // 2 + 1]

    def ratio() -> torch.Tensor:
        return (components_of(generator, model).std(0) / model.cell_sd[1, :LINEAR])[leading]

    assert ratio().max() < 0.85
    calibrate(generator, np.random.default_rng(0))
    assert (ratio() - 1).abs().max() < 0.2


def test_calibration_leaves_a_faithful_generator_alone(data: TrainingData) -> None:
    """The chance of the slices it measures is not taken for the generator's fault."""
    model = fit_appearance(shaded(data))
    network = replace(gan_toy.NETWORK, size=64, appearance=True)
    generator = Damped(network, 4, model).eval()
    generator.share = 1.0
    before = model.knots[1, :4].clone()
    calibrate(generator, np.random.default_rng(0))
    off = (model.knots[1, :4] - before) / model.cell_sd[1, :4, None]
    assert off.abs().max() < 0.2  # a picture made finer and coarser again is smoother


def test_slices_can_be_made_of_given_numbers(model: Appearance) -> None:
    network = replace(gan_toy.NETWORK, size=64, appearance=True)
    generator = Generator(network, 4, model).eval()
    latents = torch.randn(6, generator.latent_size, generator=torch.Generator().manual_seed(0))
    condition = model.vectors[[0, 1, 2]].repeat(2, 1)
    with torch.no_grad():
        drawn = generator(latents, condition)
        numbers = generator.wanted(latents, condition)
        assert torch.equal(generator(latents, condition, wanted=numbers), drawn)
        others = generator(latents, condition, wanted=numbers.flip(0))
    assert not torch.equal(others, drawn)


def test_alike_and_constant_slices_have_an_appearance(data: TrainingData) -> None:
    flat = replace(data, images=torch.full_like(data.images, -0.2))
    one = replace(data, images=data.images[:1].expand_as(data.images).clone())
    for odd in (flat, one):
        model = fit_appearance(odd)
        assert torch.isfinite(drawn(model, 1, 50)).all()


def test_one_factor_borrows_from_all_other_cells() -> None:
    data = replace(head_data((0, 60, 0, 60)), vectors=torch.eye(4))
    model = fit_appearance(data)
    real = model.describe(data.images[:60])
    varying = real.std(0) > 0.2 * model.scale
    of_real = torch.corrcoef(real[:, varying].T).fill_diagonal_(0)
    noise = torch.randn(4000, DESCRIPTORS, generator=torch.Generator().manual_seed(0))
    made = model.draw(noise, torch.eye(4)[1].expand(4000, -1))
    strong = of_real.abs() > 0.8
    of_drawn = torch.corrcoef(made[:, varying].T)
    assert (of_drawn * of_real.sign())[strong].mean() > 0.5


def test_components_do_not_hang_on_the_order_of_slices(
    model: Appearance, data: TrainingData
) -> None:
    order = np.random.default_rng(0).permutation(len(data.rows))
    other = fit_appearance(replace(data, rows=data.rows[order]))
    alike = (other.basis * model.basis).sum(1)
    leading = [*range(6), *range(LINEAR // 2, LINEAR // 2 + 6)]
    assert alike[leading].min() > 0.99


@pytest.mark.parametrize(("size", "threads"), [(64, 2), (128, 3)])
def test_an_image_hangs_on_its_own_latent_alone(model: Appearance, size: int, threads: int) -> None:
    """The rows beside it change nothing, at any number of threads."""
    network = replace(gan_toy.NETWORK, size=size, appearance=True)
    torch.manual_seed(0)
    appearance = Appearance(size, 4, 4)
    appearance.load_state_dict(model.state_dict())
    generator = Generator(network, 4, appearance).eval()
    latents, condition = torch.randn(16, generator.latent_size), VECTORS[[0, 1, 2, 3] * 4]
    used = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            whole = generator(latents, condition)
            for by in (1, 5, 9):
                rolled = generator(latents.roll(by, 0), condition.roll(by, 0))
                assert torch.equal(rolled.roll(-by, 0), whole)
    finally:
        torch.set_num_threads(used)


def test_a_checkpoint_brings_its_appearance(data: TrainingData, tmp_path: Path) -> None:
    network = replace(gan_toy.NETWORK, size=64, appearance=True)
    training = replace(gan_toy.TRAINING, appearance_weight=30.0, energy_weight=3.0)
    state = new_state(network, training, 4, torch.device("cpu"), data)
    lineage = replace(
        gan_toy.toy_lineage(network),
        space={"level": ["high", "low"], "pattern": ["even", "lopsided"]},
        class_counts={
            "high/even": 60, "high/lopsided": 50, "low/even": 40, "low/lopsided": 0
        },
    )  # fmt: skip
    served = served_generator(state, data, training)
    write_checkpoint(tmp_path / "images-000000000", state, served, lineage)
    synthesizer = Synthesizer.load(tmp_path / "images-000000000")
    made = synthesizer.generate([synthesizer.space.cells[1]] * 3, np.arange(3, dtype=np.uint64))
    assert made.shape == (3, 64, 64)
    assert np.isfinite(made).all()
    loaded = synthesizer.generator.appearance
    assert loaded is not None
    assert served.appearance is not None
    assert torch.equal(loaded.knots, served.appearance.knots)


def test_all_workers_take_the_first_ones_fit(data: TrainingData) -> None:
    network = replace(gan_toy.NETWORK, size=64, appearance=True)
    training = replace(gan_toy.TRAINING, ema_half_life=100)
    other = replace(data, rows=data.rows[::2])
    first, second = (new_state(network, training, 4, torch.device("cpu"), d) for d in (data, other))
    assert first.generator.appearance is not None
    sent = [b * 2 for b in first.generator.appearance.buffers()]  # what rank 0 brings to the mean

    def average(tensors: list[torch.Tensor]) -> None:
        for mine, of_first in zip(tensors, sent, strict=True):
            mine.add_(of_first).div_(2)

    share_appearance(second, Share(1, 2, average))
    for state in (second.generator, second.average):
        assert state is not None
        assert state.appearance is not None
        for name, value in first.generator.appearance.state_dict().items():
            assert torch.equal(state.appearance.state_dict()[name], value), name


def test_weights_without_an_appearance_are_refused() -> None:
    values = load_config("demo").to_dict()
    values["network"]["appearance"] = False
    with pytest.raises(ConfigError, match=r"need network\.appearance"):
        Config.of(values)
