from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import gan_toy
import numpy as np
import pytest
import torch
from gan_toy import CELLS, TRAINING, run, toy_data, toy_state

from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.errors import DataError, TrainingDiverged
from fastgan_aug.gan import losses
from fastgan_aug.gan.batch import Share, draw_batch, draw_rows, translated
from fastgan_aug.gan.checkpoint import state_tensors
from fastgan_aug.gan.deadline import Deadline
from fastgan_aug.gan.settings import TrainingConfig
from fastgan_aug.gan.step import TrainState, average_decay, train_step, update_average
from fastgan_aug.gan.training import served_generator, train


def test_same_seed_same_weights_and_another_seed_others() -> None:
    first, second = toy_state(), toy_state()
    run(first), run(second)
    for name, tensor in state_tensors(first).items():
        assert torch.equal(tensor, state_tensors(second)[name]), name
    other = toy_state(replace(TRAINING, seed=4))
    assert not torch.equal(other.generator.embed.weight, toy_state().generator.embed.weight)


def test_progress_is_counted_in_images() -> None:
    recording = run(toy_state())
    assert [seen for seen, _ in recording.curve] == [16, 32, 48, 64]
    assert recording.checkpoints == [32, 64]


def test_a_step_is_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fused step against the plain one: three discriminator passes, two separate gradients."""
    fused, plain = toy_state(), toy_state()
    batch = draw_batch(toy_data(), AugmentConfig(), TRAINING, fused.generator, 0, Share())
    train_step(fused, batch, TRAINING, Share())
    fake = plain.generator(batch.latents, batch.condition)
    network = plain.discriminator
    fake_logits, _, _ = network(fake.detach(), batch.condition)
    real_logits, second, third = network(batch.real, batch.condition)
    loss_d = losses.real_loss(real_logits) + losses.fake_loss(fake_logits)
    loss_d += losses.reconstruction_loss(network, batch.real, second, third, batch.corner)
    loss_d.backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    losses.generator_loss(network(fake, batch.condition)[0]).backward()
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient
    plain.discriminator_optimiser.step()
    plain.generator_optimiser.step()
    for (name, a), b in zip(
        fused.generator.named_parameters(), plain.generator.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    for a, b in zip(fused.discriminator.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_natural_sampling_shows_every_slice_once_per_pass() -> None:
    data = toy_data()
    training = replace(TRAINING, batch=len(data.rows), sampling_power=1.0)
    for epoch in range(3):
        rows = draw_rows(data, training, epoch * training.batch)
        assert sorted(rows) == sorted(data.rows)


def test_power_zero_draws_cells_equally_often() -> None:
    data = toy_data(200)
    cell = data.cell.copy()
    cell[:150] = 0
    skewed = replace(data, cell=cell)
    training = replace(TRAINING, batch=3000, sampling_power=0.0)
    drawn = np.bincount(skewed.cell[draw_rows(skewed, training, 0)], minlength=CELLS)
    assert drawn.min() > 900


def test_workers_share_one_batch_without_overlap() -> None:
    data, generator = toy_data(), toy_state().generator
    whole = draw_batch(data, AugmentConfig(), TRAINING, generator, 24, Share())
    parts = [
        draw_batch(data, AugmentConfig(), TRAINING, generator, 24, Share(r, 2)) for r in (0, 1)
    ]
    for rank, part in enumerate(parts):
        assert torch.equal(part.real, whole.real[rank::2])
        assert torch.equal(part.latents, whole.latents[rank::2])
        assert part.corner == whole.corner


def test_average_of_a_constant_is_the_constant() -> None:
    state = toy_state()
    assert state.average is not None
    before = {k: v.clone() for k, v in state.generator.state_dict().items()}
    for _ in range(5):
        update_average(state.average, state.generator, 0.9)
    for name, tensor in state.average.state_dict().items():
        torch.testing.assert_close(tensor, before[name], msg=name)


def test_half_of_a_weight_is_gone_after_the_half_life() -> None:
    training = replace(TRAINING, batch=8, ema_half_life=80)
    assert average_decay(training) ** 10 == pytest.approx(0.5)


def test_served_generator_measures_its_batch_norm_again() -> None:
    state = toy_state()
    run(state)
    before = {k: v.clone() for k, v in state_tensors(state).items()}
    served = served_generator(state, toy_data(), TRAINING)
    assert not served.training
    noise = np.random.default_rng(0).standard_normal((512, served.latent_size), np.float32)
    latents, condition = torch.from_numpy(noise), torch.eye(CELLS)[torch.arange(512) % CELLS]

    def gap(generator: torch.nn.Module) -> float:
        """Between the statistics it serves with and those of a batch of its own."""
        kept = generator.eval()(latents, condition)
        return float((kept - copy.deepcopy(generator).train()(latents, condition)).abs().mean())

    with torch.no_grad():
        assert gap(served) < 0.1 * gap(copy.deepcopy(state.average))
    for name, tensor in state_tensors(state).items():
        assert torch.equal(tensor, before[name]), name


def test_losses_fall_on_a_constant_set() -> None:
    data = toy_data()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    data.images[:] = 2 * torch.exp(-4 * (x**2 + y**2)) - 1
    training = replace(TRAINING, images=800, log_every=80, checkpoint_every=800)
    recording = gan_toy.Recording()
    train(toy_state(training), data, AugmentConfig(shift=0), training, recording)
    reconstruction = [values["loss_reconstruction"] for _, values in recording.curve]
    assert reconstruction[-1] < 0.7 * reconstruction[0]


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_divergence_stops_before_a_checkpoint(poison: float) -> None:
    state, recording = toy_state(), gan_toy.Recording()
    with torch.no_grad():
        state.discriminator.output[3].weight.fill_(poison)
    with pytest.raises(TrainingDiverged, match="after"):
        train(state, toy_data(), AugmentConfig(), TRAINING, recording)
    assert recording.checkpoints == []


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(DataError, match="3 workers"):
        run(toy_state(), share=Share(0, 3))


def test_no_labelled_slice_is_refused() -> None:
    empty = replace(toy_data(), rows=np.empty(0, np.int64))
    with pytest.raises(DataError, match="no labelled"):
        train(toy_state(), empty, AugmentConfig(), TRAINING, gan_toy.Recording())


def test_bf16_trains() -> None:
    recording = run(toy_state(), replace(TRAINING, precision="bf16"))
    assert np.isfinite([v for _, values in recording.curve for v in values.values()]).all()


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_the_device_has_instructions_for_it(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastgan_aug.gan.step.has_bf16", lambda device: native)
    expected, other = ("bf16", "fp32") if native else ("fp32", "bf16")
    losses = {}
    for name in ("auto", expected, other):
        curve = run(toy_state(), replace(TRAINING, precision=name)).curve
        losses[name] = [values["loss_real"] for _, values in curve]
    assert losses["auto"] == losses[expected]
    assert losses["auto"] != losses[other]


ENDLESS = replace(TRAINING, images=10**9, log_every=10**6, checkpoint_every=10**6)


class Countdown:
    """A worker's clock, from the first look at it on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.asked, self.begun = seconds, 0, 0.0

    def __call__(self) -> float:
        self.asked += 1
        self.begun = self.begun or time.perf_counter()
        return self.seconds - (time.perf_counter() - self.begun)


