"""The gradient penalty two ways, of the demo's discriminator: `python -m benchmarks.penalty`.

By differences, as the training does it, or exactly, by a gradient of a gradient: what each costs
beside a step, and how far the differences are from the exact norm, for several nudges, in fp32 and
in bf16. The costs are seconds of CPU on one thread, medians of interleaved rounds. The norm of an
image's logit counts every image of the batch, since batch normalisation joins them; the gradient of
the sum of all logits, which costs one pass, is what R1 usually takes for it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import figure, publish
from benchmarks.train_plain import batch_of, seen
from fastgan_aug.config import load_config
from fastgan_aug.data.phantom.population import TABLE_1, PhantomConfig, make_phantom
from fastgan_aug.engines.job import training_data
from fastgan_aug.gan.batch import Batch, Share, TrainingData
from fastgan_aug.gan.losses import NUDGE, steepness
from fastgan_aug.gan.networks import Discriminator
from fastgan_aug.gan.settings import TrainingConfig
from fastgan_aug.gan.step import TrainState, new_state, train_step

SLICES, STEPS, ROUNDS, BATCHES, DRAWS = 24, 120, 5, 6, 4
NUDGES = (0.01, NUDGE, 0.2)


@dataclass(frozen=True)
class Judged:
    """A discriminator, and a batch of real or of generated slices as it sees them."""

    network: Discriminator
    images: Tensor
    condition: Tensor

    def logits(self, images: Tensor, precise: bool) -> Tensor:
        """(B, h, w), float32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            found: Tensor = self.network(images, self.condition)[0].float()
        return found

    def plain(self) -> Tensor:
        """What a loss of the logits costs alone."""
        return self.logits(self.images, False).square().mean()

    def by_differences(self, signs: Tensor) -> Tensor:
        """As the training does it."""
        at = self.logits(self.images, False)
        return steepness(at, self.logits(self.images + NUDGE * signs, False))

    def exact(self, precise: bool) -> Tensor:
        """R1 as it is usually written: the gradient of the sum, to be differentiated again."""
        images = self.images.clone().requires_grad_()
        total = self.logits(images, precise).mean((1, 2)).sum()
        (slope,) = torch.autograd.grad(total, images, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean()

    def norm(self) -> float:
        """Mean squared norm of single images' logits' gradients; fp32."""
        images = self.images.clone().requires_grad_()
        each = self.logits(images, True).mean((1, 2))
        slopes = [torch.autograd.grad(e, images, retain_graph=True)[0] for e in each]
        return statistics.mean(float(slope.square().sum()) for slope in slopes)


def judged_batch(state: TrainState, batch: Batch, training: TrainingConfig) -> Judged:
    """The generated slices of a batch."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fake = state.generator(batch.latents, batch.condition)
        images = seen(batch, fake, training)[1].float()
    return Judged(state.discriminator, images, batch.condition)


def signs_like(images: Tensor) -> Tensor:
    return torch.randint(0, 2, images.shape) * 2.0 - 1


def cpu_seconds(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def backward(network: Discriminator, loss: Callable[[], Tensor]) -> None:
    torch.autograd.grad(loss(), list(network.parameters()), allow_unused=True)


def fitted(training: TrainingConfig) -> tuple[TrainState, TrainingData, str]:
    """The demo's networks after a few steps on a small phantom, whose digest comes last."""
    config = load_config("demo")
    counts = {cell: min(SLICES, n) for cell, n in TABLE_1.items()}
    dataset = make_phantom(PhantomConfig(counts=counts, patients=SLICES))
    data = training_data(dataset, config.augment)
    state = new_state(config.network, training, data.vectors.shape[1], torch.device("cpu"), data)
    for _ in range(STEPS):
        train_step(state, batch_of(state, data, training), training, Share())
    return state, data, dataset.digest


def norms(ones: list[Judged]) -> list[dict[str, Any]]:
    """How near the cheap ways are to the norm; every nudge has the same signs."""
    norm = statistics.mean(one.norm() for one in ones)
    found: dict[str, list[float]] = {}
    for one, _ in product(ones, range(DRAWS)):
        signs = signs_like(one.images)
        for nudge, precise in product(NUDGES, (True, False)):
            with torch.no_grad():
                nudged = one.logits(one.images + nudge * signs, precise)
                steep = steepness(one.logits(one.images, precise), nudged)
            key = f"differences, nudge {nudge:g}, {'fp32' if precise else 'bf16'}"
            found.setdefault(key, []).append((NUDGE / nudge) ** 2 * float(steep))
    found["gradient of the sum"] = [one.exact(True).item() for one in ones]
    return [
        figure("squared norm of the gradient of an image's logit", norm, ""),
        *(figure(f"{key}: over it", statistics.mean(v) / norm, "x") for key, v in found.items()),
    ]


def costs(step: Callable[[], object], one: Judged) -> list[dict[str, Any]]:
    """What either way adds to a step, in one interleaved run."""
    signs, back = signs_like(one.images), partial(backward, one.network)
    ways = {
        "by differences": partial(back, partial(one.by_differences, signs)),
        "exactly, bf16": partial(back, partial(one.exact, False)),
        "exactly, fp32": partial(back, partial(one.exact, True)),
    }
    calls: dict[str, Callable[[], object]] = {
        "step": step,
        "plain": partial(back, one.plain),
        **ways,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _, (name, call) in product(range(ROUNDS), calls.items()):
        times[name].append(cpu_seconds(call))
    found = [figure("a step without it", statistics.median(times["step"]), "s of CPU")]
    for name in ways:
        rounds = zip(times[name], times["plain"], times["step"], strict=True)
        # Real and generated slices: twice what one of them adds.
        added = statistics.median(2 * (way - plain) / step for way, plain, step in rounds)
        found.append(figure(f"{name}: added to a step", added, "of a step"))
    return found


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training = load_config("demo").training
    state, data, digest = fitted(training)
    ones = []
    for _ in range(BATCHES):
        ones.append(judged_batch(state, batch_of(state, data, training), training))
        state.images_seen += training.batch

    def step() -> Tensor:
        return train_step(state, batch_of(state, data, training), training, Share())

    publish(
        "penalty", [*norms(ones), *costs(step, ones[0])], seeds=[training.seed], config="demo",
        steps=STEPS, batches=BATCHES, draws=DRAWS, rounds=ROUNDS, dataset_digest=digest,
    )  # fmt: skip


if __name__ == "__main__":
    main()
