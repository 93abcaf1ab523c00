"""The examples in docstrings and on the client's page run, and say what they print."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving.client import Client
from serving.server.app import create_app
from tests.served import (
    ONE_COUNTS,
    ONE_FACTOR,
    FolderModels,
    lineage,
    over_http,
    tiny_checkpoint,
)

PAGE = Path(__file__).parents[1] / "docs" / "client.md"
MODULES = (
    "fastgan_aug.balance",
    "fastgan_aug.target",
    "serving.batch",
    "serving.client",
    "serving.offline",
    "serving.sampler",
    "serving.torch_data",
)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the examples may use: a tiny checkpoint, and a service of it."""
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    checkpoint = tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS))
    with over_http(create_app(FolderModels(checkpoint))) as url:
        yield {"checkpoint": checkpoint, "url": url, "Client": Client, "np": np, "torch": torch}


def run(test: doctest.DocTest) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(test, out=said.append)
    assert not failed, "".join(said)
    assert tried


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str, names: dict[str, Any]) -> None:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names)
    examples = [test for test in found if test.examples]
    assert examples
    for test in examples:
        run(test)


def test_the_page_of_the_client(
    names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the page writes files
    text = PAGE.read_text(encoding="utf-8").replace("```", "\n")
    run(doctest.DocTestParser().get_doctest(text, dict(names), PAGE.name, str(PAGE), 0))