def timed(
    training: TrainingConfig, left: Callable[[], float], share: Share | None = None
) -> tuple[gan_toy.Recording, TrainState]:
    recording, state = gan_toy.Recording(), toy_state(training)
    train(state, toy_data(), AugmentConfig(), training, recording, share, left)
    return recording, state


def test_the_clock_ends_it_with_a_point_and_a_checkpoint_and_is_seldom_looked_at() -> None:
    _, tried = timed(ENDLESS, Countdown(0.3))
    # Long enough for many steps on a busy machine too.
    seconds = max(1.5, 60 * 0.3 * ENDLESS.batch / tried.images_seen)
    clock = Countdown(seconds)
    recording, state = timed(ENDLESS, clock)
    steps = state.images_seen // ENDLESS.batch
    pace = seconds / steps
    assert -5 * pace - 0.2 < clock() < pace, "a look comes too late only where steps became slow"
    assert recording.checkpoints == [state.images_seen]
    assert [seen for seen, _ in recording.curve] == [state.images_seen]
    assert steps > 20
    assert clock.asked < 2 * (4 * math.log2(steps) + 8)


def test_without_a_deadline_the_clock_is_asked_where_the_losses_are_read() -> None:
    asked: list[None] = []

    def endless() -> float:
        asked.append(None)
        return math.inf

    recording, state = timed(TRAINING, endless)
    assert state.images_seen == TRAINING.images
    assert len(asked) == 1 + len(recording.curve) + len(recording.checkpoints)


