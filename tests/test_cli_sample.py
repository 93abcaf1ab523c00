"""`fastgan-aug sample` on a checkpoint, and from a service."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.cli.sample import parse_counts, parse_target
from fastgan_aug.errors import BalanceError, ConfigError
from serving.batch import BalancedBatch
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

COUNTS = "disc=30,ring=20,bar=24"
ASK = ["sample", "--counts", COUNTS, "--seed", "7"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    return tiny_checkpoint(folder, lineage(ONE_FACTOR, ONE_COUNTS))


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [*ASK, *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_dry_run_says_what_each_cell_would_get_and_why(checkpoint, tmp_path):
    told = run("--checkpoint", checkpoint, "--dry-run", "--target", "not minority")
    rows = [re.findall(r"[\w ]+\w|\w", line) for line in told.splitlines()]
    assert ["ring", "20", "20", "0", "has what it wants"] in [[c.strip() for c in r] for r in rows]
    assert ["bar", "24", "30", "6", "filled"] in [[c.strip() for c in r] for r in rows]
    assert "6 images" in told


def test_a_cell_in_brackets_is_told(tmp_path):
    """A terminal's markup looks like it."""
    origin = lineage({"stage": ["[ii]", "[iii]"]}, {"[ii]": 3, "[iii]": 2})
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", origin)
    words = ["sample", "--counts", "[ii]=3,[iii]=2", "--checkpoint", str(checkpoint), "--dry-run"]
    told = CliRunner().invoke(app, words, catch_exceptions=False).output
    assert "[ii] " in told
    assert "[iii] " in told


def test_file_folder_and_service_give_the_same_images(checkpoint, tmp_path):
    expected = Client.offline(checkpoint).request_balanced_batch(parse_counts(COUNTS, "x"), seed=7)
    run("--checkpoint", checkpoint, "--out", tmp_path / "here.parquet")
    told = run("--checkpoint", checkpoint, "--out", tmp_path / "out", "--local", "--workers", "1")
    assert "16 images" in told
    run("--checkpoint", checkpoint, "--out", tmp_path / "out", "--local")  # all is there already
    with over_http(create_app(FolderModels(checkpoint))) as url:
        run("--url", url, "--out", tmp_path / "there.parquet")
        assert "toy version 1" in run("--url", url, "--dry-run")
    files = [tmp_path / "here.parquet", tmp_path / "there.parquet",
             tmp_path / "out" / "part-00000.parquet"]  # fmt: skip
    for file in files:
        assert BalancedBatch.read(file).images.tobytes() == expected.images.tobytes()
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["images"] == 16


def test_a_folder_needs_who_makes_the_images(tmp_path):
    with pytest.raises(ConfigError, match="folder"):
        CliRunner().invoke(app, [*ASK, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert CliRunner().invoke(app, ASK).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_counts_and_targets_are_read(tmp_path):
    (tmp_path / "counts.json").write_text('{"disc": 3}')
    assert parse_counts(str(tmp_path / "counts.json"), "counts") == {"disc": 3}
    assert parse_counts("a/b=3, c=4", "counts") == {"a/b": 3, "c": 4}
    assert parse_target("not minority") == "not minority"
    assert parse_target("12") == 12
    assert parse_target("a=3") == {"a": 3}
    for text in ("a=1,a=2", "a", "a=x", "missing.json"):
        with pytest.raises(BalanceError):
            parse_counts(text, "counts")
