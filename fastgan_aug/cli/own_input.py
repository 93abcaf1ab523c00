"""No output replaces what its own command reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def keep_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """Verifies that the output is none of the inputs, whatever name or link leads there.

    Args:
        out: What will be written.
        inputs: What is read; those that are not there are passed over.

    Raises:
        DataError: ``out`` is one of them.
    """
    from fastgan_aug.errors import DataError

    if out.exists() and any(path.exists() and os.path.samefile(out, path) for path in inputs):
        raise DataError(
            "--out is one of the files that are read, which would be lost",
            allowed="any other path",
            do="choose another --out",
        )
