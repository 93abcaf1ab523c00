"""The filter: thresholds that real slices set, and the same answer however it is asked for."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from served import (
    TWO_COUNTS,
    TWO_FACTORS,
    FolderModels,
    InProcess,
    filtered_checkpoint,
    lineage,
    slices_of,
    tiny_checkpoint,
)
from toy import toy_dataset

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import REASONS
from fastgan_aug.errors import BalanceError, CheckpointError, DataError, LeakageError
from fastgan_aug.quality.filter_fitting import _thresholds, fit_sample_filter
from fastgan_aug.quality.sample_filter import ACCEPTED, SampleFilter
from serving.batch import BalancedBatch
from serving.bulk import sample_into
from serving.client import Client
from serving.generating import chunks, filter_of
from serving.models import LoadedModel
from serving.offline import OfflineClient
from serving.protocol import ATTEMPTS, OUTCOME, Chunk, sample_seed
from serving.server.app import create_app
from serving.server.places import places
from serving.server.scheduler import Scheduler

COUNTS = {cell: n for cell, n in TWO_COUNTS.items() if n}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return labelled(tmp_path_factory.mktemp("real"), 1)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Slices of other patients."""
    return labelled(tmp_path_factory.mktemp("fresh"), 2)


def labelled(folder: Path, seed: int) -> Dataset:
    dataset = toy_dataset(folder, seed)
    return dataset.take(dataset.labelled)


@pytest.fixture(scope="module")
def fitted(real: Dataset) -> SampleFilter:
    return fit_sample_filter(real)


def rates(fitted: SampleFilter, images: np.ndarray, cells: np.ndarray) -> np.ndarray:
    return np.bincount(fitted.judge(images, cells), minlength=len(REASONS) + 1) / len(images)


def test_real_slices_of_other_patients_pass(fitted: SampleFilter, fresh: Dataset) -> None:
    assert rates(fitted, fresh.images, fresh.cell_index)[ACCEPTED] > 0.75


def test_copies_of_training_slices_are_refused(fitted: SampleFilter, real: Dataset) -> None:
    assert rates(fitted, real.images, real.cell_index)[1 + REASONS.index("near_copy")] == 1


@pytest.mark.parametrize("way", ["mirrored", "noisy", "moved"])
def test_copies_that_were_changed_a_little_are_refused(
    fitted: SampleFilter, real: Dataset, way: str
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, real.images.shape).astype(np.float32)
    images = {
        "mirrored": np.ascontiguousarray(real.images[:, :, ::-1]),
        "noisy": np.clip(real.images + noise, 0, 1),
        "moved": np.roll(real.images, (1, -1), (1, 2)),
    }[way]
    assert rates(fitted, images, real.cell_index)[1 + REASONS.index("near_copy")] > 0.7


def test_exact_copies_are_refused_where_two_patients_are_the_same(
    fitted: SampleFilter, real: Dataset
) -> None:
    own = real.take(np.arange(40))
    twice = fit_sample_filter(named_twice(own))
    assert twice.least_nearest.max() < fitted.least_nearest.min()
    assert rates(twice, own.images, own.cell_index)[1 + REASONS.index("near_copy")] == 1


def named_twice(dataset: Dataset) -> Dataset:
    """The slices, and once more under other patients' names."""
    table, owners = dataset.table, dataset.column("patient_id").astype(str)
    position = table.schema.get_field_index("patient_id")
    kind = table.schema.field(position)
    others = pa.array([f"other {owner}" for owner in owners]).cast(kind.type)
    again = table.set_column(position, kind, others)
    return Dataset(pa.concat_tables([table, again]).combine_chunks(), dataset.meta)


def test_variety_is_kept_where_odd_slices_carry_it(real: Dataset) -> None:
    """One cell is all but one slice, again and again; its odd ones are nearly all its variety."""
    features = np.random.default_rng(0).normal(0, 0.01, (60, 27))
    features[:3] += 5 * np.eye(27)[:3]
    far = np.linalg.norm(features, axis=1)
    sure = np.ones(60)
    assert _thresholds(features, sure, far) == (1.0, np.inf)
    sure[:3] = 0.0
    assert _thresholds(features, sure, far) == (0.0, np.inf)
    even = np.random.default_rng(0).normal(0, 1, (60, 27))
    low, high = _thresholds(even, np.linspace(0, 1, 60), np.linalg.norm(even, axis=1))
    assert low > 0
    assert high < np.inf


