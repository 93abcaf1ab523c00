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
from fastgan_aug.gan.batch import TrainingData
from fastgan_aug.gan.checkpoint import write_checkpoint
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.step import new_state
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
        assert ratio.min() > 0.85
        assert ratio.max() < 1.15


def test_numbers_that_go_together_do_so_when_drawn(model: Appearance, data: TrainingData) -> None:
    real = model.describe(data.images[torch.from_numpy(data.cell == 1)])
    varying = real.std(0) > 0.2 * model.scale
    of_real = torch.corrcoef(real[:, varying].T).fill_diagonal_(0)
    of_drawn = torch.corrcoef(drawn(model, 1)[:, varying].T)
    strong = of_real.abs() > 0.8
    assert strong.sum() >= 6
    # Shrunk towards what the other cells say, so weaker, but of the same sign.
    assert (of_drawn * of_real.sign())[strong].min() > 0
    assert (of_drawn * of_real.sign())[strong].mean() > 0.3


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
    images, condition = data.images[:8], VECTORS[[0] * 8]
    wanted = model.describe(images)
    assert model.error(images, wanted, condition).item() == pytest.approx(0, abs=1e-6)
    one = wanted.clone()
    one[:, LINEAR + 1] += 3 * model.cell_sd[0, LINEAR + 1]
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


def generator_of(model: Appearance) -> Generator:
    """The appearance's picture alone: the network adds nothing."""
    network = replace(gan_toy.NETWORK, size=64, appearance=True)
    torch.manual_seed(0)
    generator = Generator(network, 4, model).eval()
    torch.nn.init.zeros_(generator.output[0].weight)  # type: ignore[arg-type]
    return generator


def test_calibration_restores_a_spread_that_is_lost(data: TrainingData) -> None:
    model = fit_appearance(data)
    generator = generator_of(model)
    model.knots[1] = model.cell_mean[1, :, None] + 0.75 * (
        model.knots[1] - model.cell_mean[1, :, None]
    )

    def ratio() -> float:
        noise = torch.randn(256, generator.latent_size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            made = model.describe(generator(noise, VECTORS[1].expand(256, -1)))
        leading = [0, 1, LINEAR // 2, LINEAR // 2 + 1]
        return float((made.std(0) / model.cell_sd[1])[leading].mean())

    before = ratio()
    calibrate(generator, np.random.default_rng(0))
    assert before < 0.9
    assert abs(1 - ratio()) < abs(1 - before) / 2


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
    loaded = synthesizer._generator.appearance
    assert loaded is not None
    assert served.appearance is not None
    assert torch.equal(loaded.knots, served.appearance.knots)


def test_weights_without_an_appearance_are_refused() -> None:
    values = load_config("demo").to_dict()
    values["network"]["appearance"] = False
    with pytest.raises(ConfigError, match=r"need network\.appearance"):
        Config.of(values)
