"""Sends a spool to MLflow, in order, each record so that sending it again changes nothing."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from fastgan_aug.engines.mlflow_client import connect, experiment_id
from fastgan_aug.engines.mlflow_spool import Entry, Spool

logger = logging.getLogger(__name__)
SPOOL_TAG = "fastgan_aug.spool"
# MLflow's own limits, from mlflow.utils.validation.
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
KEY_LENGTH = 250
DATASET_DIGEST_LENGTH = 36
DATASET_NAME_LENGTH = 500


class Sender:
    """Brings a spool's pending records to one MLflow address."""

    def __init__(self, spool: Spool, uri: str) -> None:
        self._spool, self._uri = spool, uri
        self._client: Any = None
        self._artefacts: Any = None

    def send_next(self) -> bool:
        """Sends the next record, or the next run of metrics together.

        Returns:
            Whether there was something to send.

        Raises:
            Exception: MLflow was not reached; the spool still has the record.
        """
        pending = self._spool.pending()
        if not pending:
            return False
        group = _group(pending)
        self._client = self._client or connect(self._uri)
        run_id = self._run_id(pending[0].time_ms)
        try:
            self._deliver(run_id, group)
        except FileNotFoundError as error:
            logger.info("%s was pruned before it could be sent", error.filename)
        except Exception as error:
            if not _is_refusal(error):
                raise
            logger.warning("MLflow refused a %s record: %s", group[0].kind, error)
        self._spool.confirm(offset=group[-1].end)
        self._spool.forget(group[0])
        return True

    def _run_id(self, start_ms: int) -> str:
        run_id = self._spool.sent["run_id"]
        if run_id is None:
            identity = self._spool.identity
            experiment = experiment_id(self._client, identity["experiment"])
            # A creation whose answer was lost has left a run with our key.
            found = self._client.search_runs(
                [experiment], f"tags.`{SPOOL_TAG}` = '{identity['key']}'", max_results=1
            )
            run = found[0] if found else self._client.create_run(
                experiment,
                start_time=start_ms,
                run_name=identity["name"],
                tags={SPOOL_TAG: identity["key"], "mlflow.loggedImages": "true"},
            )  # fmt: skip
            run_id = run.info.run_id
            self._spool.confirm(run_id=run_id)
        return str(run_id)

    def _deliver(self, run_id: str, group: Sequence[Entry]) -> None:
        first = group[0]
        match first.kind:
            case "start":
                self._start(run_id, first)
            case "metrics":
                for points in in_parts(_metrics(group), METRICS_PER_BATCH):
                    self._client.log_batch(run_id, metrics=points)
            case "file" | "folder":
                self._artefact(run_id, first)
            case "finish":
                self._client.set_terminated(run_id, first.values["status"], first.time_ms)

    def _start(self, run_id: str, entry: Entry) -> None:
        from mlflow.entities import Param, RunTag

        self._client.update_run(run_id, status="RUNNING")
        config = entry.values["config"]
        # A parameter cannot be changed: a resumed run adds what is new; config.json is current.
        known = self._client.get_run(run_id).data.params
        params = [
            Param(key[:KEY_LENGTH], cut(value, PARAM_LENGTH))
            for key, value in flatten(config)
            if key[:KEY_LENGTH] not in known
        ]
        for some in in_parts(params, PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=some)
        said = entry.values["tags"].items()
        tags = [RunTag(key[:KEY_LENGTH], cut(str(value), TAG_LENGTH)) for key, value in said]
        for few in in_parts(tags, PARAMS_PER_BATCH):
            self._client.log_batch(run_id, tags=few)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "config.json")
            path.write_text(json.dumps(config, indent=2, sort_keys=True))
            self._store(run_id).log_artifact(str(path))
        if entry.values["dataset"]:
            self._client.log_inputs(run_id, datasets=[_dataset_input(entry.values["dataset"])])

    def _artefact(self, run_id: str, entry: Entry) -> None:
        path, name = self._spool.path(entry), entry.values["to"]
        if entry.kind == "folder":
            if not path.is_dir():
                raise FileNotFoundError(2, "no such folder", str(path))
            self._store(run_id).log_artifacts(str(path), name)
        else:
            self._store(run_id).log_artifact(str(path), name)

    def _store(self, run_id: str) -> Any:
        # The client's own `log_artifact` keeps a run's store for the whole process, with the
        # address it had at first: a server that came back on another port would not be found.
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if self._artefacts is None:
            place = self._client.get_run(run_id).info.artifact_uri
            self._artefacts = get_artifact_repository(place, tracking_uri=self._uri)
        return self._artefacts


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested plain values as ``("training.batch", "4")``; lists stay JSON."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def cut(text: str, length: int) -> str:
    """``text`` within ``length`` characters, ending in an ellipsis where something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def in_parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """``items`` in order, at most ``size`` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _group(pending: Sequence[Entry]) -> Sequence[Entry]:
    """The first record; metrics together with those that follow."""
    together = list(takewhile(lambda e: e.kind == "metrics", pending[:METRICS_PER_BATCH]))
    return together or pending[:1]


def _metrics(group: Sequence[Entry]) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(key, value, entry.time_ms, entry.values["step"])
        for entry in group
        for key, value in entry.values["values"].items()
    ]


def _dataset_input(data: Mapping[str, Any]) -> Any:
    """The digest's first 36 characters (MLflow's limit) as digest, all of it in the profile."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    counts = dict(data["class_counts"])
    profile = {"sha256": data["digest"], "num_rows": sum(counts.values()), "cells": counts}
    dataset = Dataset(
        name=cut(data["name"], DATASET_NAME_LENGTH),
        digest=data["digest"][:DATASET_DIGEST_LENGTH],
        source_type="fastgan-aug",
        source=json.dumps({"source": data["source"], "sha256": data["digest"]}),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _is_refusal(error: Exception) -> bool:
    """Whether MLflow understood the record and will never take it."""
    status = getattr(error, "get_http_status_code", lambda: 500)()
    return status in (400, 409, 413, 422)