def test_slices_of_another_class_are_refused_by_confidence(
    fitted: SampleFilter, fresh: Dataset
) -> None:
    wrong = (fresh.cell_index + 1) % len(fresh.meta.space.cells)
    found = rates(fitted, fresh.images, wrong)
    assert found[1 + REASONS.index("confidence")] > 0.5


def test_what_is_no_such_slice_at_all_is_refused(fitted: SampleFilter) -> None:
    noise = np.random.default_rng(0).random((20, 32, 32)).astype(np.float32)
    assert rates(fitted, noise, np.zeros(20, np.int64))[ACCEPTED] == 0


def test_a_verdict_does_not_hang_on_what_stands_beside(
    fitted: SampleFilter, fresh: Dataset
) -> None:
    together = fitted.judge(fresh.images, fresh.cell_index)
    alone = [
        fitted.judge(fresh.images[i : i + 7], fresh.cell_index[i : i + 7])
        for i in range(0, len(fresh.images), 7)
    ]
    assert np.array_equal(together, np.concatenate(alone))


def test_a_verdict_does_not_hang_on_threads_or_places(fitted: SampleFilter, fresh: Dataset) -> None:
    """To the last digit that is compared, as good as."""
    one = fitted._distances(fresh.images, fresh.cell_index)
    other = fitted._distances(fresh.images[::-1], fresh.cell_index[::-1])
    assert all(np.array_equal(a, b[::-1]) for a, b in zip(one, other, strict=True))
    before, threads = fitted._confidence(fresh.images, fresh.cell_index), torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        after = fitted._confidence(fresh.images, fresh.cell_index)
    finally:
        torch.set_num_threads(threads)
    assert np.abs(before - after).max() < 1e-12


def test_a_file_holds_all_of_it(fitted: SampleFilter, fresh: Dataset, tmp_path: Path) -> None:
    fitted.save(tmp_path / "filter.safetensors")
    again = SampleFilter.load(tmp_path / "filter.safetensors")
    assert np.array_equal(
        again.judge(fresh.images, fresh.cell_index), fitted.judge(fresh.images, fresh.cell_index)
    )
    (tmp_path / "filter.safetensors").write_bytes(b"no filter")
    with pytest.raises(CheckpointError, match="cannot be read"):
        SampleFilter.load(tmp_path / "filter.safetensors")


def test_synthetic_and_too_few_slices_are_refused(real: Dataset) -> None:
    with pytest.raises(DataError, match="too few"):
        fit_sample_filter(real.take(np.arange(5)))
    same = np.repeat(real.table.column("patient_id")[:1].to_pylist(), 12)
    alone = real.take(np.arange(12)).table
    at = alone.schema.get_field_index("patient_id")
    alone = alone.set_column(
        at, alone.schema.field(at), pa.array(same).cast(alone.schema.types[at])
    )
    with pytest.raises(DataError, match="one patient"):
        fit_sample_filter(Dataset(alone, real.meta))
    position = real.table.schema.get_field_index("synthetic")
    table = real.table.set_column(position, "synthetic", pa.array([True] * len(real)))
    with pytest.raises(LeakageError, match="synthetic"):
        fit_sample_filter(Dataset(table, real.meta))


# -- in an answer ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filtered_checkpoint(tmp_path_factory.mktemp("model"), lineage(TWO_FACTORS, TWO_COUNTS))


@pytest.fixture(scope="module")
def client(checkpoint: Path) -> OfflineClient:
    return OfflineClient(checkpoint)


@pytest.fixture(scope="module")
def batch(client: OfflineClient) -> BalancedBatch:
    return client.request_balanced_batch(COUNTS, 60, seed=3, filter="default")


