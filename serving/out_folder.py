"""A folder that is filled file by file: on this machine, or in an object store.

    images/                a folder here: a file is written beside its place and renamed
    s3://bucket/images/    what `pyarrow.fs` takes: a file is made here, then sent whole

Either way a file that is there is whole: an upload to an object store is seen when it is complete.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from fastgan_aug.errors import ConfigError, StorageError

ALLOWED = "a folder, or one in an object store: s3://BUCKET/PREFIX"
SECRET = re.compile(r"://[^@]*:[^@]*@")  # KEY:SECRET@, also where the secret holds slashes


def is_address(out: str) -> bool:
    """Whether it is a URI, as of an object store, rather than a path."""
    return "://" in out


@dataclass(frozen=True)
class OutFolder:
    """Where files are put, and what is there already.

    Attributes:
        name: The absolute path, or the URI; `of` makes the same folder of it on another machine.
        filesystem: What it lies on.
        path: The folder there.
    """

    name: str
    filesystem: Any
    path: str

    @classmethod
    def of(cls, out: Path | str) -> Self:
        """Opens what ``--out`` names; it need not exist, and nothing is made.

        Raises:
            ConfigError: the URI is none that pyarrow knows, names no bucket, or holds a secret.
            StorageError: the object store could not be asked where the bucket is.
        """
        name = str(out)
        if not is_address(name):
            path = str(Path(name).absolute())
            return cls(path, LocalFileSystem(), path)
        if SECRET.search(name):
            raise ConfigError(
                "--out holds a secret, which other users of this machine would see",
                allowed=ALLOWED,
                do="give it in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or AWS_PROFILE",
            )
        try:
            filesystem, path = FileSystem.from_uri(name)
        except (ArrowException, ValueError) as error:
            raise ConfigError(f"--out {name}: {error}", allowed=ALLOWED) from error
        except OSError as error:
            raise _failed(name, "cannot be reached", error) from error
        if not path:
            raise ConfigError(f"--out {name} names no bucket", allowed=ALLOWED)
        return cls(name, filesystem, path)

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's own file system."""
        return isinstance(self.filesystem, LocalFileSystem)

    def __str__(self) -> str:
        return self.name

    def names(self) -> set[str]:
        """Of what is in it: none where there is no such folder, the path of what is a file.

        Raises:
            StorageError: it cannot be listed.
        """
        with self._told("cannot be listed"):
            if self.filesystem.get_file_info(self.path).type == FileType.File:
                return {self.path}
            found = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return {info.base_name for info in found}

    def read(self, name: str, read: Callable[[Any], Any]) -> Any:
        """What ``read`` gives of an open file.

        Raises:
            StorageError: it is not there, or cannot be read.
        """
        with (
            self._told(f"holds {name}, which cannot be read"),
            self.filesystem.open_input_file(f"{self.path}/{name}") as stream,
        ):
            return read(stream)

    def put(self, name: str, write: Callable[[Path], None]) -> None:
        """Has ``write`` make a file, which is there when it is whole.

        Args:
            name: Of the file; an older one is replaced.
            write: Is given a path, and leaves a whole file there or nothing.

        Raises:
            StorageError: it could not be put there; an older file stays.
        """
        if self.is_local:
            write(Path(self.path) / name)
            return
        with tempfile.TemporaryDirectory(prefix="fastgan-aug-") as scratch:
            made = Path(scratch) / name
            write(made)
            # Not through an open stream: it would send what it has when an exception closes it.
            with self._told(f"does not take {name}"):
                copy_files(
                    str(made),
                    f"{self.path}/{name}",
                    source_filesystem=LocalFileSystem(),
                    destination_filesystem=self.filesystem,
                )

    def remove(self, name: str) -> None:
        """Removes a file, if it is still there.

        Raises:
            StorageError: it cannot be removed.
        """
        with self._told(f"does not let {name} be removed"):
            try:
                self.filesystem.delete_file(f"{self.path}/{name}")
            except FileNotFoundError:
                return

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ArrowException) as error:
            raise _failed(self.name, what, error) from error


def _failed(name: str, what: str, error: Exception) -> StorageError:
    reason = " ".join(str(error).split())
    if not is_address(name):
        return StorageError(f"{name} {what}: {reason}", do="see whether you may read and write it")
    return StorageError(
        f"{name} {what}: {reason}",
        do="see that the bucket exists, that your credentials (of S3 AWS_PROFILE, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) may list, read and write there, and that "
        "the network reaches it (AWS_ENDPOINT_URL); then run the command again, which goes on",
    )
