"""The prior: weights fitted to many phantoms, from which a fit on few slices may start.

It comes with the package, in ``fastgan_aug/prior``: weights.safetensors, and card.json, which names
its sha256 and says where it comes from. It holds nothing of a condition: what of the networks
touches the condition vector starts at random, so that it serves any factors and values. The
numbers that an appearance describes slices by are the prior's, or the network would not know what
it is given; how they are distributed in a cell is fitted to the user's slices alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastgan_aug.errors import CheckpointError, ConfigError
from fastgan_aug.gan.networks import Discriminator, Generator
from fastgan_aug.gan.settings import NetworkConfig
from fastgan_aug.storage import file_digest, replace_when_complete

if TYPE_CHECKING:
    from fastgan_aug.gan.step import TrainState

FOLDER = Path(__file__).parent.parent / "prior"
WEIGHTS, CARD, FORMAT = "weights.safetensors", "card.json", 1
COMPONENTS = ("aligned", "extent", "mean", "basis", "centre", "scale")
"""What of an `Appearance` says what its numbers mean; the rest is of the cells."""
EMBED, FIRST_LAYER = "embed.weight", "input.0.weight"  # where the networks take the condition
GENERATOR, DISCRIMINATOR, APPEARANCE = "generator.", "discriminator.", "generator.appearance."
UNUSED = "num_batches_tracked"


@dataclass(frozen=True)
class PriorCard:
    """What is known of a prior.

    Attributes:
        sha256: Of the weights' file; the prior's name.
        network: The ``network`` section that it is of.
        images: Slices that it was shown.
        seeds: Of the phantoms and of the fit.
        dataset_digest: Of the phantoms.
        slices: Labelled slices of them that it was fitted to.
        patients: That these are of, none of whom exists.
        config_digest: Of the whole configuration of the fit.
        code_version: Version and commit that made it.
        command: That makes it again.
        scores: Of the generator as it was fitted, on phantoms' patients that were held out.
        not_for: What it must not be used for.
    """

    sha256: str
    network: Mapping[str, Any]
    images: int
    seeds: Mapping[str, Any]
    dataset_digest: str
    slices: int
    patients: int
    config_digest: str
    code_version: str
    command: str
    scores: Mapping[str, float]
    not_for: list[str]

    def check_fits(self, network: NetworkConfig) -> None:
        """Refuses another network: its weights would have no place.

        Raises:
            ConfigError: ``network`` is not the prior's.
        """
        mine = asdict(network)
        other = sorted(k for k, v in mine.items() if self.network.get(k, v) != v)
        if other:
            raise ConfigError(
                'training.init is "prior", but the prior is of another network: '
                + ", ".join(f"network.{k} is {mine[k]}" for k in other),
                allowed=", ".join(f"network.{k} = {self.network[k]}" for k in other),
                do='take these values, or set training.init = "scratch"',
            )


def read_card(folder: Path = FOLDER) -> PriorCard:
    """Reads a prior's card.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
    """
    try:
        plain = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if plain.pop("format") != FORMAT:
            raise ValueError("another format version")
        return PriorCard(**plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{CARD} cannot be read: {error}") from error


def load_prior(network: NetworkConfig, folder: Path = FOLDER) -> dict[str, Tensor]:
    """The weights, float32 on the CPU, after their sha256 was verified.

    Args:
        network: That they are to be loaded into.
        folder: Of weights and card.

    Raises:
        ConfigError: ``network`` is not the prior's.
        CheckpointError: the prior is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(folder)
    card.check_fits(network)
    try:
        if file_digest(folder / WEIGHTS) != card.sha256:
            raise _damaged(folder, f"{WEIGHTS} does not have the sha256 that {CARD} names")
        return {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, f"{WEIGHTS} cannot be read: {error}") from error


