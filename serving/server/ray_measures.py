"""The service's numbers in Ray's metrics, which every node exports for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.serve import metrics

from serving.server.measures import SERIES, Series


class RayMeasures:
    """A `measures.Measure`; Ray adds application, deployment and replica to the labels."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {series.name: _made(series) for series in SERIES}

    def __call__(self, series: Series, value: float, labels: Mapping[str, str]) -> None:
        """Counts, sets or observes ``value``."""
        metric, tags = self._metrics[series.name], dict(labels)
        if series.kind == "counter":
            metric.inc(value, tags)
        elif series.kind == "gauge":
            metric.set(value, tags)
        else:
            metric.observe(value, tags)


def _made(series: Series) -> Any:
    keys = {"description": series.help, "tag_keys": series.labels}
    if series.kind == "histogram":
        return metrics.Histogram(series.name, boundaries=list(series.buckets), **keys)
    kind = metrics.Counter if series.kind == "counter" else metrics.Gauge
    return kind(series.name, **keys)


def metrics_urls() -> list[str]:
    """Where each node of the cluster exports the metrics for Prometheus."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [f"http://{n['NodeManagerAddress']}:{n['MetricsExportPort']}/metrics" for n in nodes]
