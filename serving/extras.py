"""What the base installation does not bring, asked for when it is needed."""

from __future__ import annotations

from importlib.util import find_spec

from fastgan_aug.errors import ConfigError


def require(package: str, extra: str) -> None:
    """Says how to install a package before it is imported.

    Args:
        package: As it is imported.
        extra: The extra of this project that brings it.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec(package) is None:
        raise ConfigError(
            f"{package} is not installed",
            allowed="the client alone needs numpy, pyarrow and httpx; this needs more",
            do=f"pip install 'fastgan-aug[{extra}]'",
        )
