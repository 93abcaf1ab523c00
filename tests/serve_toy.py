"""What tests of the application on Ray Serve share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil

from fastgan_aug.config import ServingConfig
from fastgan_aug.engines.mlflow_server import free_port
from serving.batch import BalancedBatch
from serving.client import Client
from serving.parquet import merge_outcome
from serving.protocol import Outcome
from serving.request import BatchRequest


def settings(**changes: object) -> ServingConfig:
    plain = {"port": free_port(), "timeout": 120, "cpus_per_replica": 0.25, "drain_seconds": 3}
    return ServingConfig.model_validate(plain | changes)


def bearer(tokens, name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens[1][name]}"}


def replicas() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "ServeReplica" in " ".join(process.cmdline())
    ]


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def in_pages(client: Client, request: BatchRequest, size: int) -> tuple[np.ndarray, Outcome]:
    """Images, and what the filter did, of a request that is asked for page by page."""
    images, outcome = [], Outcome()
    for start in range(0, total := client.planned(request).plan.total_generate, size):
        answer = client.answer(replace(request, page=(start, min(start + size, total))))
        part = BalancedBatch.collect(answer.header, answer.chunks)
        images.append(part.images)
        merge_outcome(outcome, part.outcome)
    return np.concatenate(images), outcome