def test_no_time_left_takes_no_step() -> None:
    recording, state = timed(ENDLESS, lambda: 0.0)
    assert (state.images_seen, recording.checkpoints, recording.curve) == (0, [], [])


def test_a_checkpoint_that_uses_the_time_up_is_the_last() -> None:
    class Slow(gan_toy.Recording):
        def checkpoint(self, state: TrainState) -> None:
            super().checkpoint(state)
            time.sleep(2.5)

    recording, state = Slow(), toy_state(ENDLESS)
    training = replace(ENDLESS, checkpoint_every=16)
    train(state, toy_data(), AugmentConfig(), training, recording, None, Countdown(2.0))
    assert recording.checkpoints == [16]


def test_workers_whose_clocks_differ_leave_at_the_same_step() -> None:
    """Two threads, averaging over a barrier as processes do by all-reduce."""
    barrier, given = threading.Barrier(2, timeout=60), [[torch.empty(0)], [torch.empty(0)]]
    ended: dict[int, int] = {}

    def work(rank: int, seconds: float) -> None:
        def average(tensors: list[torch.Tensor]) -> None:
            given[rank] = tensors
            barrier.wait()
            means = [torch.stack(pair).mean(dim=0) for pair in zip(*given, strict=True)]
            barrier.wait()
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean)
            barrier.wait()

        _, state = timed(ENDLESS, Countdown(seconds), Share(rank, 2, average))
        ended[rank] = state.images_seen

    threads = [threading.Thread(target=work, args=a, daemon=True) for a in ((0, 0.6), (1, 1.4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert ended[0] == ended[1] > 0


def test_a_deadline_that_never_comes_is_never_waited_for() -> None:
    deadline = Deadline(lambda: math.inf, Share(0, 2), torch.device("cpu"))
    assert not deadline.look()
    assert not any(deadline.stepped() for _ in range(100))


def test_translation_moves_whole_pixels_and_lets_in_no_counts() -> None:
    images = torch.rand(3, 1, 8, 8)
    by = torch.tensor([[0, 0], [2, -1], [-3, 3]])
    moved = translated(images, by, 3)
    assert torch.equal(moved[0], images[0])
    assert torch.equal(moved[1, 0, 2:, :7], images[1, 0, :6, 1:])
    assert (moved[1, 0, :2] == -1).all()
    assert (moved[1, 0, :, 7] == -1).all()
    assert torch.equal(moved[2, 0, :5, 3:], images[2, 0, 3:, :5])


@pytest.mark.parametrize(
    ("network", "change"),
    [({"folded": True, "appearance": True}, {"appearance_weight": 30.0, "energy_weight": 1.0}),
     ({"unit_maximum": True}, {"translation": 3}),
     ({"projection": True}, {"transition": 32, "precision": "bf16"}),
     ({"minibatch_sd": True, "appearance": True}, {"relativistic": True, "transition": 24}),
     ({"folded": True}, {"gradient_penalty": 1.0, "precision": "bf16"})],
)  # fmt: skip
def test_switches_train_and_resume_bitwise(
    network: dict[str, object], change: dict[str, object]
) -> None:
    """Each changes the weights; two runs are alike, and so is one run in two parts."""
    own = replace(gan_toy.NETWORK, **network)
    training = replace(TRAINING, **change)
    whole, again = (toy_state(training, own) for _ in range(2))
    run(whole, training=training)
    run(again, training=replace(training, images=32)), run(again, training=training)
    for name, tensor in state_tensors(whole).items():
        assert torch.equal(tensor, state_tensors(again)[name]), name
        assert torch.isfinite(tensor).all(), name
