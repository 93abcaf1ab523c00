"""Synthetic slices from a running service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from downstream.arms import SyntheticBatch, SyntheticSource
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.errors import LeakageError
from serving.client import Client
from serving.request import FILTER


def service_source(client: Client, model: str, *, filtered: bool = False) -> SyntheticSource:
    """Adds slices by asking the service.

    Args:
        client: Open for as long as the source is used.
        model: A version's number rather than an alias, which may move between two requests.
        filtered: Whether the version's filter judges them.
    """

    def source(counts: Mapping[str, int], target: Mapping[str, int], seed: int) -> SyntheticBatch:
        return client.request_balanced_batch(
            counts, target, model=model, seed=seed, filter=FILTER if filtered else None
        )

    return source


def trained_patients(facts: Mapping[str, Any], train: Dataset) -> SeenPatients:
    """The patients a model saw, as far as the service's facts prove it.

    The service never names patients: a model trained on data of this digest saw these patients.

    Args:
        facts: ``Client.model``.
        train: The training part of the split.

    Raises:
        LeakageError: the model was trained on other data, so its patients are unknown.
    """
    if facts.get("dataset") == train.digest:
        return SeenPatients.of(train)
    raise LeakageError(
        "the patients the model saw are unknown: it was trained on other data than the training "
        "part of this split",
        allowed="a model of this training part, or one whose checkpoint MLflow can show",
        do="give MLflow with --tracking-uri, or the model's own data and configuration",
    )
