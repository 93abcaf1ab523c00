"""OpenVINO: the same images as torch within 1e-5, byte by byte the same in any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from gan_toy import toy_lineage, toy_state

from fastgan_aug.gan.checkpoint import write_checkpoint
from fastgan_aug.gan.settings import NetworkConfig
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer
from serving.server.openvino_engine import use_openvino

PLAIN = NetworkConfig(size=32, latent=8, embedding=8, generator_width=4, discriminator_width=4)
DEMO = NetworkConfig(
    size=64, latent=8, embedding=8, generator_width=4, discriminator_width=4, folded=True,
    unit_maximum=True, appearance=True,
)  # fmt: skip


@pytest.fixture(scope="module", params=[PLAIN, DEMO], ids=["plain", "as in the demo"])
def both(request, tmp_path_factory) -> tuple[Synthesizer, Synthesizer]:
    """The same checkpoint in torch and in OpenVINO."""
    folder: Path = tmp_path_factory.mktemp("openvino") / "checkpoint"
    write_toy(folder, request.param)
    reference, faster = (Synthesizer.load(folder, threads=1) for _ in range(2))
    use_openvino(faster, 1)
    return reference, faster


def write_toy(folder: Path, network: NetworkConfig) -> None:
    state = toy_state(network=network)
    random = torch.Generator().manual_seed(1)
    for name, value in state.generator.named_parameters():
        if "gain" in name:  # 0 at the start: the noise would not be seen
            value.data.fill_(0.3)
        elif value.ndim > 1:
            value.data.normal_(0, 0.1, generator=random)
    write_checkpoint(folder, state, state.generator, toy_lineage(network))


def asked(synthesizer: Synthesizer, n: int):
    cells = [synthesizer.space.cells[i % len(synthesizer.space.cells)] for i in range(n)]
    return cells, np.arange(n, dtype=np.uint64)


def test_it_is_within_the_bound_of_the_reference(both) -> None:
    reference, faster = both
    cells, seeds = asked(reference, 3 * CHUNK)
    theirs, ours = reference.generate(cells, seeds), faster.generate(cells, seeds)
    assert theirs.std() > 0.02
    assert np.abs(ours - theirs).max() <= 1e-5
    assert np.abs(ours.mean((1, 2)) / theirs.mean((1, 2)) - 1).max() <= 1e-5


def test_an_image_does_not_depend_on_its_batch(both) -> None:
    _, faster = both
    cells, seeds = asked(faster, 2 * CHUNK + 3)
    together = faster.generate(cells, seeds)
    order = np.random.default_rng(0).permutation(len(seeds))
    shuffled = faster.generate([cells[i] for i in order], seeds[order])
    assert np.array_equal(shuffled, together[order])
    assert np.array_equal(faster.generate(cells[:1], seeds[:1]), together[:1])


def test_the_engine_is_named(both) -> None:
    reference, faster = both
    assert reference.engine.startswith("torch-")
    assert faster.engine.startswith("openvino-")
