"""Synthetic slices from a running service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from downstream.arms import SyntheticBatch, SyntheticSource
from fastgan_aug.data.dataset import Dataset
from serving.client import Client


def service_source(client: Client, model: str) -> SyntheticSource:
    """Fills every class up to the majority's count by asking the service.

    Args:
        client: Open for as long as the source is used.
        model: A version's number rather than an alias, which may move between two requests.
    """

    def source(counts: Mapping[str, int], seed: int) -> SyntheticBatch:
        return client.request_balanced_batch(counts, target="majority", model=model, seed=seed)

    return source


def trained_patients(facts: Mapping[str, Any], train: Dataset) -> list[str] | None:
    """Digests of the patients a model saw, where the service's facts tell; else None.

    The service never names patients: a model trained on data of this digest saw these patients.

    Args:
        facts: ``Client.model``.
        train: The training part of the split.
    """
    return train.patient_digests if facts.get("dataset") == train.digest else None
