from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import gan_toy
import pytest
import torch
from gan_toy import CELLS, TRAINING, toy_data
from safetensors.torch import load_file
from toy import make_toy_folder

from fastgan_aug.cli.evaluate import provenance_of
from fastgan_aug.config import Config, load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import FICTION
from fastgan_aug.engines import local, start
from fastgan_aug.engines.job import FitJob
from fastgan_aug.engines.mlflow_upload import version_tags
from fastgan_aug.errors import CheckpointError, ConfigError
from fastgan_aug.gan.batch import TrainingData
from fastgan_aug.gan.checkpoint import read_meta
from fastgan_aug.gan.prior import (
    APPEARANCE,
    CARD,
    COMPONENTS,
    EMBED,
    FIRST_LAYER,
    WEIGHTS,
    load_prior,
    prior_tensors,
    read_card,
    write_prior,
)
from fastgan_aug.gan.step import TrainState, new_state
from fastgan_aug.quality.plain_words import PHANTOM_FROM_PHANTOMS

NETWORK = replace(gan_toy.NETWORK, appearance=True)
MEAN = torch.full((CELLS,), 1 / CELLS)
FACTS = {
    "network": asdict(NETWORK), "images": 64, "seeds": {"fit": 3}, "dataset_digest": "d" * 64,
    "slices": 19, "patients": 4, "config_digest": "c" * 64, "code_version": "test",
    "command": "none", "scores": {}, "not_for": ["anything"],
}  # fmt: skip


def fresh(
    data: TrainingData | None = None,
    cells: int = CELLS,
    prior: dict[str, torch.Tensor] | None = None,
) -> TrainState:
    cpu = torch.device("cpu")
    return new_state(NETWORK, replace(TRAINING, seed=9), cells, cpu, data or toy_data(), prior)


@pytest.fixture(scope="module")
def trained() -> TrainState:
    state = gan_toy.toy_state(replace(TRAINING, appearance_weight=1.0), NETWORK)
    gan_toy.run(state)
    return state


@pytest.fixture
def folder(trained: TrainState, tmp_path: Path) -> Path:
    write_prior(tmp_path / "prior", prior_tensors(trained, MEAN), FACTS)
    return tmp_path / "prior"


def test_loading_is_bitwise(trained: TrainState, folder: Path) -> None:
    made, loaded = prior_tensors(trained, MEAN), load_prior(NETWORK, folder)
    assert made.keys() == loaded.keys()
    assert all(torch.equal(made[k].float(), loaded[k]) for k in made)
    assert all(t.dtype == torch.float32 for t in loaded.values())


@pytest.mark.parametrize("file", [WEIGHTS, CARD])
def test_another_digest_is_refused(folder: Path, file: str) -> None:
    content = bytearray((folder / file).read_bytes())
    place = content.index(b'"sha256": "') + 12 if file == CARD else len(content) // 2
    content[place] = content[place] ^ 1
    (folder / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"sha256|cannot be read"):
        load_prior(NETWORK, folder)


def test_a_prior_that_is_not_there_is_said_to_be_damaged(folder: Path) -> None:
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="scratch"):
        load_prior(NETWORK, folder)


def test_another_network_is_refused_with_what_is_allowed(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Allowed: network.generator_width = 4, network.latent = 8"
    ):
        load_prior(replace(NETWORK, generator_width=8, latent=16), folder)


@pytest.mark.parametrize("cells", [CELLS, 5])
def test_all_but_the_condition_is_taken(trained: TrainState, folder: Path, cells: int) -> None:
    data, prior = toy_data(), load_prior(NETWORK, folder)
    if cells != CELLS:
        data = replace(data, vectors=torch.eye(cells), flippable=data.flippable[[0, 1, 2, 0, 1]])
    scratch, state = fresh(data, cells), fresh(data, cells, prior)
    latent, mine = NETWORK.latent, state.generator.embed.weight
    middle = slice(latent, latent + cells)
    assert torch.equal(mine[:, middle], scratch.generator.embed.weight[:, middle])
    first = state.discriminator.input[0].weight
    assert torch.equal(first[:, 1:], scratch.discriminator.input[0].weight[:, 1:])
    assert state.average is not None
    assert trained.average is not None
    for ours, theirs in (
        (state.generator, trained.average),
        (state.average, trained.average),
        (state.discriminator, trained.discriminator),
    ):
        known = theirs.state_dict()
        for name, tensor in ours.state_dict().items():
            if name in (EMBED, "embed.bias", FIRST_LAYER) or "num_batches" in name:
                continue
            part = name.removeprefix("appearance.")
            if part == name:
                half = known[name].half() if name in dict(ours.named_parameters()) else known[name]
                assert torch.equal(tensor, half.float()), name
            elif part in COMPONENTS:
                assert torch.equal(tensor, known[name]), name
    assert torch.equal(mine[:, :latent], trained.average.embed.weight[:, :latent].half().float())


def test_nothing_of_the_cells_is_kept(trained: TrainState) -> None:
    kept = {n.removeprefix(APPEARANCE) for n in prior_tensors(trained, MEAN) if APPEARANCE in n}
    assert kept == set(COMPONENTS)


