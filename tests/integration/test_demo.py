"""The whole path on the toy shapes: what the demo writes, serves, records and leaves behind."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import COUNTS
from toy_demo import Demo

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.job import training_part
from fastgan_aug.engines.mlflow_client import connect
from fastgan_aug.engines.mlflow_registry import find
from fastgan_aug.engines.mlflow_server import check_port
from fastgan_aug.errors import BalanceError, ModelNotFound, ServiceUnavailable, UnknownCell
from fastgan_aug.gan.checkpoint import GENERATOR, META, read_meta
from serving.client import BalancedBatch, Client

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def mlflow(demo: Demo) -> Any:
    return connect(demo.tracking_uri)


@pytest.fixture(scope="module")
def run(demo: Demo, mlflow: Any) -> Any:
    return mlflow.get_run(demo.results["run_id"])


@pytest.fixture(scope="module")
def batch(demo: Demo) -> BalancedBatch:
    return BalancedBatch.read(demo.folder / "batch.parquet")


def command(*arguments: str) -> str:
    """What another process of the command line prints."""
    line = [sys.executable, "-m", "fastgan_aug.cli.main", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def numbers(value: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Every number of nested JSON values, with its place."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from numbers(inner, f"{where}.{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield where, float(value)


TIDY = """
import os, signal, time
from fastgan_aug.cli.signals import sigterm_as_ctrl_c
from fastgan_aug.engines.ray_cluster import ray_cluster
sigterm_as_ctrl_c()
try:
    with ray_cluster():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except KeyboardInterrupt:
    print("tidied up")