def components(prior: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of an appearance a prior decides; empty where its network has none."""
    named = {name: prior.get(APPEARANCE + name) for name in COMPONENTS}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


@torch.no_grad()
def adopt(generator: Generator, discriminator: Discriminator, prior: Mapping[str, Tensor]) -> None:
    """Gives fresh networks the prior's weights, but for those that the condition meets, in place.

    Raises:
        CheckpointError: the prior is of other networks.
    """
    own = {GENERATOR: generator.state_dict(), DISCRIMINATOR: discriminator.state_dict()}
    places = {
        prefix + name: tensor
        for prefix, tensors in own.items()
        for name, tensor in tensors.items()
        if not (prefix + name).startswith(APPEARANCE) and not name.endswith(UNUSED)
    }
    given = {name: t for name, t in prior.items() if not name.startswith(APPEARANCE)}
    if places.keys() != given.keys():
        raise _damaged(FOLDER, "it does not have the tensors of these networks")
    for name, place in places.items():
        for mine, theirs in _parts(name, place, given[name], generator.latent):
            if mine.shape != theirs.shape:
                raise _damaged(FOLDER, f"{name} has another shape")
            mine.copy_(theirs)


def _parts(name: str, place: Tensor, given: Tensor, latent: int) -> list[tuple[Tensor, Tensor]]:
    """Parts of a tensor that the prior knows, and what it knows: none of it is a condition's."""
    if name == GENERATOR + EMBED:
        after = given.shape[1] - latent  # the descriptors that follow the condition
        behind = place.shape[1] - after
        return [
            (place[:, :latent], given[:, :latent]), (place[:, behind:], given[:, latent:]),
        ]  # fmt: skip
    if name == DISCRIMINATOR + FIRST_LAYER:
        return [(place[:, : given.shape[1]], given)]
    return [(place, given)]


@torch.no_grad()
def prior_tensors(state: TrainState, mean: Tensor) -> dict[str, Tensor]:
    """What is kept of a state: parameters as float16, statistics and components as float32.

    Args:
        state: A trained one; of its generators the average, where it has one.
        mean: (C,) mean condition of its cells, which becomes a part of a bias.
    """
    generator, discriminator = state.average or state.generator, state.discriminator
    half = {GENERATOR + k for k, _ in generator.named_parameters()}
    half |= {DISCRIMINATOR + k for k, _ in discriminator.named_parameters()}
    tensors = {GENERATOR + k: v for k, v in generator.state_dict().items()}
    tensors |= {DISCRIMINATOR + k: v for k, v in discriminator.state_dict().items()}
    begin, end = generator.latent, generator.latent + len(mean)
    weight = tensors[GENERATOR + EMBED]
    bias = GENERATOR + EMBED.replace("weight", "bias")
    tensors[bias] = tensors[bias] + weight[:, begin:end] @ mean.to(weight)
    tensors[GENERATOR + EMBED] = torch.cat([weight[:, :begin], weight[:, end:]], 1)
    first = tensors[DISCRIMINATOR + FIRST_LAYER]
    tensors[DISCRIMINATOR + FIRST_LAYER] = first[:, : first.shape[1] - len(mean)]
    kept = {APPEARANCE + name for name in COMPONENTS}
    chosen = {
        name: tensor.to(torch.float16 if name in half else torch.float32)
        for name, tensor in tensors.items()
        if not name.endswith(UNUSED) and (not name.startswith(APPEARANCE) or name in kept)
    }
    # safetensors refuses tensors that share memory or are not contiguous.
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in chosen.items()}


def write_prior(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> PriorCard:
    """Writes weights and card beside ``folder`` and renames them into place.

    Args:
        folder: Of both.
        tensors: See ``prior_tensors``.
        facts: The card's fields but ``sha256``.

    Raises:
        StorageError: they cannot be written.
    """
    from safetensors.torch import save_file

    with replace_when_complete(folder) as temporary:
        temporary.mkdir()
        save_file(dict(tensors), temporary / WEIGHTS)
        card = PriorCard(sha256=file_digest(temporary / WEIGHTS), **facts)
        text = json.dumps(asdict(card) | {"format": FORMAT}, indent=1, sort_keys=True)
        (temporary / CARD).write_text(text + "\n", encoding="utf-8")
    return card


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the prior in {folder} is damaged: {what}",
        allowed=f"{CARD} and {WEIGHTS} as they were shipped, format {FORMAT}",
        do='install the package again, or set training.init = "scratch"',
    )
