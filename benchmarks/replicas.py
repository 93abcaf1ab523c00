"""What the benchmarks of the service ask of its replicas: how many run, what they hold."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import psutil


def replicas() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has ended, or nobody has asked yet how
            continue
    return found


def both_ready(url: str) -> bool:
    """Whether two replicas run, by the system and by Serve, and whoever is asked is ready."""
    from ray import serve

    from serving.server.deployment import APPLICATION, DEPLOYMENT

    states = serve.status().applications[APPLICATION].deployments[DEPLOYMENT].replica_states
    # Serve may not have noticed yet that one was killed; its process is gone at once.
    there = len(replicas()) == 2 and states.get("RUNNING") == 2
    return there and all(answers(f"{url}/v1/health/ready") for _ in range(8))


def private_bytes() -> int:
    """Resident bytes of the replicas, without what they share: Ray's object store."""
    return sum(p.memory_info().rss - p.memory_info().shared for p in replicas())


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.2)
