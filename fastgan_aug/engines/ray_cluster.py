"""Ray, started on this machine or found on a cluster."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


def is_cluster() -> bool:
    """Whether Ray is a cluster that RAY_ADDRESS names, rather than one started here."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextmanager
def ray_cluster(timeout: float = 60.0) -> Iterator[None]:
    """Connects to the cluster that RAY_ADDRESS names, or starts Ray here and ends it afterwards.

    A local Ray is started with ``address="local"``, so that it never attaches to a stale one, and
    in a temporary folder of its own with a short path (Unix sockets allow 107 characters). When
    the block fails, the folder stays, since it holds the workers' logs, and its path is logged.

    Args:
        timeout: Seconds that Ray Train's workers may take to start.
    """
    environment = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(timeout),
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "600",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
    elif is_cluster():
        _connect(address=os.environ["RAY_ADDRESS"])
        try:
            yield
        finally:
            ray.shutdown()
    else:
        with _folder_of_logs() as folder, _local_ray(folder):
            yield


@contextmanager
def _local_ray(folder: str) -> Iterator[None]:
    import ray

    try:
        _connect(
            address="local", include_dashboard=False, logging_level=logging.ERROR, _temp_dir=folder
        )
        yield
    finally:
        ray.shutdown()


def _connect(**settings: Any) -> None:
    """`ray.init`, but who was told of SIGTERM still is: Ray would end this process at once."""
    import ray

    before = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=False, **settings)
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _folder_of_logs() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
    try:
        yield folder
    except Exception:
        log.warning("Ray's logs are kept in %s/session_latest/logs", folder)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
