from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gan_toy import NETWORK, TRAINING, run, toy_data, toy_lineage, toy_state

from fastgan_aug.errors import CheckpointError, StorageError
from fastgan_aug.gan import checkpoint
from fastgan_aug.gan.checkpoint import (
    checkpoint_name,
    newest_checkpoint,
    prune,
    read_meta,
    restore,
    state_tensors,
    write_checkpoint,
)
from fastgan_aug.gan.step import TrainState
from fastgan_aug.gan.training import served_generator


def save(folder: Path, state: TrainState) -> Path:
    target = folder / checkpoint_name(state.images_seen)
    write_checkpoint(target, state, served_generator(state, toy_data(), TRAINING), toy_lineage())
    return target


@pytest.fixture(scope="module")
def trained() -> TrainState:
    state = toy_state()
    run(state)
    return state


@pytest.fixture
def saved(trained: TrainState, tmp_path: Path) -> Path:
    return save(tmp_path, trained)


def test_save_and_load_is_bitwise(trained: TrainState, saved: Path) -> None:
    fresh = toy_state(replace(TRAINING, seed=99))
    meta = restore(saved, fresh)
    assert fresh.images_seen == meta.images_seen == 64
    mine, other = state_tensors(trained), state_tensors(fresh)
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[k], other[k]) for k in mine)


def test_a_resumed_run_equals_the_whole_one(tmp_path: Path) -> None:
    whole, part = toy_state(), toy_state()
    run(whole)
    run(part, replace(TRAINING, images=24))
    fresh = toy_state()
    restore(save(tmp_path, part), fresh)
    run(fresh)
    for name, tensor in state_tensors(whole).items():
        assert torch.equal(tensor, state_tensors(fresh)[name]), name


@pytest.mark.parametrize("file", ["generator.safetensors", "state.safetensors"])
def test_one_flipped_byte_is_found(saved: Path, file: str) -> None:
    content = bytearray((saved / file).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / file).write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        read_meta(saved)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 3}', '{"format": 2}'])
def test_a_damaged_manifest_is_refused(saved: Path, damage: str) -> None:
    (saved / "meta.json").write_text(damage)
    with pytest.raises(CheckpointError, match="damaged"):
        read_meta(saved)


def test_a_missing_generator_or_folder_is_refused(saved: Path) -> None:
    (saved / "generator.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        read_meta(saved)
    with pytest.raises(CheckpointError, match="missing"):
        read_meta(saved.parent / "nothing")


def test_other_networks_are_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        restore(saved, toy_state(network=replace(NETWORK, generator_width=8)))


def test_newest_passes_over_a_damaged_one(trained: TrainState, saved: Path) -> None:
    newer = saved.with_name(checkpoint_name(128))
    shutil.copytree(saved, newer)
    (newer / "generator.safetensors").write_bytes(b"half")
    assert newest_checkpoint(saved.parent) == saved
    assert newest_checkpoint(saved.parent / "nowhere") is None


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for seen in (10, 20, 30):
        (tmp_path / checkpoint_name(seen)).mkdir()
    (tmp_path / (checkpoint_name(40) + ".tmp-0000")).mkdir()
    prune(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [checkpoint_name(20), checkpoint_name(30)]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 kB: the kernel's own refusal, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_leaves_nothing_and_keeps_the_old(
    trained: TrainState, saved: Path, small_files: None
) -> None:
    with pytest.raises(StorageError, match="could not be written"):
        save(saved.parent, trained)
    assert read_meta(saved).images_seen == trained.images_seen
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_no_pickle_in_the_folder(saved: Path) -> None:
    assert sorted(p.name for p in saved.iterdir()) == [
        "generator.safetensors", "meta.json", "state.safetensors",
    ]  # fmt: skip
    assert checkpoint.FORMAT == 3
