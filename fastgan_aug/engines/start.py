"""What a fit starts from: random numbers, the prior, or a checkpoint of the same fit."""

from __future__ import annotations

from pathlib import Path

import torch

from fastgan_aug.config import Config
from fastgan_aug.errors import CheckpointError
from fastgan_aug.gan.batch import TrainingData
from fastgan_aug.gan.checkpoint import Lineage, read_manifest
from fastgan_aug.gan.prior import load_prior, read_card
from fastgan_aug.gan.step import TrainState, new_state


def check_prior(config: Config, resume_from: Path | None) -> None:
    """Says at once that the prior cannot be started from, where it would be.

    Raises:
        CheckpointError: it is missing or damaged.
        ConfigError: it is of other networks.
    """
    if config.training.init == "prior" and resume_from is None:
        load_prior(config.network)


def origin_of(config: Config, resume_from: Path | None) -> str | None:
    """Sha256 of the prior that a run started from; None where it started from scratch.

    Raises:
        CheckpointError: a fit is to start from the prior, and its card is missing or damaged.
    """
    if config.training.init == "scratch":
        return None
    return read_card().sha256 if resume_from is None else read_manifest(resume_from).lineage.prior


def starting_state(
    config: Config, data: TrainingData, device: torch.device, resume_from: Path | None
) -> TrainState:
    """A fresh state, of which a resumed fit only takes the shape: it does not read the prior.

    Raises:
        CheckpointError: the prior is missing or damaged.
        ConfigError: it is of other networks.
    """
    known = config.training.init == "prior" and resume_from is None
    prior = load_prior(config.network) if known else None
    dimension = data.vectors.shape[1]
    return new_state(config.network, config.training, dimension, device, data, prior)


def check_same_fit(old: Lineage, new: Lineage) -> None:
    """A resumed run must be the same run, but for its budget, rhythm and engine.

    A field that the older configuration did not have yet counts as its default.

    Raises:
        CheckpointError: data or settings differ.
    """
    free = {"images", "log_every", "checkpoint_every", "keep"}
    defaults = Config(name="defaults").to_dict()
    differing = [
        f"{section}.{key}"
        for section in ("network", "training", "augment")
        for key in new.config[section]
        if old.config[section].get(key, defaults[section][key]) != new.config[section][key]
        and not (section == "training" and key in free)
    ]
    held_out = [c.config.get("selection", {}).get("validation_fraction", 0) for c in (old, new)]
    if held_out[0] != held_out[1]:
        differing.append("selection.validation_fraction")
    if old.dataset_digest != new.dataset_digest:
        differing.append("the training data")
    if differing:
        raise CheckpointError(
            f"the checkpoint belongs to another fit: {', '.join(differing)} differ",
            allowed="a longer budget, another rhythm, another engine",
            do="use the run's own configuration and data, or start a new folder",
        )