"""


def test_ray_leaves_sigterm_to_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TIDY], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "tidied up\n"), ran.stderr


# -- files -----------------------------------------------------------------------------------------


def test_the_report_is_one_page_that_needs_nothing_else(demo: Demo) -> None:
    page = (demo.folder / "report.html").read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(links) >= 4
    assert [link[:60] for link in links if not link.startswith("data:")] == []
    assert not re.search(r"<(script|link|iframe)\b|@import|url\(", page)
    for cell in COUNTS:
        assert f"<td>{cell}</td>" in page
    assert re.search("HELPS|HARMS|NO EVIDENCE", page)


def test_every_figure_is_finite(demo: Demo) -> None:
    results = demo.results
    assert results["usefulness"]["judgements"][0]["comparisons"][0]["verdict"] in (
        "HELPS",
        "HARMS",
        "NO EVIDENCE",
    )
    assert [row["cell"] for row in results["counts"]] == list(COUNTS)
    assert 0 <= results["faithfulness"]["synthetic"] <= 1
    figures = dict(numbers(results))
    assert len(figures) > 100
    assert [place for place, number in figures.items() if not math.isfinite(number)] == []


def test_the_batch_fills_every_cell_exactly(demo: Demo, batch: BalancedBatch) -> None:
    import pyarrow.parquet as pq

    meta = read_meta(demo.folder / "fit" / demo.results["checkpoint"])
    present = meta.lineage.class_counts
    generated = Counter(batch.cells)
    assert {cell: present[cell] + generated[cell] for cell in COUNTS} == dict.fromkeys(
        COUNTS, max(present.values())
    )
    rows = pq.read_table(demo.folder / "batch.parquet").to_pydict()
    assert all(rows["synthetic"])
    assert rows["shape"] == batch.cells
    assert batch.images.shape == (len(batch), 32, 32)
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    assert len({image.tobytes() for image in batch.images}) == len(batch)


def test_another_process_gets_the_same_images(
    demo: Demo, batch: BalancedBatch, tmp_path: Path
) -> None:
    have = ",".join(f"{cell}={row.present}" for cell, row in batch.plan.asked.items())
    again = tmp_path / "again.parquet"
    said = command(
        *("sample", "--counts", have, "--model", demo.version, "--url", demo.url),
        *("--out", str(again)),
    )
    assert f"{len(batch)} images" in said
    repeated = BalancedBatch.read(again)
    assert repeated.images.tobytes() == batch.images.tobytes()
    assert repeated.seeds.tolist() == batch.seeds.tolist()
    assert repeated.cells == batch.cells


# -- service ---------------------------------------------------------------------------------------


def test_what_cannot_be_answered_is_refused_with_its_own_error(demo: Demo) -> None:
    with Client(demo.url) as client:
        with pytest.raises(UnknownCell, match="star"):
            client.request_balanced_batch({"disc": 5, "star": 1}, model=demo.version)
        with pytest.raises(BalanceError):
            client.request_balanced_batch({"disc": 5, "ring": -1}, model=demo.version)
        with pytest.raises(BalanceError):
            client.request_balanced_batch({"disc": 5, "ring": 9}, 7, model=demo.version)
        with pytest.raises(ModelNotFound, match="promote"):
            client.request_balanced_batch({"disc": 5, "ring": 1})  # nobody promoted a champion


def test_the_service_tells_what_it_serves(demo: Demo) -> None:
    with Client(demo.url) as client:
        facts = client.model(demo.version)
        assert client.ready()
    assert facts["version"] == demo.version
    assert facts["checkpoint"] == read_meta(demo.folder / "fit" / demo.results["checkpoint"]).digest
    assert facts["unseen"] == []


# -- MLflow ----------------------------------------------------------------------------------------


def test_mlflow_has_the_run_with_its_curves(demo: Demo, mlflow: Any, run: Any) -> None:
    assert (run.info.status, run.info.run_name) == ("FINISHED", "toy-shapes")
    assert run.data.params["network.size"] == "32"
    assert run.data.params["training.images"] == "640"
    assert run.data.tags["config_digest"] == demo.results["config_digest"]
    for name in ("loss_real", "loss_fake", "loss_generator"):
        points = mlflow.get_metric_history(run.info.run_id, name)
        assert [point.step for point in points] == list(range(64, 641, 64))
        assert all(math.isfinite(point.value) for point in points)


def test_mlflow_has_the_configuration_pictures_and_checkpoints(
    demo: Demo, mlflow: Any, run: Any, tmp_path: Path
) -> None:
    from PIL import Image

    def files(folder: str | None = None) -> list[str]:
        listed = mlflow.list_artifacts(run.info.run_id, folder)
        return [p for f in listed for p in (files(f.path) if f.is_dir else [f.path])]

    def fetched(path: str) -> Path:
        return Path(mlflow.download_artifacts(run.info.run_id, path, str(tmp_path)))

    there = files()
    assert json.loads(fetched("config.json").read_text()) == demo.results["config"]
    pictures = [f for f in there if re.fullmatch(r"images/samples\+step\+\d+\+.*\.png", f)]
    assert len(pictures) == 2
    with Image.open(fetched(pictures[-1])) as picture:
        assert min(picture.size) > 64
        assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 8
    for name in ("images-000000320", "images-000000640"):
        for file in (META, GENERATOR):
            mine = demo.folder / "fit" / name / file
            assert fetched(f"checkpoints/{name}/{file}").read_bytes() == mine.read_bytes()


def test_mlflow_has_the_data_set_as_an_input(demo: Demo, run: Any, shapes: Dataset) -> None:
    from fastgan_aug.config import Config

    train, _ = training_part(Config.of(demo.results["config"]), shapes)
    (used,) = run.inputs.dataset_inputs
    assert train.digest == demo.results["train_digest"] == run.data.tags["dataset_digest"]
    assert used.dataset.digest in train.digest  # MLflow's own field has room for 36 characters
    assert used.dataset.name == "toy-shapes"


def test_mlflow_has_the_version_as_a_candidate(demo: Demo, mlflow: Any, run: Any) -> None:
    version = mlflow.get_model_version_by_alias(demo.model, "candidate")
    version = mlflow.get_model_version(demo.model, version.version)
    assert str(version.version) == demo.version
    assert version.run_id == run.info.run_id
    assert list(version.aliases) == ["candidate"]
    meta = read_meta(demo.folder / "fit" / demo.results["checkpoint"])
    assert version.tags["checkpoint_sha256"] == meta.digest
    assert version.tags["config_digest"] == demo.results["config_digest"]
    assert version.tags["dataset_digest"] == demo.results["train_digest"]
    assert version.tags["code_version"] == meta.lineage.code_version


def test_mlflow_has_what_the_version_did_to_a_classifier(demo: Demo) -> None:
    version = find(demo.model, demo.version, demo.tracking_uri)
    (judgement,) = demo.results["usefulness"]["judgements"]
    comparison = judgement["comparisons"][0]
    assert version.tags["usefulness small-cnn"].startswith(comparison["verdict"])
    files = connect(demo.tracking_uri).list_artifacts(
        version.run_id, version.tags["usefulness_report"]
    )
    assert {Path(f.path).name for f in files} == {"downstream.json", "downstream.html"}


def test_lineage_goes_from_the_batch_to_the_commit(demo: Demo, batch: BalancedBatch) -> None:
    origin = batch.provenance
    chain = [
        f"models:/{demo.model}/{demo.version}",
        demo.results["run_id"],
        demo.results["config_digest"],
        demo.results["train_digest"],
        origin.code_version,
    ]
    said = command(
        "lineage", str(demo.folder / "batch.parquet"), "--tracking-uri", demo.tracking_uri
    )
    places = [said.index(part) for part in ["batch.parquet", *chain]]
    assert places == sorted(places), said
    assert said.count("= MLflow") == 5
    assert "MLflow has" not in said


# -- nothing built in, nothing left ----------------------------------------------------------------


def test_nothing_of_the_flagship_data_is_in_a_toy_run(
    demo: Demo, batch: BalancedBatch, run: Any
) -> None:
    recorded = json.dumps([demo.results, run.data.params, run.data.tags])
    page = (demo.folder / "report.html").read_text(encoding="utf-8")
    visible = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    for text in (recorded, visible, demo.said(10_000), batch.header.to_json()):
        assert not re.search(
            r"SPECT|\b(level|pattern|CER|BG|COR|(uni|bi)lateral|territory|perfusion|brain)\b",
            text, re.IGNORECASE,
        )  # fmt: skip


def test_ctrl_c_ends_the_demo_and_leaves_nothing(demo: Demo) -> None:
    url, tracking_uri = demo.url, demo.tracking_uri
    ended = demo.stop()
    assert ended.processes > 5, "the demo, MLflow, Ray and its replicas ran until now"
    assert ended.code == 0, demo.said()
    assert ended.left == []
    assert len(ended.temporary) == 1
    assert not any(folder.exists() for folder in ended.temporary)
    for address in (url, tracking_uri):
        check_port(int(address.rpartition(":")[2]))
    with pytest.raises(ServiceUnavailable), Client(url) as client:
        client.model("candidate")
    assert not list(demo.folder.rglob("*.tmp-*")), "nothing half-written"
    assert "Traceback" not in demo.said(10_000)
