"""What `fastgan-aug ablate` leaves: a table as JSON and Markdown, and a page with slices."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.cli.page import figure, slice_uri, write_page
from fastgan_aug.engines.ablate import HELD_OUT, Plan, by_pattern, read_few
from fastgan_aug.quality.ablation import (
    COLUMNS,
    RANKING,
    Row,
    Run,
    Spread,
    ablation_table,
    real_figures,
)
from fastgan_aug.storage import replace_when_complete

SEEDS = (
    "Figures are means over the seeds, with the smallest and the largest. Differences within that "
    "range show nothing. Speeds are those of runs that shared the machine."
)


def write_results(plan: Plan, table: str, runs: Sequence[Run], workers: int) -> Path:
    """Writes ``table.json``, ``table.md`` and ``report.html`` into the plan's folder.

    Args:
        plan: What was run.
        table: The file's name as it was given.
        runs: The finished runs' records.
        workers: Runs at once.

    Returns:
        The page.

    Raises:
        StorageError: one of them cannot be written.
    """
    rows, real = ablation_table(runs), real_figures(runs)
    how = _how(plan, table, runs, workers)
    values = {
        "ranking": RANKING,
        "columns": {c.key: {"title": c.title, "meaning": c.meaning} for c in COLUMNS},
        "rows": [asdict(row) for row in rows],
        "real": real,
        "how": how,
    }
    _write(plan.out / "table.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    _write(plan.out / "table.md", markdown(rows, real, how))
    page = plan.out / "report.html"
    content = {
        "rows": rows,
        "real": real,
        "columns": COLUMNS,
        "how": how,
        "ranking": RANKING,
        "seeds": SEEDS,
        "strips": _strips(plan, rows),
        "patterns": plan.trials[0].sides()[0].meta.space.factors[-1].values,
        "spread": spread,
        "changes": changes,
        "difference": difference,
        "plain": _plain,
    }
    write_page("ablate.html.jinja", page, content)
    return page


def spread(figures: Spread | None) -> str:
    """Mean, and over several seeds the range."""
    if figures is None:
        return "–"
    if figures.low == figures.high:
        return _figure(figures.mean)
    return f"{_figure(figures.mean)} ({_figure(figures.low)}–{_figure(figures.high)})"


def mean(figures: Spread | None) -> str:
    """Without the range."""
    return "–" if figures is None else _figure(figures.mean)


def _figure(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else figure(value)


def _plain(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else _figure(value)


def changes(overrides: Mapping[str, Any]) -> str:
    """As the TOML has it."""
    return ", ".join(f"{k} = {json.dumps(v)}" for k, v in overrides.items()) or "nothing"


def difference(row: Row) -> str:
    """To the variant that changes nothing, seed by seed; empty for that one itself."""
    titles = {c.key: c.title for c in COLUMNS}
    said = []
    for key, f in row.against.items():
        if f is not None:
            span = f" ({f.low:+.2f} to {f.high:+.2f})" if f.low < f.high else ""
            said.append(f"{titles[key]} {f.mean:+.2f}{span}")
    return f"Against the plain variant: {', '.join(said)}." if said else ""


def _how(plan: Plan, table: str, runs: Sequence[Run], workers: int) -> dict[str, Any]:
    """From this alone it can be made again."""
    ablation = plan.ablation
    budget = f"--images {ablation.images}"
    if plan.seconds is not None:
        budget = f"--minutes {plan.seconds / 60:g}"
    sides = [
        f"--{name} {shlex.quote(path.name)}"
        for name, path in (("data", plan.data), ("against", plan.against))
        if path is not None and path.parent != plan.out
    ]
    seeds = ",".join(map(str, ablation.seeds))
    name = Path(table).name if Path(table).is_absolute() else table
    words = ["fastgan-aug ablate", shlex.quote(name), *sides, budget, f"--seeds {seeds}"]
    return {
        "command": " ".join(words),
        "base": ablation.base,
        "shared": dict(ablation.shared),
        "seeds": list(ablation.seeds),
        "workers": workers,
        "dataset_digest": runs[0]["dataset_digest"],
        "holdout_digest": runs[0]["holdout_digest"],
        "holdout": f"{HELD_OUT:.0%} of the patients" if plan.against is None else "other patients",
        "config_digests": {f"{r['variant']}, seed {r['seed']}": r["config_digest"] for r in runs},
        "code_versions": sorted({run["code_version"] for run in runs}),
    }


def markdown(rows: Sequence[Row], real: Mapping[str, float | None], how: Mapping[str, Any]) -> str:
    """The whole table, ready to be kept."""
    text = [f"# Variants of `{how['base']}` at one budget", "", RANKING, "", SEEDS, ""]
    for columns in (COLUMNS[:7], COLUMNS[7:]):
        text += [_line(["", *(c.title.replace("|", "\\|") for c in columns)])]
        text += ["|---" * (1 + len(columns)) + "|"]
        text += [_line([row.variant, *(spread(row.figures[c.key]) for c in columns)])
                 for row in rows]  # fmt: skip
        text += [_line(["*real slices*", *(_plain(real[c.key]) for c in columns)]), ""]
    text += [f"- {c.title}: {c.meaning}" for c in COLUMNS]
    text += ["- *real slices*: the same figure of real against real slices, where that is known",
             "", "## What each changes", ""]  # fmt: skip
    for row in rows:
        failing = ", ".join(f"{name} {n:.3g}" for name, n in row.failing.items())
        text.append(f"- {row.variant}: {changes(row.overrides)}. {difference(row)}".rstrip())
        text.append(f"  Failing: {failing or 'nothing'}")
        text += [f"  - diverged: {why}" for why in row.diverged]
    text += ["", "## How it was made", "", f"    {how['command']}", ""]
    text += [
        f"- base `{how['base']}`, shared by all: {changes(how['shared'])}",
        f"- data digest `{how['dataset_digest']}`",
        f"- judged by {how['holdout']}, digest `{how['holdout_digest']}`",
        f"- seeds {', '.join(map(str, how['seeds']))}; {how['workers']} runs at once",
        *(f"- {name}: configuration `{digest}`" for name, digest in how["config_digests"].items()),
        f"- code: {', '.join(how['code_versions'])}",
    ]
    return "\n".join(text) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _strips(plan: Plan, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Real slices on top, then a few of each variant's first seed, evenly spread, not picked."""
    train, _ = plan.trials[0].sides()
    labelled = np.flatnonzero(train.labelled)
    cells = [str(train.cells[i]) for i in labelled]
    values = train.meta.space.factors[-1].values
    found = {"real": _uris(train.images[labelled[by_pattern(cells, values)]])}
    paths = {t.name: t.samples_path for t in reversed(plan.trials)}
    for row in rows:
        few = read_few(paths[row.variant])
        if few is not None:
            found[row.variant] = _uris(few)
    return found


def _uris(images: NDArray[np.float32]) -> list[str]:
    return [slice_uri(image) for image in images]


def _write(path: Path, text: str) -> None:
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