def test_every_place_is_accounted_for(client: OfflineClient, batch: BalancedBatch) -> None:
    plan, told = batch.plan.generate, batch.outcome
    assert {cell: row["requested"] for cell, row in told.items()} == {
        cell: n for cell, n in plan.items() if n
    }
    refused = sum(row[reason] for row in told.values() for reason in REASONS)
    assert refused > 0  # or this test would show nothing
    for row in told.values():
        assert set(row) == set(OUTCOME)
        assert row["accepted"] + row["unfilled"] == row["requested"]
        assert row["generated"] == row["accepted"] + sum(row[reason] for reason in REASONS)
        assert row["generated"] <= ATTEMPTS * row["requested"]
    assert len(batch) == sum(row["accepted"] for row in told.values())
    assert batch.provenance.filter == client.model()["filter"]


def test_what_is_returned_passes_and_is_made_again_from_its_seed(
    checkpoint: Path, client: OfflineClient, batch: BalancedBatch
) -> None:
    synthesizer = client._loaded.synthesizer
    cells = [synthesizer.space.parse(cell) for cell in batch.cells]
    assert np.array_equal(synthesizer.generate(cells, batch.seeds), batch.images)
    judge = filter_of(checkpoint, synthesizer)
    assert judge is not None
    index = np.asarray([synthesizer.space.index(cell) for cell in cells])
    assert not judge.judge(batch.images, index).any()
    whole = batch.whole
    expected = [
        sample_seed(3, cell, int(i), int(attempt))
        for cell, i, attempt in zip(whole.cells, whole.index, whole.attempts, strict=True)
    ]
    assert expected == batch.seeds.tolist()


def test_copies_are_refused_whatever_cell_was_asked_for(client: OfflineClient) -> None:
    """A cell without a training slice too: what it copies can only be of other cells."""
    model = client._loaded
    assert model.sample_filter is not None
    trained = slices_of(model.synthesizer, 40)  # what its filter was fitted on
    for cell in range(len(model.synthesizer.space.cells)):
        found = rates(model.sample_filter, trained.images, np.full(len(trained), cell))
        assert found[1 + REASONS.index("near_copy")] == 1


def test_without_a_filter_every_image_is_the_same_as_ever(
    client: OfflineClient, batch: BalancedBatch
) -> None:
    plain = client.request_balanced_batch(COUNTS, 60, seed=3)
    assert not plain.outcome
    assert not plain.provenance.filter
    first = batch.whole.attempts == 0
    at = {(c, int(i)): k for k, (c, i) in enumerate(zip(plain.cells, plain.index, strict=True))}
    own = [at[c, int(i)] for c, i in zip(batch.cells, batch.index, strict=True)]
    assert np.array_equal(plain.images[own][first], batch.images[first])


def _fetch(model: LoadedModel, seed: int, target: int, pages: list[tuple[int, int]]) -> Chunk:
    """What the server's scheduler makes of some pages that are asked for at once."""
    from serving.generating import decide
    from serving.request import BatchRequest

    async def all_pages() -> list[Chunk]:
        scheduler = Scheduler()
        header = decide(BatchRequest(COUNTS, target, seed=seed, filter="default"), model)
        jobs = [
            scheduler.submit(model, places(header.plan, seed, page), page[1] - page[0],
                             filtered=True)
            for page in pages
        ]  # fmt: skip
        found: list[list[Chunk]] = []
        for job in jobs:
            found.append([])
            while (chunk := await job.fetch()) is not None:
                found[-1].append(chunk)
        scheduler.close()
        return [chunk for part in found for chunk in part]

    parts = asyncio.run(asyncio.wait_for(all_pages(), 120))
    refusals = [part.refusals for part in parts if part.refusals is not None]
    return Chunk(
        np.concatenate([p.images for p in parts]), [c for p in parts for c in p.cells],
        np.concatenate([p.seeds for p in parts]), np.concatenate([p.index for p in parts]),
        np.concatenate([p.unseen for p in parts]), np.concatenate(refusals),
    )  # fmt: skip


@pytest.mark.parametrize("cuts", [[], [1], [37, 40, 200]])
def test_the_server_makes_the_same_however_pages_are_cut(
    client: OfflineClient, batch: BalancedBatch, cuts: list[int]
) -> None:
    total = batch.plan.total_generate
    edges = [0, *cuts, total]
    pages = list(itertools.pairwise(edges))
    made = _fetch(client._loaded, 3, 60, pages)
    kept = made[made.filled]
    assert kept.cells == batch.cells
    assert np.array_equal(kept.images, batch.images)
    assert np.array_equal(kept.seeds, batch.seeds)


