"""Bulk: shards that make the service's batch, whatever is interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from fastgan_aug.engines.tasks import map_in_processes
from fastgan_aug.errors import DataError, StorageError
from serving.asking import request_of
from serving.batch import BalancedBatch
from serving.bulk import MANIFEST, PLAN, sample_into, shards
from serving.offline import OfflineClient
from tests.served import TWO_COUNTS, TWO_FACTORS, lineage, tiny_checkpoint

COUNTS = {"none": 40, "left": 12, "both": 25}
REQUEST = request_of(COUNTS, seed=7)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("serving.bulk.SHARD", 10)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return tiny_checkpoint(folder, lineage(TWO_FACTORS, TWO_COUNTS))


@pytest.fixture(scope="module")
def client(checkpoint):
    return OfflineClient(checkpoint)


@pytest.fixture(scope="module")
def batch(client):
    return client.request_balanced_batch(COUNTS, seed=7)


def check(folder, batch) -> None:
    parts = [BalancedBatch.read(path) for path in sorted(folder.glob("part-*.parquet"))]
    assert b"".join(part.images.tobytes() for part in parts) == batch.images.tobytes()
    assert [cell for part in parts for cell in part.cells] == batch.cells
    assert np.concatenate([part.seeds for part in parts]).tolist() == batch.seeds.tolist()
    assert {part.provenance.request_id for part in parts} == {
        json.loads((folder / PLAN).read_text())["provenance"]["request_id"]
    }


def test_the_shards_are_the_batch_cut_in_pieces(client, checkpoint, batch, tmp_path):
    header = client.planned(REQUEST)
    assert list(sample_into(tmp_path / "out", header, checkpoint, map)) == [0, 10, 20, 30, 40, 43]
    check(tmp_path / "out", batch)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [MANIFEST, PLAN, *(f"part-0000{i}.parquet" for i in range(5))]
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["images"] == 43
    table = pads.dataset(tmp_path / "out", format="parquet").to_table()
    assert len(table) == 43
    assert all(table["synthetic"].to_pylist())


def test_a_file_is_written_as_it_comes(client, batch, tmp_path):
    from serving.parquet import write_parquet

    write_parquet(client.answer(REQUEST), tmp_path / "one.parquet")
    assert BalancedBatch.read(tmp_path / "one.parquet").images.tobytes() == batch.images.tobytes()
    batch.to_parquet(tmp_path / "two.parquet")
    one, two = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("one", "two"))
    assert one.equals(two)


def test_what_is_finished_is_kept_and_what_is_missing_made(client, checkpoint, batch, tmp_path):
    header, out = client.planned(REQUEST), tmp_path / "out"
    begun = sample_into(out, header, checkpoint, map)
    assert [next(begun) for _ in range(3)] == [0, 10, 20]
    begun.close()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert len(kept) == 2
    (out / "part-00002.parquet.tmp-0a1b").write_bytes(b"half")
    again = client.planned(replace(REQUEST, request_id="another"))
    assert list(sample_into(out, again, checkpoint, map)) == [20, 30, 40, 43]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(out.glob("*.tmp-*"))
    check(out, batch)
    assert list(sample_into(out, header, checkpoint, map)) == [43]


def test_processes_make_the_same_shards(client, checkpoint, batch, tmp_path):
    header, engine = client.planned(REQUEST), partial(map_in_processes, workers=2)
    # A process of its own imports `serving.bulk` anew; the shards' length is in their rows.
    list(sample_into(tmp_path / "out", header, checkpoint, engine))
    check(tmp_path / "out", batch)


def test_other_folders_are_refused(client, checkpoint, tmp_path):
    header = client.planned(REQUEST)
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match="something else"):
            next(sample_into(folder, header, checkpoint, map))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    out = tmp_path / "out"
    next(sample_into(out, header, checkpoint, map))
    for other in (replace(REQUEST, seed=8), replace(REQUEST, target="minority")):
        with pytest.raises(DataError, match="another request"):
            next(sample_into(out, client.planned(other), checkpoint, map))
    (out / PLAN).write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        next(sample_into(out, header, checkpoint, map))


def test_another_checkpoint_on_a_worker_is_refused(client, tmp_path):
    other = tiny_checkpoint(tmp_path / "other", lineage(TWO_FACTORS, TWO_COUNTS), seed=4)
    with pytest.raises(DataError, match="checkpoint"):
        list(sample_into(tmp_path / "out", client.planned(REQUEST), other, map))


def test_a_shard_that_lost_images_is_told(client, checkpoint, tmp_path):
    header, out = client.planned(REQUEST), tmp_path / "out"
    list(sample_into(out, header, checkpoint, map))
    pq.write_table(
        pq.read_table(out / "part-00001.parquet").slice(0, 3), out / "part-00001.parquet"
    )
    with pytest.raises(StorageError, match="36 images instead of 43"):
        list(sample_into(out, header, checkpoint, map))


def test_nothing_to_make_is_a_complete_folder(client, checkpoint, tmp_path):
    header = client.planned(request_of({"none": 5}))
    assert shards(header) == []
    assert list(sample_into(tmp_path / "out", header, checkpoint, map)) == [0]
    assert json.loads((tmp_path / "out" / MANIFEST).read_text()) == {"images": 0, "shards": []}


def test_more_than_a_folder_holds_is_refused(client):
    with pytest.raises(DataError, match="at most"):
        shards(client.planned(request_of({"none": 0}, 10**9)))
