"""What the benchmark of the service counts as failed, and when both replicas are ready or idle."""

from __future__ import annotations

import subprocess
import time
from types import SimpleNamespace

import httpx
import numpy as np
import psutil
import pytest

from benchmarks import replicas, service, soak
from fastgan_aug.errors import ServiceUnavailable


@pytest.mark.parametrize("error", [ServiceUnavailable("gone"), httpx.ReadError("gone"), KeyError()])
def test_whatever_ends_a_call_is_a_failed_call(monkeypatch, error):
    class Failing:
        def __init__(self, *args, **options) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *error) -> None: ...
        def request_balanced_batch(self, *args, **options):
            time.sleep(0.001)
            raise error

    monkeypatch.setattr(service, "Client", Failing)
    small = SimpleNamespace(bare=lambda: np.zeros(1), counts={})
    with service.load("http://service", "token", small, callers=2) as told:
        time.sleep(0.2)
    assert told["calls"] == 0
    assert told["failed"] > 2  # the callers go on


def test_the_soak_asks_for_what_waits_in_every_replica(monkeypatch):
    waits = iter([0, 0, 3, 0, 0, 3, 0, 0])

    def get(url: str, headers: dict[str, str]) -> httpx.Response:
        told = {"queue": {"requests": next(waits)}}
        return httpx.Response(200, json=told, request=httpx.Request("GET", url))

    monkeypatch.setattr(soak.httpx, "get", get)
    monkeypatch.setattr(soak.time, "sleep", lambda seconds: None)
    assert soak.client_status("http://service", "token") == 3


@pytest.mark.parametrize(
    ("processes", "running", "silent", "ready"),
    [(2, 2, 0, True), (1, 2, 0, False), (2, 1, 0, False), (2, 2, 1, False)],
)
def test_both_replicas_are_ready_by_process_by_serve_and_by_answer(
    monkeypatch, processes, running, silent, ready
):
    from ray import serve

    deployment = SimpleNamespace(replica_states={"RUNNING": running, "STARTING": 2 - running})
    application = SimpleNamespace(deployments={"SynthesisReplica": deployment})
    told = SimpleNamespace(applications={"fastgan-aug": application})
    monkeypatch.setattr(serve, "status", lambda: told)
    monkeypatch.setattr(replicas, "replicas", lambda: [None] * processes)
    answers = iter([True] * 5 + [not silent] + [True] * 2)
    monkeypatch.setattr(replicas, "answers", lambda url: next(answers))
    assert replicas.both_ready("http://service") is ready


def test_a_process_that_ended_and_was_not_asked_how_is_no_replica():
    ended = subprocess.Popen(["true"])
    children = psutil.Process().children
    replicas.wait_until(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE, 10)
    assert ended.pid in [child.pid for child in children(recursive=True)]
    assert replicas.replicas() == []
    ended.wait()
