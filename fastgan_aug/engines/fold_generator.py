"""The generator of a fold: fitted and judged as every other one, and kept whatever the gate says.

To drop the folds whose generator fails would select, so a FAIL is written down and shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastgan_aug.code_version import code_version
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.job import tracked_run_id
from fastgan_aug.engines.mlflow_promotion import record_report
from fastgan_aug.engines.mlflow_registry import register
from fastgan_aug.engines.pieces import FitPiece, fit_and_choose, fit_digest, samples, write_json
from fastgan_aug.errors import ConfigError, DataError
from fastgan_aug.gan.checkpoint import read_meta
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.ablation import verdict_record
from fastgan_aug.quality.case import wanted_counts
from fastgan_aug.quality.evaluate import evaluate

# Training and validation rows of the fold, read where the piece is done.
Parts = Callable[[], tuple[Dataset, Dataset]]
REPORT = "quality"
MODEL_SUFFIX = "-folds"


@dataclass(frozen=True)
class GeneratorPiece(FitPiece):
    """The fit of one fold's generator.

    Attributes:
        parts: Reads the fold; the generator never sees the second part, the gate does.
        tracking_uri: MLflow's; None registers nothing.
    """

    parts: Parts
    tracking_uri: str | None = None

    @property
    def checkpoint(self) -> Path:
        """The chosen checkpoint's folder, once the piece is done.

        Raises:
            ConfigError: it is not done.
        """
        if (record := self.done) is None:
            raise ConfigError(f"the generator {self.key} is not fitted", do="fit it first")
        return self.folder / str(record["checkpoint"])


def fit_in_time(deadline: float, piece: GeneratorPiece) -> dict[str, Any] | None:
    """``fit_generator``; after the deadline a finished one is still looked at.

    Args:
        deadline: Seconds since 1970, by which all processes and nodes mean the same moment.
        piece: The fit.

    Returns:
        The record; None where it is too late and the fit was not begun.

    Raises:
        FastGANAugError: see ``fit_generator``.
    """
    late = piece.done is None and time.time() >= deadline
    return None if late else fit_generator(piece)


def fit_generator(piece: GeneratorPiece) -> dict[str, Any]:
    """Fits, or continues a fit, asks the gate, registers without an alias, and writes that down.

    Returns:
        The record, plain JSON values: ``verdict`` is the gate's, with the answers that fail.

    Raises:
        ConfigError: a finished one in the folder is of other data or another configuration.
        FastGANAugError: see ``engines.local.fit``.
    """
    train, validation = piece.parts()
    record = piece.done
    if record is not None:
        check_same(piece, record, train)
        return record
    checkpoint = fit_and_choose(piece, train, tracking_uri=piece.tracking_uri)
    meta, told = read_meta(checkpoint), piece.told
    record = {
        "name": piece.name,
        "seed": piece.seed,
        "checkpoint": checkpoint.name,
        "checkpoint_digest": meta.digest,
        "images": meta.images_seen,
        "seconds": told.seconds,
        "config_digest": fit_digest(piece.config),
        "dataset_digest": train.digest,
        "patients": len(train.patients),
        "slices": {str(c): n for c, n in train.class_counts.items()},
        "verdict": _judged(piece, checkpoint, train, validation),
        "code_version": code_version(),
    }
    record["version"] = _registered(piece, checkpoint)
    write_json(piece.result_path, record)
    return record


def check_same(piece: GeneratorPiece, record: dict[str, Any], train: Dataset) -> None:
    """Verifies that a finished generator is the one that is asked for.

    Raises:
        ConfigError: otherwise.
    """
    expected = {"config_digest": fit_digest(piece.config), "dataset_digest": train.digest}
    differing = [name for name, value in expected.items() if record[name] != value]
    if differing:
        raise ConfigError(
            f"{piece.result_path} is of another fit: {', '.join(differing)} differ",
            allowed="the same data, configuration and budget",
            do="choose another --out, or remove that file and its fit to do it again",
        )


def _judged(
    piece: GeneratorPiece, checkpoint: Path, train: Dataset, validation: Dataset
) -> dict[str, Any]:
    """The gate's verdict on the fold's generator against patients it has not seen."""
    if not validation.labelled.any():
        return _unasked("the fold has no validation patients")
    synthesizer = Synthesizer.load(checkpoint)
    made = samples(synthesizer, wanted_counts(train, validation, None), piece.seed)
    try:
        report = evaluate(train, validation, *made, piece.config.quality)
    except DataError as error:  # too few patients to be asked
        return _unasked(error.what)
    origin = {"checkpoint": synthesizer.meta.digest, "engine": synthesizer.engine}
    report = replace(report, provenance=origin | dict(report.provenance))
    (piece.folder / REPORT).mkdir(exist_ok=True)
    report.write(piece.folder / REPORT / "report.json")
    return verdict_record(report.verdict)


def _unasked(why: str) -> dict[str, Any]:
    """In place of a verdict: what was not judged has not passed."""
    failure = {"metric": "gate", "text": f"cannot be asked: {why}"}
    return {"passed": False, "answers": 0, "failures": [failure]}


def _registered(piece: GeneratorPiece, checkpoint: Path) -> str | None:
    """The version that the checkpoint becomes in a model of the folds; None without MLflow."""
    run_id = tracked_run_id(piece.folder)
    if piece.tracking_uri is None or run_id is None:
        return None
    version = register(
        checkpoint,
        uri=piece.tracking_uri,
        model_name=piece.config.tracking.model + MODEL_SUFFIX,
        run_id=run_id,
        extra_tags={"fold": piece.key},
        alias=None,
    )
    if (piece.folder / REPORT / "report.json").is_file():
        record_report(version, piece.folder / REPORT, piece.tracking_uri)
    return version.uri
