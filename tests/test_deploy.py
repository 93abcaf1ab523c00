"""Ray's own loaders accept what deploy/ holds. No cloud is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "deploy" / "cluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    return dict(prepared)


def lock() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split(" ;")[0] for line in lines if line and not line.startswith("#")]
    return dict(pin.split("==") for pin in pins)  # type: ignore[misc]


def test_rays_loader_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(cluster)


def test_rays_loader_refuses_a_mistake(cluster: dict[str, Any]) -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(ValidationError):
        validate_config(cluster | {"max_wrokers": 3})


def test_the_cluster_has_a_head_cpu_workers_and_gpu_workers(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] == "head"
    assert types["head"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["GPU"] >= 1
    assert "GPU" not in types["cpu"]["resources"]
    workers = [types["cpu"], types["gpu"]]
    assert sum(w["max_workers"] for w in workers) <= cluster["max_workers"]


def test_nodes_run_the_locked_ray_and_one_python(cluster: dict[str, Any]) -> None:
    images = [cluster["docker"]["image"]] + [
        node["docker"]["worker_image"]
        for node in cluster["available_node_types"].values()
        if "worker_image" in node.get("docker", {})
    ]
    releases = {re.fullmatch(r"rayproject/ray:([\d.]+)-(py\d+)-[a-z]+", i).groups() for i in images}  # type: ignore[union-attr]
    assert releases == {(lock()["ray"], "py311")}


def test_the_lock_is_installed_and_tokens_come_from_files(cluster: dict[str, Any]) -> None:
    assert any("-c constraints.txt" in command for command in cluster["setup_commands"])
    for kind in ("head", "worker"):
        started = " ".join(cluster[f"{kind}_start_ray_commands"])
        for setting in ("RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH=", "MLFLOW_TRACKING_URI="):
            assert setting in started
        assert "RAY_AUTH_TOKEN=" not in started


def test_the_lock_is_portable() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pins = [line for line in text.splitlines() if not line.startswith("#")]
    assert not any(re.match(r"nvidia-|cuda-|triton", line) for line in pins)
    assert not any("+" in line or "--" in line or "://" in line for line in pins)
    assert all(re.fullmatch(r"[a-z0-9-]+==[^\s;]+( ; .+)?", line) for line in pins)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own schema, under pydantic
def test_rays_loader_accepts_the_service() -> None:
    from ray.serve.schema import ServeDeploySchema

    plain = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
    loaded = ServeDeploySchema.model_validate(plain)
    assert loaded.http_options.host == "127.0.0.1"
    assert [a.name for a in loaded.applications] == ["fastgan-aug"]
    # Behind its proxy every caller comes from this machine: without tokens all would be let in.
    assert loaded.applications[0].args["tokens"]
