"""Every query of the dashboard names a metric that the service measures, and labels that it has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from serving.server.measures import SERIES

DASHBOARD = json.loads((Path(__file__).parent.parent / "deploy" / "grafana.json").read_text())
RAYS = {"application", "deployment", "replica", "le"}


def exported() -> dict[str, set[str]]:
    """Names as Prometheus knows them, with their labels."""
    found = {}
    for series in SERIES:
        names = [f"ray_{series.name}"]
        if series.kind == "histogram":
            names = [f"{names[0]}_{part}" for part in ("bucket", "sum", "count")]
        found |= {name: set(series.labels) | RAYS for name in names}
    return found


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_query_names_existing_metrics_and_labels() -> None:
    known = exported()
    for query in queries():
        names = re.findall(r"ray_\w+", query)
        assert names
        assert set(names) <= set(known), query
        labels = {label for group in re.findall(r"by \(([^)]*)\)", query)
                  for label in group.replace(" ", "").split(",")}  # fmt: skip
        assert labels <= set.intersection(*(known[name] for name in names)), query


def test_everything_measured_is_shown() -> None:
    shown = " ".join(queries())
    assert not [series.name for series in SERIES if f"ray_{series.name}" not in shown]


def test_legends_use_labels_of_their_query() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            grouped = " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))
            assert all(name in grouped for name in re.findall(r"{{(\w+)}}", target["legendFormat"]))


def test_panels_do_not_overlap() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)


def test_counters_are_named_as_prometheus_names_them() -> None:
    for series in SERIES:
        assert series.name.endswith("_total") == (series.kind == "counter")
