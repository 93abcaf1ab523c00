"""What `fastgan-aug downstream` tells MLflow: scores, gains and verdicts, and the written files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downstream.report import UsefulnessReport
    from fastgan_aug.cli.nested_command import Nested
    from fastgan_aug.engines.mlflow_registry import RegisteredVersion

FILES = ("downstream.json", "downstream.html")
SIGN = {"HELPS": 1.0, "NO EVIDENCE": 0.0, "HARMS": -1.0}
"""A verdict as a figure, so that MLflow can sort and plot it."""


def figures_of(report: UsefulnessReport) -> dict[str, float]:
    """Macro-F1 of every arm; gain, p and verdict (see ``SIGN``) of every synthetic one.

    Each name begins with the classifier's.
    """
    found = {}
    for judgement in report.judgements:
        name = f"usefulness/{judgement.classifier}"
        for arm in judgement.arms:
            found[f"{name}/macro_f1/{arm.name}"] = arm.macro_f1.value
        for c in judgement.comparisons:
            found[f"{name}/gain/{c.arm}"] = c.difference.value
            found[f"{name}/p/{c.arm}"] = c.p
            found[f"{name}/verdict/{c.arm}"] = SIGN[c.verdict]
    return found


def words_of(report: UsefulnessReport) -> dict[str, str]:
    """The verdict of each classifier's chosen synthetic arm, and why nothing may be concluded."""
    found = {"usefulness_caveat": report.caveat or "none"}  # of the report before it is gone
    for judgement in report.judgements:
        line = judgement.headline
        told = "NO EVIDENCE: no synthetic arm was tried"
        if line is not None:
            told = f"{line.verdict}: {line.arm} against {line.rival}, {line.reason}"
        found[f"usefulness {judgement.classifier}"] = told
    return found


def record_nested(asked: Nested, report: UsefulnessReport) -> None:
    """A run of its own that names the versions of the folds' generators.

    The same report is told once, however often the command is given; what a kill or an outage left
    is done then.

    Raises:
        StorageError: the record cannot be written.
        RegistryError: it could not be sent when the command was given again.
    """
    from fastgan_aug.engines.mlflow_spool import Spool
    from fastgan_aug.engines.mlflow_tracking import RunTracker, replay

    if asked.tracking_uri is None:
        return
    digest = hashlib.sha256(report.to_json().encode()).hexdigest()
    folder = asked.out / "told" / digest[:12]
    if any(entry.kind == "finish" for entry in Spool(folder).entries()):
        replay(folder, asked.tracking_uri)
        return
    # What a killed command began is said again in the same run: MLflow takes it once.
    config = asked.config
    tracker = RunTracker(
        folder, uri=asked.tracking_uri, experiment=config.tracking.experiment,
        name=f"{config.name}-downstream",
    )  # fmt: skip
    versions = [g["version"] or "not registered" for g in report.provenance["generators"]]
    tags = {"config_digest": config.digest, "report": digest, "generators": ", ".join(versions)}
    settings = {"downstream": config.downstream.model_dump(mode="json")}
    tracker.start(settings, tags=tags | words_of(report))
    tracker.metrics(0, figures_of(report))
    for name in FILES:
        tracker.artefact(asked.out / name, "downstream")
    tracker.finish()
    tracker.close()


def record_served(
    report: UsefulnessReport, folder: Path, version: RegisteredVersion, uri: str
) -> str:
    """The same under the version that was served.

    Args:
        report: The report, written to ``folder``.
        folder: Of its files.
        version: The one that was served.
        uri: MLflow's address.

    Returns:
        Folder of the files among the artefacts of the version's run.

    Raises:
        RegistryError: MLflow refused or could not be reached.
    """
    from fastgan_aug.engines.mlflow_usefulness import record_usefulness

    files = [folder / name for name in FILES]
    return record_usefulness(version, files, figures_of(report), words_of(report), uri)