def test_what_a_mean_condition_gave_is_not_lost(trained: TrainState, folder: Path) -> None:
    generator, prior = trained.average, load_prior(NETWORK, folder)
    assert generator is not None
    inputs = torch.randn(4, generator.embed.in_features, generator=torch.manual_seed(0))
    inputs[:, generator.latent : generator.latent + CELLS] = MEAN
    rest = torch.cat([inputs[:, : generator.latent], inputs[:, generator.latent + CELLS :]], 1)
    without = rest @ prior["generator.embed.weight"].T + prior["generator.embed.bias"]
    assert torch.allclose(generator.embed(inputs), without, atol=5e-3)


# -- the prior that is shipped ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """One factor, four classes, of the shipped prior's size."""
    root = make_toy_folder(tmp_path_factory.mktemp("shapes"))
    found = import_folder(
        root, root / "labels.csv", factors=["shape"], size=read_card().network["size"],
        patient_column="donor", z_column="slice", key=PseudonymKey(bytes(32)),
    )  # fmt: skip
    assert found.dataset is not None
    return found.dataset


def prior_config(images: int, **training: object) -> Config:
    values = load_config("demo").to_dict()
    values["network"] = dict(read_card().network)
    values["augment"] |= {"flip": {}, "sides": {}}
    values["engine"] |= {"kind": "local", "workers": 1}
    values["selection"] |= {"samples": 0, "filter": False}
    values["training"] |= {
        "init": "prior", "images": images, "batch": 8, "checkpoint_every": 16, **training
    }  # fmt: skip
    return Config.of(values)


def quietly(images: int, values: object) -> None:
    """Told of the progress."""


@pytest.fixture(scope="module")
def whole(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior") / "run"
    return local.fit(FitJob(prior_config(32), shapes, folder), quietly).checkpoint


def test_a_fit_of_one_factor_and_four_classes_names_its_prior(whole: Path, shapes: Dataset) -> None:
    lineage = read_meta(whole).lineage
    assert lineage.prior == read_card().sha256
    assert len(lineage.class_counts) == 4
    weights = load_file(whole / "generator.safetensors")
    assert all(math.isfinite(float(t.double().abs().max())) for t in weights.values() if t.numel())


def test_version_and_report_name_the_prior_and_warn_of_phantoms(whole: Path) -> None:
    meta = read_meta(whole)
    assert version_tags(meta)["prior"] == read_card().sha256
    told = provenance_of(meta, "torch")
    assert told["prior"] == read_card().sha256
    assert "warning" not in told, "somebody's own slices"
    phantom = replace(meta, lineage=replace(meta.lineage, pseudonym_key=FICTION))
    assert provenance_of(phantom, "torch")["warning"] == PHANTOM_FROM_PHANTOMS
    scratch = replace(phantom, lineage=replace(phantom.lineage, prior=None))
    assert not {"prior", "warning"} & provenance_of(scratch, "torch").keys()
    assert "prior" not in version_tags(scratch)


@pytest.mark.slow
def test_a_resumed_fit_is_the_whole_one_and_does_not_read_the_prior(
    shapes: Dataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = FitJob(prior_config(16), shapes, tmp_path / "run")
    local.fit(job, quietly)

    def refused(*arguments: object) -> None:
        raise AssertionError("the prior was read")

    monkeypatch.setattr(start, "load_prior", refused)
    monkeypatch.setattr(start, "read_card", refused)
    resumed = local.fit(replace(job, config=prior_config(32), resume=True), quietly).checkpoint
    for name in ("generator.safetensors", "state.safetensors"):
        ours, theirs = load_file(resumed / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in theirs), name
    assert read_meta(resumed).lineage.prior == read_meta(whole).lineage.prior


def test_a_fit_from_the_prior_is_not_continued_from_scratch(whole: Path, shapes: Dataset) -> None:
    other = FitJob(prior_config(48, init="scratch"), shapes, whole.parent, resume=True)
    with pytest.raises(CheckpointError, match=r"training.init"):
        local.fit(other, quietly)


def test_another_network_is_refused_before_anything_starts(shapes: Dataset, tmp_path: Path) -> None:
    values = prior_config(16).to_dict()
    values["network"]["generator_width"] = 4
    with pytest.raises(ConfigError, match=r"network.generator_width = 8"):
        local.fit(FitJob(Config.of(values), shapes, tmp_path / "run"), quietly)
    assert not (tmp_path / "run").exists()


def test_the_shipped_card_says_what_it_is_and_is_not(tmp_path: Path) -> None:
    card = read_card()
    assert card.slices > 0
    assert len(card.dataset_digest) == len(card.config_digest) == len(card.sha256) == 64
    assert any("proves nothing" in line or "shows nothing" in line for line in card.not_for)
    assert set(card.seeds["phantoms"]).isdisjoint({0, 1, 60, 100_000, *range(1000, 1016)})
    json.dumps(asdict(card), allow_nan=False)
