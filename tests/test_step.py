"""Laws of a step's switches: what they count, where they reach, that no worker differs."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gan_toy import CELLS, NETWORK, TRAINING, Recording, run, toy_data, toy_lineage, toy_state
from torch.utils._python_dispatch import TorchDispatchMode

from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.gan.batch import Share, draw_batch
from fastgan_aug.gan.checkpoint import restore, state_tensors, write_checkpoint
from fastgan_aug.gan.networks import Discriminator
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.step import penalty, train_step
from fastgan_aug.gan.training import served_generator, train

ALL = replace(NETWORK, projection=True, minibatch_sd=True)
SWITCHES = replace(
    TRAINING, relativistic=True, gradient_penalty=1.0, transition=56, translation=2,
    precision="bf16",
)  # fmt: skip


class NoValues(TorchDispatchMode):
    """Refuses what makes the host wait for a device: the value of a tensor, or a size by one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "unique_dim"}
        name = func.name().partition("::")[2].partition(".")[0]
        assert name not in asked, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("network", "training"),
    [(NETWORK, TRAINING), (ALL, SWITCHES), (replace(ALL, appearance=True, unit_maximum=True),
      replace(SWITCHES, appearance_weight=1.0, energy_weight=1.0))],
)  # fmt: skip
def test_a_step_asks_no_tensor_for_its_value(
    network: NetworkConfig, training: TrainingConfig
) -> None:
    state = toy_state(training, network)
    for step in range(2):
        batch = draw_batch(
            toy_data(), AugmentConfig(), training, state.generator, 8 * step, Share()
        )
        with NoValues():
            train_step(state, batch, training, Share())
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoValues():
        torch.ones(1).item()


def test_all_together_resume_bitwise_within_the_transition(tmp_path: Path) -> None:
    whole, parted, again = (toy_state(SWITCHES, ALL) for _ in range(3))
    run(whole, SWITCHES)
    train(parted, toy_data(), AugmentConfig(), SWITCHES, Recording(stop_after=1))
    assert parted.images_seen == 32 < SWITCHES.transition
    served = served_generator(parted, toy_data(), SWITCHES)
    write_checkpoint(tmp_path / "images-32", parted, served, toy_lineage(ALL))
    restore(tmp_path / "images-32", again)
    run(again, SWITCHES)
    for name, tensor in state_tensors(whole).items():
        assert torch.equal(tensor, state_tensors(again)[name]), name


def test_workers_stay_alike_with_all_of_it() -> None:
    """Two threads, averaging over a barrier as processes do by all-reduce."""
    barrier, given = threading.Barrier(2, timeout=60), [[torch.empty(0)], [torch.empty(0)]]
    states = [toy_state(SWITCHES, ALL) for _ in range(2)]

    def work(rank: int) -> None:
        def average(tensors: list[torch.Tensor]) -> None:
            given[rank] = tensors
            barrier.wait()
            means = [torch.stack(pair).mean(dim=0) for pair in zip(*given, strict=True)]
            barrier.wait()
            for tensor, mean in zip(tensors, means, strict=True):
                tensor.copy_(mean)
            barrier.wait()

        run(states[rank], SWITCHES, Share(rank, 2, average))

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert states[0].images_seen == states[1].images_seen == SWITCHES.images
    fresh = toy_state(SWITCHES, ALL)
    for network in ("generator", "discriminator"):
        ones, others, old = (getattr(s, network).named_parameters() for s in (*states, fresh))
        for (name, one), (_, other), (_, before) in zip(ones, others, old, strict=True):
            assert torch.equal(one, other), name
            assert not torch.equal(one, before), name


def test_the_condition_grows_over_the_transition_by_images_seen_alone() -> None:
    training = replace(TRAINING, transition=32)
    seen = [training.influence(n) for n in (0, 8, 16, 32, 64)]
    assert seen == [0, 0.25, 0.5, 1, 1]
    assert TRAINING.influence(0) == 1
    generator = toy_state().generator
    for share in (Share(), Share(1, 2)):
        batch = draw_batch(toy_data(), AugmentConfig(), training, generator, 24, share)
        assert batch.influence == 0.75


def test_within_a_transition_the_condition_is_served_as_weak_as_it_is() -> None:
    """Before its first step all cells are alike; at its end nothing is changed."""
    training = replace(TRAINING, transition=32)
    state, latents = toy_state(training), torch.randn(1, toy_state().generator.latent_size)
    served = served_generator(state, toy_data(), training)
    images = served(latents.expand(CELLS, -1), torch.eye(CELLS))
    torch.testing.assert_close(images[0], images[1])
    state.images_seen = 32
    ended = served_generator(state, toy_data(), training)
    plain = served_generator(state, toy_data(), TRAINING)
    assert torch.equal(ended.embed.weight, plain.embed.weight)


@pytest.mark.parametrize(
    "bad", [{"transition": -1}, {"transition": 65}, {"gradient_penalty": -1.0}]
)
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        replace(TRAINING, **bad)


def test_the_penalty_counts_in_some_steps_and_workers_share_its_signs() -> None:
    training, generator = replace(TRAINING, gradient_penalty=1.0), toy_state().generator

    def signs(step: int, share: Share) -> torch.Tensor | None:
        start = step * training.batch
        return draw_batch(toy_data(), AugmentConfig(), training, generator, start, share).signs

    assert [signs(step, Share()) is not None for step in range(6)] == [True, *[False] * 3, True,
                                                                       False]  # fmt: skip
    whole, parts = signs(4, Share()), [signs(4, Share(rank, 2)) for rank in (0, 1)]
    assert whole is not None
    assert set(whole.unique().tolist()) == {-1, 1}
    real, fake = whole.chunk(2)
    for rank, part in enumerate(parts):
        assert part is not None
        assert torch.equal(part, torch.cat([real[rank::2], fake[rank::2]]))


def test_the_penalty_makes_a_discriminator_less_steep() -> None:
    """It reaches the discriminator's weights; the generator's step is the one without it."""
    training = replace(TRAINING, gradient_penalty=100.0)
    states, batch = [toy_state() for _ in range(2)], None
    for state, own in zip(states, (TRAINING, training), strict=True):
        batch = draw_batch(toy_data(), AugmentConfig(), own, state.generator, 0, Share())
        train_step(state, batch, own, Share())
    plain, gentle = (state.discriminator for state in states)
    assert batch is not None
    for a, b in zip(
        states[0].generator.parameters(), states[1].generator.parameters(), strict=True
    ):
        assert torch.equal(a, b)

    def steep(network: Discriminator) -> float:
        images, logits = (batch.real, batch.real), network(batch.real, batch.condition)[0]
        return float(penalty(network, batch, training, images, (logits, logits)).detach())

    assert steep(gentle) < steep(plain)
    with torch.no_grad():
        gentle.output[3].weight.zero_()
    assert steep(gentle) == 0
