"""One real demo, left serving, and one real MLflow server, for every test that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_toy import finished_run
from toy import toy_dataset
from toy_demo import CONFIG, Demo, start_demo, wait_until_serving

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.mlflow_server import free_port, tracking_server

LAST = "test_ctrl_c_ends_the_demo_and_leaves_nothing"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Runs `fastgan-aug demo --keep-serving` on the toy shapes, once for all tests."""
    root = tmp_path_factory.mktemp("demo")
    data, config = root / "shapes.parquet", root / "toy.toml"
    toy_dataset(root).write(data)
    config.write_text(CONFIG, encoding="utf-8")
    running = start_demo(root / "out", config, data, root / "demo.log")
    try:
        wait_until_serving(running)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def shapes(demo: Demo) -> Dataset:
    """The data set that the demo was given."""
    return Dataset.read(demo.data)


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the MLflow server keeps what it is told."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def mlflow_uri(mlflow_folder: Path) -> Iterator[str]:
    """A real MLflow server, one for all tests: each uses models of its own."""
    with tracking_server(mlflow_folder, free_port()) as address:
        yield address


@pytest.fixture(scope="session")
def mlflow_run(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and id of a finished run on that server."""
    folder = tmp_path_factory.mktemp("run")
    return folder, finished_run(folder, mlflow_uri)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo runs beside as few other tests as possible, and is ended by a test of its own."""

    def place(item: pytest.Item) -> int:
        if item.name == LAST:
            return 2
        return 1 if "demo" in getattr(item, "fixturenames", ()) else 0

    items.sort(key=place)
