"""Checkpoint: a folder of safetensors and JSON with sha256 in its manifest. No pickle.

meta.json               what it is and where it comes from; sha256 of the other files
generator.safetensors   the served generator (average, calibrated batch norm)
state.safetensors       networks, average and optimisers, to resume
filter.safetensors      what judges generated slices (quality.sample_filter), where one was fitted
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastgan_aug.conditions import ConditionSpace, json_with_space
from fastgan_aug.errors import CheckpointError
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.step import TrainState
from fastgan_aug.storage import file_digest, replace_when_complete

FORMAT = 3
META, GENERATOR, STATE = "meta.json", "generator.safetensors", "state.safetensors"
FILTER = "filter.safetensors"


@dataclass(frozen=True)
class Lineage:
    """Where a run's checkpoints come from; the same for all of them.

    Attributes:
        config: The resolved configuration, JSON values.
        config_digest: Its sha256.
        space: ``{factor: values}``.
        class_counts: ``{cell: labelled slices}`` of the training data, empty cells with 0.
        dataset_digest: Sha256 of the training data.
        patient_digests: Sha256 of each training patient's pseudonym.
        code_version: Version and commit of this code.
        pseudonym_key: Id of the key that made the patients' pseudonyms.
        grouping: ``patient``, or ``none`` where the training data had no patients.
        prior: Sha256 of the weights that the run started from; None where it started from scratch.
    """

    config: Mapping[str, Any]
    config_digest: str
    space: Mapping[str, list[str]]
    class_counts: Mapping[str, int]
    dataset_digest: str
    patient_digests: list[str]
    code_version: str
    pseudonym_key: str
    grouping: str
    prior: str | None = None


@dataclass(frozen=True)
class CheckpointMeta:
    """``meta.json`` as read and verified.

    Attributes:
        lineage: Where it comes from.
        images_seen: Real images shown until then.
        files: Sha256 of the folder's other files.
        digest: Sha256 of ``meta.json`` itself, which stands for the whole checkpoint.
    """

    lineage: Lineage
    images_seen: int
    files: Mapping[str, str]
    digest: str

    @property
    def space(self) -> ConditionSpace:
        """Factors and cells."""
        return ConditionSpace.of(self.lineage.space)


def write_checkpoint(
    folder: Path,
    state: TrainState,
    served: Generator,
    lineage: Lineage,
    sample_filter: Callable[[Path], None] | None = None,
) -> CheckpointMeta:
    """Writes a checkpoint beside ``folder`` and renames it into place.

    Args:
        folder: Of the checkpoint.
        state: To resume from.
        served: The generator that is served.
        lineage: Where it comes from.
        sample_filter: Writes the filter's file; None where there is none.

    Raises:
        StorageError: it cannot be written (disk full); nothing is left half-written.
    """
    from safetensors.torch import save_file

    with replace_when_complete(folder) as temporary:
        temporary.mkdir()
        save_file(_contiguous(served.state_dict()), temporary / GENERATOR)
        save_file(_contiguous(state_tensors(state)), temporary / STATE)
        if sample_filter is not None:
            sample_filter(temporary / FILTER)
        files = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
        plain = asdict(lineage) | {
            "format": FORMAT, "images_seen": state.images_seen, "files": files,
        }  # fmt: skip
        text = json_with_space(plain, indent=1)
        (temporary / META).write_text(text)
    return _meta(text)


def read_meta(folder: Path) -> CheckpointMeta:
    """Reads ``meta.json`` and verifies the sha256 of every file that is there.

    A served copy may leave the resume state out; the generator must be there.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    meta = read_manifest(folder)
    for name, digest in meta.files.items():
        if (folder / name).is_file():
            if file_digest(folder / name) != digest:
                raise _damaged(folder, f"{name} does not have the sha256 that {META} names")
        elif name == GENERATOR:
            raise _damaged(folder, f"{name} is missing")
    return meta


