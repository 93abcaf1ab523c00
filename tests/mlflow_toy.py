"""A run, a checkpoint and a report for tests of MLflow: nothing is trained."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.engines import mlflow_promotion as promotion
from fastgan_aug.engines import mlflow_registry as registry
from fastgan_aug.engines.mlflow_client import connect
from fastgan_aug.engines.mlflow_tracking import RunTracker, TrackedDataset
from fastgan_aug.gan.checkpoint import Lineage, write_checkpoint
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.gan.step import new_state
from fastgan_aug.quality.gate import Rule, judge
from fastgan_aug.quality.metric import Metric
from fastgan_aug.quality.report import QualityReport

SPACE = {"shape": ["ring", "bar", "dot", "cross"]}
NETWORK = NetworkConfig(size=32, latent=8, embedding=8, generator_width=4, discriminator_width=4)
LINEAGE = Lineage(
    config={"network": {"size": 32}},
    config_digest="c" * 64,
    space=SPACE,
    class_counts={"ring": 20, "bar": 10, "dot": 5, "cross": 0},
    dataset_digest="d" * 64,
    patient_digests=["a" * 64, "b" * 64],
    code_version="0.1.0+abcdef0",
    pseudonym_key="unkeyed",
    grouping="patient",
)


def checkpoint(folder: Path, seed: int = 0) -> Path:
    dimension = ConditionSpace.of(SPACE).dimension
    state = new_state(NETWORK, TrainingConfig(seed=seed), dimension, torch.device("cpu"))
    state.images_seen = 4000
    write_checkpoint(folder, state, state.generator, LINEAGE)
    return folder


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (320, 320), 99).save(stream, "PNG")
    return stream.getvalue()


def finished_run(folder: Path, uri: str) -> str:
    tracker = RunTracker(folder, uri=uri, experiment="toy", name="toy")
    tracker.start(
        {"training": {"batch": 4, "seed": 0}, "text": "x" * 9000},
        TrackedDataset("shapes", LINEAGE.dataset_digest, LINEAGE.class_counts),
        {"code_version": LINEAGE.code_version},
    )
    for step in range(100, 4100, 100):
        tracker.metrics(step, {"loss_d": 1 / step, "loss_g": float("nan")})
    tracker.picture("samples", 4000, png())
    tracker.artefact(checkpoint(folder / "images-000004000"), "checkpoints/images-000004000")
    tracker.finish()
    assert tracker.close(60)
    assert tracker.run_id is not None
    return tracker.run_id


def artefacts(client: object, run_id: str, path: str | None = None) -> set[str]:
    found: set[str] = set()
    for item in client.list_artifacts(run_id, path):  # type: ignore[attr-defined]
        found |= artefacts(client, run_id, item.path) if item.is_dir else {item.path}
    return found


def record(
    version: registry.RegisteredVersion, uri: str, folder: Path, kid: float
) -> QualityReport:
    """A quality report of that version, which passes up to a KID of 0.05, logged."""
    metrics = [Metric("kid", "disc", kid, 5, bound=0.05)]
    sha = version.tags["checkpoint_sha256"]
    report = QualityReport(metrics, {}, judge([Rule("kid")], metrics), {"checkpoint": sha})
    report.write(folder / "report.json")
    (folder / "report.html").write_text("<p>looked at</p>")
    promotion.record_report(version, folder, uri)
    return report


def promoted(version: registry.RegisteredVersion, uri: str, **more: object):
    named = {"by": "A. Person", "reason": "a reason"} | more
    return promotion.promote(version.name, version.version, uri, **named)  # type: ignore[arg-type]


def champion_of(version: registry.RegisteredVersion, uri: str) -> str | None:
    return connect(uri).get_registered_model(version.name).aliases.get("champion")
