from __future__ import annotations

from pathlib import Path

import pytest

from fastgan_aug.errors import StorageError
from fastgan_aug.storage import replace_when_complete


def write_half(target: Path, error: Exception) -> None:
    with replace_when_complete(target) as temporary:
        temporary.write_text("half")
        raise error


def write_whole(target: Path) -> None:
    with replace_when_complete(target) as temporary:
        temporary.write_text("whole")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half way"):
        write_half(target, RuntimeError("half way"))
    assert target.read_text() == "old"
    with replace_when_complete(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("one", "two"):
        with replace_when_complete(target) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in target.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "image.png").write_text("kept")
    with pytest.raises(StorageError, match="folder of that name"):
        write_whole(target)
    assert (target / "image.png").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_a_full_disk_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="free some space"):
        write_half(tmp_path / "a", OSError(28, "No space left on device"))
    assert list(tmp_path.iterdir()) == []
