"""A tiny ablation: the toy's generator, a quick judge, three variants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from test_local_engine import toy_config

from fastgan_aug.data.dataset import Dataset

VARIANTS = {
    "default": {},
    "no-average": {"training.ema_half_life": 0},
    "diverging": {"training.loss_limit": 1e-9},
}
QUALITY = {"steps": 2, "batch": 16, "width": 2, "resplits": 20}


def write_toy_ablation(
    folder: Path, toy: Dataset, variants: Mapping[str, Mapping[str, Any]] = VARIANTS
) -> Path:
    """Writes ``toy.parquet``, ``base.toml`` and the table, whose path it returns."""
    toy.write(folder / "toy.parquet")
    values = toy_config().to_dict()
    lines = ['name = "toy"']
    for section in ("network", "training"):
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values[section].items()]
    lines += ["[quality]", *(f"{key} = {value}" for key, value in QUALITY.items())]
    (folder / "base.toml").write_text("\n".join(lines), encoding="utf-8")
    lines = ['base = "base.toml"', "images = 64", "seeds = [0]", "[shared]"]
    lines.append('"selection.samples" = 0')
    for name, overrides in variants.items():
        lines.append(f"[variants.{name}]")
        lines += [f'"{key}" = {json.dumps(value)}' for key, value in overrides.items()]
    table = folder / "table.toml"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table
