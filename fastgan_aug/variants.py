"""Variants of a configuration, each a set of overrides by dotted names: the file of an ablation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fastgan_aug.config import Config, load_config, shipped_configs
from fastgan_aug.errors import ConfigError

VARIED = ("network", "training", "augment", "selection")  # sections that a variant may change
FIXED = ("training.images", "training.seed")  # the budget and the seeds are the table's own
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: Names its files.
        overrides: ``{"section.field": value}``, what it changes of the base.
        config: The whole, seed and budget apart.
    """

    name: str
    overrides: Mapping[str, Any]
    config: Config


@dataclass(frozen=True)
class Ablation:
    """What a file asks for; every configuration in it is checked.

    Attributes:
        base: Name of the configuration that all start from.
        shared: Overrides of all variants.
        images: Budget of a run.
        seeds: Of the runs of each variant.
        variants: The first one is usually the base itself.
    """

    base: str
    shared: Mapping[str, Any]
    images: int
    seeds: Sequence[int]
    variants: Sequence[Variant]

    def only(self, names: Sequence[str]) -> Ablation:
        """Of these variants alone, all where none is named.

        Raises:
            ConfigError: there is no such variant.
        """
        known = {variant.name: variant for variant in self.variants}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(
                f"there is no variant {', '.join(unknown)}",
                allowed=", ".join(known),
                do="correct --only",
            )
        return replace(self, variants=[v for v in self.variants if not names or v.name in names])


class _File(BaseModel):
    """The TOML as it is written."""

    model_config = ConfigDict(extra="forbid")

    base: str
    images: int = Field(12_000, ge=1)
    seeds: list[int] = Field(default=[0, 1], min_length=1)
    shared: dict[str, Any] = Field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)


def read_ablation(name_or_path: str) -> Ablation:
    """Reads a TOML file, or a shipped one by its name (``ablation``), and checks every variant.

    Raises:
        ConfigError: no such file, no TOML, an unknown field or a bad value, naming the variant; or
            two variants that are the same.
    """
    path = Path(name_or_path)
    if not path.is_file() and str(path.parent) in (".", "configs"):
        path = shipped_configs() / f"{path.stem}.toml"
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(
            f"{path}: {said}", allowed=", ".join(_File.model_fields), do="correct the file"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no readable TOML: {error}",
            allowed="a file with base, images, seeds, and [variants.NAME] tables",
            do="check the path, or correct the file",
        ) from error
    check_seeds(file.seeds)
    beside = path.parent / file.base
    values = load_config(str(beside) if beside.is_file() else file.base).to_dict()
    shared = dict(_flat(file.shared))
    base = _changed(values, shared, f"[shared] of {path.name}")
    variants = [_variant(name, table, base, path.name) for name, table in file.variants.items()]
    _check_distinct(variants)
    return Ablation(file.base, shared, file.images, file.seeds, variants)


def check_seeds(seeds: Sequence[int]) -> None:
    """Each once, 0 or more.

    Raises:
        ConfigError: otherwise.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise ConfigError(
            f"the seeds are {list(seeds)}",
            allowed="whole numbers, 0 or more, each once",
            do="correct the seeds",
        )


def _variant(name: str, table: Mapping[str, Any], base: Mapping[str, Any], file: str) -> Variant:
    where, overrides = f"variant {name!r} of {file}", dict(_flat(table))
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where} has no name for a file",
            allowed="letters, digits, and . _ + - after the first",
            do="rename it",
        )
    other = [key for key in overrides if key.partition(".")[0] not in VARIED]
    if other:
        raise ConfigError(
            f"{where} changes {', '.join(other)}",
            allowed=f"fields of {', '.join(VARIED)}: the data, the budget and the judge are the "
            "same for all",
            do="put it into [shared], or take it out",
        )
    return Variant(name, overrides, Config.of(_changed(base, overrides, where), where))


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """``"a.b" = 1`` and ``a.b = 1`` mean the same; deeper tables are values."""
    for key, value in table.items():
        if "." not in key and isinstance(value, Mapping):
            yield from ((f"{key}.{field}", each) for field, each in value.items())
        else:
            yield key, value


def _changed(values: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Plain values with some replaced; what they are is checked by ``Config.of``."""
    found = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for dotted, value in overrides.items():
        if dotted in FIXED:
            raise ConfigError(
                f"{where} changes {dotted}",
                allowed="any other field: budget and seeds are the same for all",
                do="set images and seeds at the top of the file",
            )
        section, _, field = dotted.partition(".")
        inside = found.setdefault(section, {})
        if not field or not isinstance(inside, dict):
            raise ConfigError(
                f"{where} changes {dotted!r}",
                allowed='"section.field" = value, for example "training.ema_half_life" = 0',
                do="correct the name",
            )
        inside[field] = value
    return found


def _check_distinct(variants: Sequence[Variant]) -> None:
    for one, other in combinations(variants, 2):
        if one.config == other.config:
            raise ConfigError(
                f"variants {one.name!r} and {other.name!r} are the same configuration",
                allowed="variants that differ: one changes nothing that the other does not",
                do="take one of them out",
            )
