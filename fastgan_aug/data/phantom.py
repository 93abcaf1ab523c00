"""Placeholder to be replaced."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PhantomConfig:
    """x."""

    __pydantic_config__ = {"extra": "forbid"}

    seed: int = 0
