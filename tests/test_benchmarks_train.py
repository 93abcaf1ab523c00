"""The training benchmarks compare what trains alike, and the one for GPUs runs on a bare box."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.train_plain import batch_of, plain_step, random_data, with_plain_optimisers
from fastgan_aug.config import load_config
from fastgan_aug.gan.batch import Share
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.step import new_state, train_step
from tests.test_architecture import HEAVY, ROOT

COUNTS = [6, 3, 5]
DEMO = load_config("demo")


@pytest.mark.parametrize(
    ("network", "training"),
    [
        (DEMO.network, DEMO.training),
        (
            NetworkConfig(appearance=True, unit_maximum=True),
            TrainingConfig(energy_weight=1, translation=3, ema_half_life=100),
        ),
        (NetworkConfig(unit_maximum=True), TrainingConfig(translation=2)),
        (NetworkConfig(projection=True), TrainingConfig(relativistic=True, transition=64)),
        (NetworkConfig(minibatch_sd=True), TrainingConfig(gradient_penalty=1, translation=2)),
    ],
)
def test_the_plain_step_trains_as_the_fast_one(
    network: NetworkConfig, training: TrainingConfig
) -> None:
    network = replace(
        network, size=32, latent=8, embedding=8, generator_width=4, discriminator_width=4
    )
    training = replace(training, precision="fp32", batch=8)
    data = random_data(COUNTS, torch.eye(3), 32)
    fast, plain = (new_state(network, training, 3, torch.device("cpu"), data) for _ in range(2))
    with_plain_optimisers(plain)
    for _ in range(3):
        of_fast = train_step(fast, batch_of(fast, data, training), training, Share())
        of_plain = plain_step(plain, batch_of(plain, data, training), training)
        torch.testing.assert_close(of_fast, of_plain, rtol=1e-3, atol=1e-4)
    # Adam's first steps hang on the sign of a gradient alone, be it as small as rounding.
    moved = [abs(a - b) for a, b in zip(_weights(fast), _weights(plain), strict=True)]
    assert torch.cat([m.flatten() for m in moved]).quantile(0.99) < 1e-5


def _weights(state: object) -> list[torch.Tensor]:
    networks = [getattr(state, name) for name in ("generator", "discriminator", "average")]
    return [p.detach() for network in networks if network for p in network.parameters()]


def test_the_benchmark_for_gpus_needs_torch_and_numpy_alone() -> None:
    heavy = HEAVY | {"pydantic", "pyarrow", "psutil", "rich", "scipy", "sklearn", "safetensors"}
    code = f"""
import sys, benchmarks.train_gpu
print(sorted({heavy!r} & {{name.split(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_the_benchmark_for_gpus_says_that_there_is_none() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_gpu"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "no CUDA device" in done.stdout
