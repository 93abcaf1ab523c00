"""What `fastgan-aug reproduce` leaves: a table as JSON and Markdown, and one HTML page."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.cli.page import FIRST, INK, SECOND, new_plot, plot_uri, slice_uri, write_page
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.reproduce import Plan, read_samples, sample_piece
from fastgan_aug.quality.clinical.endpoints import Measured, measure_dataset, measure_synthetic
from fastgan_aug.quality.reproduction import Published, conclusion
from fastgan_aug.quality.statistics.means import ALPHA
from fastgan_aug.quality.statistics.paper_table import POOLED
from fastgan_aug.storage import replace_when_complete

ENDPOINTS = {"mc": "MC", "lr": "LR"}
PER_CELL = 6
NOTES = """\
The paper names no post hoc test and does not say whether B met pooled slices or its own level's,
so both are shown; here Tukey's after a one-way analysis of variance. P above 0.05 is no proof of
likeness: that is what the second table asks. By patient: the slices of one patient are alike, and
the first test counts them as independent. Power: how often a perfect generator would pass at these
numbers. g: Hedges' g, generated minus real. KID: kernel distance of a fixed feature vector; real
against real is the 97.5th percentile of halvings of the real patients. SD map: mean pixel-wise SD,
generated over real, the paper's third endpoint. Where A and B were shown equally many images, B
saw each of its slices more often; the paper gave both 1000 passes."""
Line = Mapping[str, Any]


def write_results(
    plan: Plan,
    dataset: Dataset,
    lines: Sequence[Line],
    seen: Sequence[Line],
    published: Published,
) -> Path:
    """Writes ``table.json``, ``table.md`` and ``report.html`` into the plan's folder.

    Args:
        plan: What was compared.
        dataset: The real slices.
        lines: Of ``quality.reproduction.line_of``, all seeds.
        seen: Of ``quality.reproduction.beyond``, all seeds.
        published: What the paper printed.

    Returns:
        The page.

    Raises:
        StorageError: one of them cannot be written.
    """
    first, second = plan.configs
    alone = " and ".join("/".join(v) for v in plan.configs[second].data.keep.values()) or "its own"
    says = conclusion(lines, seen, first, second, f"{alone} alone")
    made = _how(plan, dataset)
    table = {
        "says": says, "published": published.source, "how": made,
        "lines": list(lines), "beyond": list(seen),
    }  # fmt: skip
    _write(plan.out / "table.json", json.dumps(table, indent=1, allow_nan=False) + "\n")
    _write(plan.out / "table.md", _markdown(plan, says, made, lines, seen))
    page = plan.out / "report.html"
    content = {
        "says": says,
        "made": made,
        "source": published.source,
        "names": (first, second),
        "seeds": [
            (seed, list(_rows(plan, lines, seed)), list(_beyond(plan, seen, seed)))
            for seed in range(plan.seeds)
        ],
        "strips": _strips(plan, dataset),
        "plot": _whiskers(plan, dataset),
        "alpha": ALPHA,
        "passes": [_passes(fit) for fit in made["fits"]],
    }
    write_page("reproduce.html.jinja", page, content)
    return page


def _write(path: Path, text: str) -> None:
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _how(plan: Plan, dataset: Dataset) -> dict[str, Any]:
    """From this alone it can be made again."""
    record = plan.record(dataset)
    data = "" if plan.data.parent == plan.out else f" --data {plan.data.name}"
    seeds = f" --seeds {plan.seeds}" if plan.seeds > 1 else ""
    return {
        "command": f"fastgan-aug reproduce --budget {plan.budget}{data}{seeds}",
        "seeds": [piece.config.training.seed for piece in plan.fits[:: len(plan.configs)]],
        "data": record["dataset_source"],
        "dataset_digest": record["dataset_digest"],
        "config_digests": record["config_digests"],
        "code_version": record["code_version"],
        "fits": [piece.done for piece in plan.fits],
    }


def _rows(plan: Plan, lines: Sequence[Line], seed: int) -> Iterator[dict[str, Any]]:
    """A row per value, scope and endpoint; the cells of each generator as text."""
    first, second = plan.configs
    own = [line for line in lines if line["seed"] == seed]
    for key, group in itertools.groupby(
        own, key=lambda line: (line["value"], line["scope"], line["endpoint"])
    ):
        by_name = {line["generator"]: line for line in group}
        value, scope, endpoint = key
        sample = next(iter(by_name.values()))
        yield {
            "value": value,
            "scope": scope,
            "endpoint": ENDPOINTS[endpoint],
            "real": f"{sample['real']:.3f} ± {sample['real_sd']:.3f}",
            "n": f"{sample['n_real']} of {sample['patients']}",
            "margin": "{:g} to {:g}".format(*sample["margin"]),
            "sides": {
                name: _side(by_name[name], printed=scope == POOLED or name == second)
                for name in (first, second)
                if name in by_name
            },
        }


def _side(line: Line, *, printed: bool) -> dict[str, Any]:
    """One generator's texts; the paper's P only where it may have made that very test."""
    ratio = [line["ratio"], line["ratio_low"], line["ratio_high"]]
    return {
        "n": line["n"],
        "mean": f"{line['mean']:.3f} ± {line['sd']:.3f}",
        "paper": line["p_paper"] if printed else "–",
        "p": _p(line["p"]),
        "different": line["p"] is not None and line["p"] < ALPHA,
        "clustered": _p(line["p_clustered"]),
        "ratio": "{} ({} to {})".format(*("–" if r is None else f"{r:.3f}" for r in ratio)),
        "tost": "yes" if line["equivalent"] else "no",
        "power": "–" if line["tost_power"] is None else f"{line['tost_power']:.2f}",
        "g": "–" if line["g"] is None else f"{line['g']:+.2f}",
    }


def _passes(fit: Mapping[str, Any]) -> float:
    """How often each slice was shown: equal budgets show the slices of a small set more often."""
    slices = max(sum(fit["class_counts"].values()), 1)
    return float(fit["images_seen"] / slices)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def _p(value: float | None) -> str:
    """As papers print it."""
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _beyond(plan: Plan, seen: Sequence[Line], seed: int) -> Iterator[dict[str, Any]]:
    """A row per cell; distance and variety of each generator as text."""
    own = [row for row in seen if row["seed"] == seed]
    for cell in dict.fromkeys(row["cell"] for row in own):
        here = {row["generator"]: row for row in own if row["cell"] == cell}
        yield {
            "cell": cell,
            "floor": f"{max(row['floor'] for row in here.values()):.2f}",
            "sides": {
                name: {
                    "kid": _short(here[name]["kid"]),
                    "near": here[name]["kid"] <= here[name]["floor"],
                    "sd": "–"
                    if here[name]["sd_ratio"] is None
                    else f"{here[name]['sd_ratio']:.2f}",
                }
                for name in plan.configs
                if name in here
            },
        }


def _markdown(
    plan: Plan, says: str, made: Mapping[str, Any], lines: Sequence[Line], seen: Sequence[Line]
) -> str:
    first, second = plan.configs
    text = ["# Generators A and B, judged as the paper did", "", says, ""]
    for seed in range(plan.seeds):
        rows = list(_rows(plan, lines, seed))
        if plan.seeds > 1:
            text += [f"## Seed {made['seeds'][seed]}", ""]
        text += [*_p_table(rows, (first, second)), "", *_tost_table(rows, (first, second)), ""]
        text += [*_beyond_table(list(_beyond(plan, seen, seed)), (first, second)), ""]
    text += [NOTES]
    text += ["", "## How it was made", "", f"    {made['command']}", ""]
    text += [f"- data: {made['data']}, digest `{made['dataset_digest']}`"]
    for name, digest in made["config_digests"].items():
        config = plan.configs[name]
        text.append(
            f"- {name}: `{config.name}`, {config.training.images:,} images a fit, digest `{digest}`"
        )
    for fit in made["fits"]:
        text.append(
            f"- fit {fit['name']}, seed {made['seeds'][fit['seed']]}: checkpoint at "
            f"{fit['images_seen']:,} images ({_passes(fit):.0f} of each slice), digest "
            f"`{fit['checkpoint_digest']}`"
        )
    text.append(f"- code: {made['code_version']}")
    return "\n".join(text) + "\n"


def _p_table(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> list[str]:
    heads = [f"{n} {w}" for n in names for w in ("paper", "here", "here, by patient")]
    said = ["P values of generated against real slices.", ""]
    said += ["| | real slices | | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    for row in rows:
        cells = [row["value"], row["scope"], row["endpoint"]]
        for name in names:
            side = row["sides"].get(name)
            cells += ["–"] * 3 if side is None else [side["paper"], side["p"], side["clustered"]]
        said.append("| " + " | ".join(cells) + " |")
    return said


def _tost_table(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> list[str]:
    heads = [f"{n} {w}" for n in names for w in ("ratio (90 %)", "equivalent", "power", "g")]
    said = ["Equivalence: generated over real, two one-sided tests by patient.", ""]
    said += ["| | real slices | | margin | " + " | ".join(heads) + " |"]
    said += ["|---" * (4 + len(heads)) + "|"]
    for row in rows:
        cells = [row["value"], row["scope"], row["endpoint"], row["margin"]]
        for name in names:
            side = row["sides"].get(name)
            keys = ("ratio", "tost", "power", "g")
            cells += ["–"] * 4 if side is None else [side[key] for key in keys]
        said.append("| " + " | ".join(cells) + " |")
    return said


def _beyond_table(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> list[str]:
    heads = [f"{n} {w}" for n in names for w in ("KID", "SD map")]
    said = ["What counts and sides do not see, in the cells that both know.", ""]
    said += ["| | real against real | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for row in rows:
        cells = [row["cell"], row["floor"]]
        for name in names:
            side = row["sides"].get(name)
            cells += ["–"] * 2 if side is None else [side["kid"], side["sd"]]
        said.append("| " + " | ".join(cells) + " |")
    return said


def _strips(plan: Plan, dataset: Dataset) -> list[dict[str, Any]]:
    """Real slices beside each generator's, in the cells that both generators know."""
    made = {p.name: read_samples(sample_piece(p)) for p in plan.fits if p.seed == 0}
    shown = [
        c for c in dataset.meta.space.cells if all(str(c) in cells for _, cells in made.values())
    ]
    return [
        {
            "cell": str(cell),
            "sides": {
                "real": _few(dataset.images[dataset.cell_index == dataset.meta.space.index(cell)]),
                **{
                    name: _few(images[np.asarray(cells) == str(cell)])
                    for name, (images, cells) in made.items()
                },
            },
        }
        for cell in shown
    ]


