"""Ray Serve adds a replica while requests wait, and no call notices."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator

import pytest
import ray
from ray import serve

from benchmarks.replicas import replicas, wait_until
from fastgan_aug.engines.mlflow_client import local_uri
from fastgan_aug.engines.mlflow_promotion import promote
from fastgan_aug.errors import FastGANAugError
from serving.client import Client
from serving.server.deployment import TARGET_REQUESTS, start_service, stop_service
from tests.serve_toy import settings, started
from tests.served import registered

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
COUNTS = {"disc": 60, "ring": 0}


@pytest.fixture
def url(tmp_path) -> Iterator[str]:
    """One replica, and a second one allowed."""
    uri = local_uri(tmp_path)
    registered(tmp_path, uri, "toy-shapes", 1)
    promote("toy-shapes", "1", uri, by="a test", reason="the first", override=True)
    with tempfile.TemporaryDirectory(prefix="fa", dir="/tmp") as folder:
        ray.init(
            address="local", include_dashboard=False, num_cpus=2, _temp_dir=folder,
            object_store_memory=100 << 20, log_to_driver=False,
        )  # fmt: skip
        yield start_service(settings(replicas=1, most_replicas=2), uri, "toy-shapes")
        stop_service()
        serve.shutdown()
        ray.shutdown()


def test_a_second_replica_comes_while_requests_wait(url: str) -> None:
    assert len(replicas()) == 1
    ended, found, failed = threading.Event(), set[bytes](), list[Exception]()

    def ask() -> None:
        with Client(url) as client:
            while not ended.is_set():
                try:
                    batch = client.request_balanced_batch(COUNTS, 800, seed=3)
                except FastGANAugError as error:
                    failed.append(error)
                    return
                found.add(batch.images.tobytes())

    threads = started(ask, 3 * TARGET_REQUESTS)
    try:
        # Serve adds one when requests have waited for 30 s.
        wait_until(lambda: len(replicas()) == 2, 120)
        with Client(url) as client:
            wait_until(client.ready, 60)
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert not failed
    assert len(found) == 1
