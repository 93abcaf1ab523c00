from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gan_toy import TRAINING, run, toy_data, toy_lineage, toy_state

from fastgan_aug.errors import CheckpointError
from fastgan_aug.gan.checkpoint import write_checkpoint
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer
from fastgan_aug.gan.training import served_generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = toy_state()
    run(state)
    target = tmp_path_factory.mktemp("checkpoint") / "images-64"
    write_checkpoint(target, state, served_generator(state, toy_data(), TRAINING), toy_lineage())
    return target


def test_same_seed_same_image_in_any_batch(folder: Path) -> None:
    synthesizer = Synthesizer.load(folder)
    disc, ring, _ = synthesizer.space.cells
    seeds = np.arange(2 * CHUNK + 3, dtype=np.uint64)
    cells = [disc if s % 2 else ring for s in seeds]
    together = synthesizer.generate(cells, seeds)
    for size in (1, 5, CHUNK):
        parts = [
            synthesizer.generate(cells[i : i + size], seeds[i : i + size])
            for i in range(0, len(seeds), size)
        ]
        assert np.array_equal(np.concatenate(parts), together)
    order = np.random.default_rng(0).permutation(len(seeds))
    shuffled = synthesizer.generate([cells[i] for i in order], seeds[order])
    assert np.array_equal(shuffled, together[order])
    assert np.array_equal(Synthesizer.load(folder).generate(cells, seeds), together)


def test_images_are_normalised_counts_and_seeds_differ(folder: Path) -> None:
    synthesizer = Synthesizer.load(folder)
    cell = synthesizer.space.cells[0]
    images = synthesizer.generate([cell] * 4, np.arange(4, dtype=np.uint64))
    assert images.shape == (4, 32, 32)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert not np.array_equal(images[0], images[1])
    assert synthesizer.generate([], np.empty(0, np.uint64)).shape == (0, 32, 32)


def test_unseen_cells_are_known_from_the_counts(folder: Path) -> None:
    synthesizer = Synthesizer.load(folder)
    assert [str(c) for c, n in synthesizer.class_counts.items() if not n] == ["cross"]


def test_a_checkpoint_that_does_not_fit_itself_is_refused(folder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    meta = json.loads((broken / "meta.json").read_text())
    meta["config"]["network"]["generator_width"] = 8
    (broken / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match="does not fit"):
        Synthesizer.load(broken)
