"""A folder that is filled; what lies in an object store is in integration/test_sample_s3.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgan_aug.errors import ConfigError, StorageError
from serving.out_folder import OutFolder


def lines(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("one\n")


@pytest.mark.parametrize("as_uri", [False, True])
def test_a_folder_here_by_its_path_or_its_uri(tmp_path: Path, as_uri: bool) -> None:
    there = tmp_path / "out"
    folder = OutFolder.of(there.as_uri() if as_uri else there)
    assert folder.is_local
    assert folder.names() == set()
    assert not there.exists()
    folder.put("a.txt", lines)
    assert folder.names() == {"a.txt"}
    assert folder.read("a.txt", lambda stream: stream.read()) == b"one\n"
    assert OutFolder.of(folder.name) == folder
    assert OutFolder.of(there / "a.txt").names() == {str(there / "a.txt")}
    for _ in range(2):
        folder.remove("a.txt")
    with pytest.raises(StorageError, match=r"a\.txt"):
        folder.read("a.txt", lambda stream: stream.read())


def test_a_relative_folder_is_the_same_for_every_worker(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert OutFolder.of("out").name == str(tmp_path / "out")


@pytest.mark.parametrize("secret", ["S3CR3T", "S3/CR/3T", "S3+CR@3T"])
def test_a_secret_in_the_address_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ConfigError, match="environment") as caught:
        OutFolder.of(f"s3://KEY:{secret}@bucket/images")
    assert "S3" not in str(caught.value).replace("s3://BUCKET", "")
    assert "KEY:" not in str(caught.value)


@pytest.mark.parametrize("out", ["s4://bucket/images", "s3://", "s3://a bucket/x", "s3://b/x?y=1"])
def test_an_address_that_is_none_is_refused(out: str, monkeypatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")  # the bucket's is not asked for
    with pytest.raises(ConfigError, match="s3://BUCKET/PREFIX"):
        OutFolder.of(out)
