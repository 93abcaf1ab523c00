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
    """Digests of the patients a model saw, as far as the service's facts tell; else None.

    Where the service names no patients, a model trained on data of the same digest saw ``train``'s.

    Args:
        facts: ``Client.model``.
        train: The training part of the split.
    """
    named = facts.get("patient_digests")
    if named is not None:
        return [str(digest) for digest in named]
    return train.patient_digests if facts.get("dataset") == train.digest else None