def read_manifest(folder: Path) -> CheckpointMeta:
    """Reads ``meta.json`` alone, whatever other files are there.

    Raises:
        CheckpointError: missing, damaged, or of another format.
    """
    try:
        return _meta((folder / META).read_text())
    except FileNotFoundError as error:
        raise _damaged(folder, f"{META} is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{META} cannot be read: {error}") from error


def read_generator(folder: Path) -> dict[str, Tensor]:
    """The served generator's tensors, to be loaded strictly.

    Raises:
        CheckpointError: the file is damaged.
    """
    return _load(folder, GENERATOR)


def restore(folder: Path, state: TrainState) -> CheckpointMeta:
    """Loads a checkpoint into a state of the same configuration, to continue it bitwise.

    Raises:
        CheckpointError: damaged, without its resume state, or of other networks.
    """
    meta = read_meta(folder)
    tensors = _load(folder, STATE)
    try:
        for prefix, network in _networks(state):
            network.load_state_dict(_strip(tensors, prefix))
        for prefix, optimiser in _optimisers(state):
            optimiser.load_state_dict(_optimiser_state(_strip(tensors, prefix), optimiser))
    except (RuntimeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{folder} does not fit the configured networks: {str(error)[:300]}",
            do="resume with the configuration that the checkpoint's meta.json holds",
        ) from error
    state.images_seen = meta.images_seen
    return meta


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of ``folder`` with most images seen that verifies, or None.

    A damaged one is passed over: an older good one is better than none.
    """
    for path in sorted(checkpoints(folder), reverse=True):
        try:
            read_meta(path)
        except CheckpointError:
            continue
        return path
    return None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first."""
    return sorted(p for p in folder.glob("images-*") if p.is_dir() and ".tmp-" not in p.name)


def checkpoint_name(images_seen: int) -> str:
    """Folder name of a checkpoint; sorts by images seen."""
    return f"images-{images_seen:09d}"


def prune(folder: Path, keep: int, also: Collection[str] = ()) -> None:
    """Removes all but the newest ``keep`` checkpoints, and left-over temporaries.

    Args:
        folder: Of the run.
        keep: How many of the newest stay.
        also: Names of older ones that stay.
    """
    old = [path for path in checkpoints(folder)[:-keep] if path.name not in also]
    for path in [*old, *folder.glob("images-*.tmp-*")]:
        shutil.rmtree(path, ignore_errors=True)


# -- tensors of a state ----------------------------------------------------------------------------


def state_tensors(state: TrainState) -> dict[str, Tensor]:
    """Every tensor that decides how training goes on, by name."""
    tensors: dict[str, Tensor] = {}
    for prefix, network in _networks(state):
        tensors |= {f"{prefix}.{k}": v for k, v in network.state_dict().items()}
    for prefix, optimiser in _optimisers(state):
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{prefix}.{index}.{k}": v for k, v in values.items()}
    return tensors


def _networks(state: TrainState) -> list[tuple[str, torch.nn.Module]]:
    named: list[tuple[str, torch.nn.Module]] = [
        ("generator", state.generator),
        ("discriminator", state.discriminator),
    ]
    return named + ([("average", state.average)] if state.average is not None else [])


def _optimisers(state: TrainState) -> list[tuple[str, torch.optim.Adam]]:
    return [
        ("generator_optimiser", state.generator_optimiser),
        ("discriminator_optimiser", state.discriminator_optimiser),
    ]


def _optimiser_state(tensors: dict[str, Tensor], optimiser: torch.optim.Adam) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "."
    return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory or are not contiguous.
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def _load(folder: Path, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(folder / name))
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, f"{name} cannot be read: {error}") from error


def _meta(text: str) -> CheckpointMeta:
    plain = json.loads(text)
    if plain.pop("format") != FORMAT:
        raise ValueError("another format version")
    images_seen, files = int(plain.pop("images_seen")), plain.pop("files")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return CheckpointMeta(Lineage(**plain), images_seen, files, digest)


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {folder} is damaged: {what}",
        allowed=f"a complete folder of format {FORMAT}",
        do="use an older checkpoint of the run, or download the version again",
    )
