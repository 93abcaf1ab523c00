"""What the service measures: the names, and the one function that takes a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Measure = Callable[["Series", float, Mapping[str, str]], None]


@dataclass(frozen=True)
class Series:
    """A named series of numbers, as Prometheus has them.

    Attributes:
        name: As the exporter is given it; Ray puts ``ray_`` before it.
        kind: Of the metric.
        help: What it counts, with its unit.
        labels: Their names.
        buckets: Upper bounds of a histogram's.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
REQUESTS = Series(
    "fastgan_aug_requests_total", "counter", "Requests answered", ("route", "status")
)  # fmt: skip
REJECTED = Series(
    "fastgan_aug_rejected_total", "counter", "Requests refused at the door", ("status",)
)
LATENCY = Series(
    "fastgan_aug_request_seconds", "histogram", "Seconds to the end of an answer", ("route",),
    _SECONDS,
)  # fmt: skip
IMAGES = Series("fastgan_aug_images_total", "counter", "Images generated", ("version",))
WAITING_IMAGES = Series("fastgan_aug_waiting_images", "gauge", "Images taken on, not yet generated")
WAITING_REQUESTS = Series(
    "fastgan_aug_waiting_requests", "gauge", "Requests whose images are being generated"
)
BATCH = Series(
    "fastgan_aug_batch_images", "histogram", "Images in a batch of fixed size", (),
    (1, 2, 4, 8, 12, 16),
)  # fmt: skip
BATCH_SECONDS = Series(
    "fastgan_aug_batch_seconds", "histogram", "Seconds that the generator took for a batch", (),
    (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)  # fmt: skip
SERVED_VERSION = Series(
    "fastgan_aug_served_version", "gauge", "Version that an alias means here", ("alias",)
)
REFUSED_VERSIONS = Series(
    "fastgan_aug_refused_versions_total", "counter", "Versions that were refused", ("reason",)
)
SERIES = (
    REQUESTS, REJECTED, LATENCY, IMAGES, WAITING_IMAGES, WAITING_REQUESTS, BATCH, BATCH_SECONDS,
    SERVED_VERSION, REFUSED_VERSIONS,
)  # fmt: skip


def measure_nothing(series: Series, value: float, labels: Mapping[str, str]) -> None:
    """Takes a number and drops it: for an application that nobody watches."""
