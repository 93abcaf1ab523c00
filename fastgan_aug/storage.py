"""Nothing half-written: outputs are written beside their place and renamed when complete."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastgan_aug.errors import StorageError


@contextmanager
def replace_when_complete(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``target``; renames it to ``target`` if the block succeeds.

    The block may make a file or a folder there. A file replaces an older file; a folder that
    exists already is moved aside first and removed after the rename.

    Raises:
        StorageError: the disk is full, the place cannot be written, or the block made a file where
            a folder is. The temporary is removed, and what was there stays.
    """
    temporary = target.with_name(f"{target.name}.tmp-{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _synchronise(temporary)
        if target.is_dir() and not temporary.is_dir():
            raise IsADirectoryError(f"there is a folder of that name: {target.name}")
        if target.is_dir():
            old = target.with_name(f"{target.name}.tmp-{secrets.token_hex(4)}")
            target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, target)
    except BaseException as error:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()
        if _is_os_error(error):
            raise StorageError(
                f"{target.name} could not be written to {target.parent}: {error}",
                do="free some space, or choose another place; nothing half-written was left",
            ) from error
        raise


def file_digest(path: Path) -> str:
    """Sha256 of a file; 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_os_error(error: BaseException) -> bool:
    # safetensors reports a full disk as its own SafetensorError, which is no OSError.
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"


def _synchronise(path: Path) -> None:
    """Flushes a file, or every file of a folder, to the disk, so that a rename means complete."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