def _few(images: NDArray[np.float32]) -> list[str]:
    """Evenly spread ones: neither the first nor the best."""
    chosen = np.linspace(0, len(images) - 1, min(PER_CELL, len(images))).astype(np.int64)
    return [slice_uri(images[i]) for i in chosen]


def _whiskers(plan: Plan, dataset: Dataset) -> str:
    """MC and LR of real and generated slices, as the paper's Fig. 5."""
    sides: dict[str, Measured] = {"real": measure_dataset(dataset)}
    sides |= {
        p.name: measure_synthetic(*read_samples(sample_piece(p))) for p in plan.fits if p.seed == 0
    }
    values = dataset.meta.space.factors[-1].values
    plot, axes = new_plot(9.6, 3.4, 2)
    for axis, (endpoint, label) in zip(axes, ENDPOINTS.items(), strict=True):
        for (i, (name, side)), colour in zip(
            enumerate(sides.items()), (INK, FIRST, SECOND), strict=True
        ):
            groups = [_of_value(side, value, endpoint) for value in values]
            places = np.arange(len(values)) + (i - 1) * 0.27
            _boxes(axis, groups, places, colour)
            axis.plot([], [], color=colour, lw=5, alpha=0.5, label=name)
        axis.set_xticks(np.arange(len(values)), values)
        axis.set_ylabel(label)
    axes[0].legend(frameon=False, fontsize=9)
    return plot_uri(plot)


def _of_value(side: Measured, value: str, endpoint: str) -> NDArray[np.float64]:
    rows = np.asarray([cell.split("/")[-1] == value for cell in side.cells], np.bool_)
    own = side.endpoints.mc if endpoint == "mc" else np.exp(side.endpoints.log_lr)
    return own[rows & np.isfinite(own)]


def _boxes(axis: Any, groups: list[NDArray[np.float64]], places: Any, colour: str) -> None:
    axis.boxplot(
        groups,
        positions=places,
        widths=0.22,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour},
        medianprops={"color": colour, "lw": 1.8},
        whiskerprops={"color": colour},
        capprops={"color": colour},
    )
