"""Which code made an artefact."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def code_version() -> str:
    """Version, and the git commit where this is a checkout: ``0.1.0+g1a2b3c4`` or ``...-dirty``."""
    try:
        number = version("fastgan-aug")
    except PackageNotFoundError:
        number = "unknown"
    here = Path(__file__).parent
    checkout = here.parent
    # An installed package may stand inside somebody else's repository.
    if not ((checkout / "pyproject.toml").is_file() and (checkout / ".git").exists()):
        return number
    try:
        commit = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number}+g{commit}"