def test_the_engine_does_not_decide_which_images_there_are(
    checkpoint: Path, batch: BalancedBatch
) -> None:
    """One that computes the images a little otherwise has others, of the same seeds."""
    other = OfflineClient(checkpoint)
    synthesizer = other._loaded.synthesizer
    generator = synthesizer.generator
    synthesizer.run_by("nudged", lambda z, c: generator(z, c) + 1e-5)
    found = other.request_balanced_batch(COUNTS, 60, seed=3, filter="default")
    assert not np.array_equal(found.images, batch.images)
    assert np.array_equal(found.seeds, batch.seeds)
    assert found.outcome == batch.outcome


def test_places_that_nothing_fills_are_told_and_left_out(
    client: OfflineClient, tmp_path: Path
) -> None:
    """A filter that refuses everything: each place is tried so often, and no more."""
    model = client._loaded
    assert model.sample_filter is not None
    strict = replace(
        model.sample_filter, least_confidence=np.full_like(model.sample_filter.least_confidence, 2)
    )
    never = replace(model, sample_filter=strict)
    made = list(chunks(never, client.plan(COUNTS, 40).plan, 0, filtered=True))
    assert all(not chunk.filled.any() for chunk in made)
    assert {int(n) for chunk in made if chunk.refusals is not None
            for n in chunk.refusals.sum(axis=1)} == {ATTEMPTS}  # fmt: skip
    header = client.plan(COUNTS, 40, filter="default")
    empty = BalancedBatch.collect(header, made)
    assert len(empty) == 0
    assert sum(row["unfilled"] for row in empty.outcome.values()) == header.plan.total_generate
    empty.to_parquet(tmp_path / "empty.parquet")
    assert BalancedBatch.read(tmp_path / "empty.parquet").outcome == empty.outcome


def test_a_file_tells_what_the_filter_did(batch: BalancedBatch, tmp_path: Path) -> None:
    batch.to_parquet(tmp_path / "batch.parquet")
    again = BalancedBatch.read(tmp_path / "batch.parquet")
    assert again.outcome == batch.outcome
    assert np.array_equal(again.images, batch.images)
    assert again.refusals is not None
    assert np.array_equal(again.refusals, batch.refusals)


def test_a_version_without_a_filter_says_so(tmp_path: Path) -> None:
    bare = OfflineClient(tiny_checkpoint(tmp_path / "bare", lineage(TWO_FACTORS, TWO_COUNTS)))
    with pytest.raises(BalanceError, match="has no filter"):
        bare.request_balanced_batch(COUNTS, filter="default")
    with pytest.raises(BalanceError, match="filter is 'best'"):
        bare.request_balanced_batch(COUNTS, filter="best")


def test_over_http_it_is_the_same_answer_page_by_page(
    checkpoint: Path, batch: BalancedBatch
) -> None:
    app = create_app(FolderModels(checkpoint), most_images=50)
    with Client(transport=InProcess(app)) as client:
        served = client.request_balanced_batch(COUNTS, 60, seed=3, filter="default")
        parts = list(client.iter_batches(COUNTS, 60, batch_size=64, seed=3, filter="default"))
    assert np.array_equal(served.images, batch.images)
    assert served.outcome == batch.outcome
    assert sum(map(len, parts)) == len(batch)
    with Client(transport=InProcess(create_app(FolderModels(checkpoint)))) as client:
        assert client.model("1")["filter"] == batch.provenance.filter


def test_shards_in_bulk_hold_the_same_images(
    checkpoint: Path, client: OfflineClient, batch: BalancedBatch, tmp_path: Path
) -> None:
    header = client.plan(COUNTS, 60, seed=3, filter="default")
    done = list(sample_into(tmp_path / "out", header, checkpoint, map))
    assert done[-1] == header.plan.total_generate
    again = BalancedBatch.read(tmp_path / "out" / "part-00000.parquet")
    assert np.array_equal(again.images, batch.images)
    assert again.outcome == batch.outcome
