"""What tests of the application on Ray Serve share."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import replace

import httpx
import numpy as np

from benchmarks.replicas import wait_until
from fastgan_aug.config import ServingConfig
from fastgan_aug.engines.mlflow_server import free_port
from serving.batch import BalancedBatch
from serving.parquet import merge_outcome
from serving.protocol import Outcome, decode
from serving.request import BatchRequest


def settings(**changes: object) -> ServingConfig:
    plain = {"port": free_port(), "timeout": 120, "cpus_per_replica": 0.25, "drain_seconds": 3}
    return ServingConfig.model_validate(plain | changes)


def bearer(tokens, name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens[1][name]}"}


def in_pages(
    url: str, headers: dict[str, str], request: BatchRequest, size: int
) -> tuple[np.ndarray, Outcome]:
    """Images, and what the filter did, page by page: a `Client` chooses its pages itself."""
    images, outcome = [], Outcome()
    start, total = 0, 1
    while start < total:
        body = replace(request, page=(start, start + size)).to_json()
        answer = httpx.post(f"{url}/v1/balanced-batch", content=body, headers=headers, timeout=60)
        header, chunks = decode(io.BytesIO(answer.raise_for_status().content))
        part = BalancedBatch.collect(header, chunks)
        images.append(part.images)
        merge_outcome(outcome, part.outcome)
        start, total = header.span[1], header.plan.total_generate
    return np.concatenate(images), outcome


def started(call: Callable[[], None], count: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def statuses(url: str, tokens) -> list[dict[str, dict]]:
    """What several calls tell of the replica that answers."""
    headers = bearer(tokens, "boss")
    return [httpx.get(f"{url}/v1/status", headers=headers).json() for _ in range(8)]


def wait_for_champion(url: str, tokens, version: str) -> None:
    """Until it is `version` for every replica: each asks the registry by itself."""

    def everywhere() -> bool:
        told = (status["models"]["aliases"]["champion"] for status in statuses(url, tokens))
        return all(champion == version for champion in told)

    wait_until(everywhere, 20)
