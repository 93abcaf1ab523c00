"""How often the default gate fails planted generators, and real patients played as one.

`python -m benchmarks.gate --draws 200 [--pool FOLDER] [--workers N]`: a draw is three phantoms of
Table 1 out of a pool of sixteen, for training, hold-out and generator. Each outcome is a line of
results/gate.jsonl as soon as it is known, and what is there is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.measure import RESULTS, figure, publish
from benchmarks.planted import (
    IGNORES,
    INDEPENDENT,
    PLANTED,
    REAL,
    STRANGERS,
    TRAINING,
    one_slice_each,
)
from fastgan_aug.code_version import code_version
from fastgan_aug.config import QualityConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import TABLE_1, PhantomConfig, write_phantom
from fastgan_aug.engines.tasks import on_all_cores
from fastgan_aug.quality.case import Case
from fastgan_aug.quality.clinical.endpoint_metrics import equivalence_metrics
from fastgan_aug.quality.clinical.endpoints import measure_dataset, measure_synthetic
from fastgan_aug.quality.evaluate import (
    diversity_section,
    fidelity_section,
    privacy_section,
    recognition_section,
)
from fastgan_aug.quality.gate import Rule, judge
from fastgan_aug.quality.metric import Metric
from fastgan_aug.quality.statistics.equivalence import at_training_counts

Line = dict[str, Any]
Unit = tuple[int, str]  # draw, name of the planted generator

POOL = range(1000, 1016)  # seeds; the bounds of the gate were chosen on 0 to 31
EARLY = 40, 8  # so many draws are of so many phantoms alone: first figures come sooner
TRUTH = ["activity", "defect_depth"]  # not needed here, and large
FITTED = 5  # the classifier is fitted in every fifth draw: it is half of the cost
LINES = RESULTS / "gate.jsonl"
CLASSIFIER = "classifier"  # its view
RECOGNITION = ("real_on_synthetic", "synthetic_on_real")
# Bounds from resampled real slices, at the percentile 97.5; the other rules have no such level.
LEVEL, WITH_LEVEL = 0.025, ("kid", "nn_share", "membership_auc")


# -- one outcome -----------------------------------------------------------------------------


def pool_of(draw: int) -> range:
    """Seeds of the phantoms that this draw chooses from."""
    early, few = EARLY
    return POOL[:few] if draw < early else POOL


def seeds_of(draw: int) -> list[int]:
    """Of the phantoms for training, hold-out and generator."""
    chosen = np.random.default_rng(draw).choice(pool_of(draw), 3, replace=False)
    return [int(seed) for seed in chosen]


@lru_cache(len(POOL))
def phantom(pool: Path, seed: int) -> Dataset:
    """The labelled slices of a phantom of Table 1, drawn where it is not there yet."""
    path = pool / f"{seed}.parquet"
    if not path.is_file():
        pool.mkdir(parents=True, exist_ok=True)
        write_phantom(PhantomConfig(seed=seed), path)
    dataset = Dataset.read(path)
    dataset = dataset.take(dataset.labelled)
    return Dataset(dataset.table.drop_columns(TRUTH), dataset.meta)


def source_of(pool: Path, draw: int, kind: str, random: np.random.Generator) -> Dataset:
    """The labelled slices that a planted generator is made of."""
    train, holdout, other = seeds_of(draw)
    if kind == STRANGERS:
        seeds = sorted(set(pool_of(draw)) - {train, holdout})
        return one_slice_each([phantom(pool, seed) for seed in seeds], TABLE_1, random)
    return phantom(pool, train if kind == TRAINING else other)


def endpoints(case: Case) -> list[Metric]:
    """What the gate asks of them: no table of the paper, no other threshold of the mask."""
    made = measure_synthetic(case.images, case.cells.tolist()).take(case.like_training)
    table = at_training_counts(measure_dataset(case.train), made, case.train.meta.space)
    return equivalence_metrics(table, case.absent())


SECTIONS: Mapping[str, Callable[[Case], list[Metric]]] = {
    "endpoints": endpoints,
    "diversity": lambda case: diversity_section(case)[0],
    "fidelity": fidelity_section,
    "privacy": lambda case: privacy_section(case)[0],
    "recognition": recognition_section,
}


def outcome(pool: Path, gate: str, unit: Unit) -> Line:
    """What the rules of the default gate say of one planted generator in one draw.

    Args:
        pool: Folder of the phantoms.
        gate: Digest of the settings, for the record.
        unit: Which.
    """
    import torch
    from threadpoolctl import threadpool_limits

    draw, name = unit
    planted, seeds = PLANTED[name], seeds_of(draw)
    train, holdout = (phantom(pool, seed) for seed in seeds[:2])
    random = np.random.default_rng([draw, list(PLANTED).index(name)])
    source = source_of(pool, draw, planted.source, random)
    begun = time.perf_counter()
    fitted = planted.classifier and draw % FITTED == 0
    images, cells = planted.make(source, random)
    case = Case(train, holdout, images, cells, QualityConfig(classifier=fitted))
    torch.set_num_threads(1)
    with threadpool_limits(1):
        case.check(None)
        sections = planted.sections + ("recognition",) * fitted
        metrics = [metric for section in sections for metric in SECTIONS[section](case)]
    asked, failed = judged(case.settings.gate, metrics)
    return {
        "draw": draw, "planted": name, "seeds": seeds, "classifier": fitted,
        "gate": gate, "code": code_version(), "seconds": round(time.perf_counter() - begun, 1),
        **({} if planted.right else {"asked": asked}), "failed": failed,
    }  # fmt: skip


def judged(
    rules: Sequence[Rule], metrics: Sequence[Metric]
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, dict[str, float | None]]]]:
    """How many tests each rule made, and those that failed.

    Rules on what was not measured are left out: they neither pass nor fail.

    Returns:
        ``{rule: {view: tests}}`` and ``{rule: {view: {cell: value}}}``.
    """
    asked: dict[str, dict[str, int]] = {}
    failed: dict[str, dict[str, dict[str, float | None]]] = {}
    for rule in rules:
        name = f"{rule.metric} {rule.cells}"
        for reason in judge([rule], metrics).reasons:
            if reason.value is None:
                continue
            views = asked.setdefault(name, {})
            views[reason.view] = views.get(reason.view, 0) + 1
            if not reason.passed:
                value = None if reason.unjudged else float(f"{reason.value:.4g}")
                failed.setdefault(name, {}).setdefault(reason.view, {})[reason.cell] = value
    return asked, failed


# -- all of them -----------------------------------------------------------------------------


def known(gate: str) -> list[Line]:
    """The outcomes that are there; a line that a kill cut short is dropped, to be done again."""
    text = LINES.read_text() if LINES.is_file() else ""
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        LINES.write_text(text)
    lines = [json.loads(line) for line in text.splitlines()]
    if any(line["gate"] != gate for line in lines):
        raise SystemExit(f"{LINES} was made with another gate or settings: remove it to begin anew")
    return lines


def compute(pool: Path, draws: int, workers: int) -> list[Line]:
    """All outcomes of these draws; those that are not there yet are appended as they come."""
    settings = json.dumps(QualityConfig().model_dump(mode="json"), sort_keys=True)
    gate = hashlib.sha256(settings.encode()).hexdigest()[:12]
    lines = known(gate)
    there = {(line["draw"], line["planted"]) for line in lines}
    units = [u for d in range(draws) for name in PLANTED if (u := (d, name)) not in there]
    with LINES.open("a") as out:
        for line in on_all_cores(workers)(partial(outcome, pool, gate), units):
            out.write(json.dumps(line) + "\n")
            out.flush()
            lines.append(line)
            Console().print(f"draw {line['draw']}, {line['planted']}: {line['seconds']} s, "
                            f"{', '.join(line['failed']) or 'passes'}")  # fmt: skip
    return [line for line in lines if line["draw"] < draws]


# -- what they say ---------------------------------------------------------------------------


def share(
    what: str, hits: Iterable[float], goal: float | None = None, tests: int = 1
) -> dict[str, Any]:
    """How many of the draws (or of so many tests in each), with Wilson's interval of 95 %.

    The interval is one of draws even where a draw holds several tests: they are not independent.
    """
    from statsmodels.stats.proportion import proportion_confint

    each = np.asarray(list(hits), np.float64)
    n, value = len(each), float(each.mean() / tests)
    low, high = proportion_confint(value * n, n, method="wilson")
    unit = "of draws" if tests == 1 else f"of {tests * n} tests"
    row = figure(what, value, unit, goal)
    return row | {"draws": n, "low": float(low), "high": float(high)}


def quick(line: Line) -> Line:
    """The same outcome had the classifier not been fitted."""
    return line | {
        key: {
            rule: kept
            for rule, views in line[key].items()
            if (kept := {v: cells for v, cells in views.items() if v != CLASSIFIER})
            and not rule.startswith(RECOGNITION)
        }
        for key in ("asked", "failed") if key in line
    }  # fmt: skip


def of_planted(name: str, lines: Sequence[Line], suffix: str = "") -> Iterator[dict[str, Any]]:
    """Power: how often it fails, how often for the right reason, and by which rule."""
    right = PLANTED[name].right
    by_rule = {
        rule: [rule in line["failed"] for line in lines]
        for rule in dict.fromkeys(rule for line in lines for rule in line["failed"])
    }
    rightly = [any(rule.startswith(right) for rule in line["failed"]) for line in lines]
    yield share(f"{name}{suffix}: fails", [bool(line["failed"]) for line in lines])
    yield share(f"{name}{suffix}: fails by {' or '.join(right)}", rightly)
    for rule, hits in by_rule.items():
        yield share(f"{name}{suffix}: rule {rule}", hits)


def of_real(name: str, lines: Sequence[Line], suffix: str = "") -> Iterator[dict[str, Any]]:
    """Type I error: of the whole gate, of each rule, and of each test that has a level."""
    yield share(f"{name}{suffix}: gate fails", [bool(line["failed"]) for line in lines])
    for rule, views in lines[0]["asked"].items():
        yield share(f"{name}{suffix}: rule {rule}", [rule in line["failed"] for line in lines])
        if rule.startswith(WITH_LEVEL):
            tests = [sum(map(len, line["failed"].get(rule, {}).values())) for line in lines]
            number = sum(views.values())
            yield share(f"{name}{suffix}: one test of {rule}", tests, LEVEL, number)


def figures_of(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The table, real patients first."""
    by_name = {name: [line for line in lines if line["planted"] == name] for name in PLANTED}
    fitted = {name: [x for x in by_name[name] if x["classifier"]] for name in (REAL, IGNORES)}
    with_it = ", with the classifier"
    rows = list(of_real(REAL, fitted[REAL], with_it))
    for name in (INDEPENDENT, REAL):
        rows = [*of_real(name, [quick(x) for x in by_name[name]]), *rows]
    for name, planted in PLANTED.items():
        if planted.right:
            rows += of_planted(name, [quick(x) for x in by_name[name]])
    rows += of_planted(IGNORES, fitted[IGNORES], with_it)
    for name, own in by_name.items():
        rows.append(figure(f"{name}: a draw", float(np.median([x["seconds"] for x in own])), "s"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pool", type=Path, default=RESULTS.parents[1] / "runs" / "gate-pool")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    lines = compute(given.pool, given.draws, given.workers)
    used = sorted({seed for line in lines for seed in line["seeds"]})
    publish(
        "gate",
        figures_of(lines),
        command=f"python -m benchmarks.gate --draws {given.draws}",
        seeds=used,
        draws=given.draws,
        gate=lines[0]["gate"],
        code=sorted({line["code"] for line in lines}),
        datasets={seed: Dataset.read(given.pool / f"{seed}.parquet").digest for seed in used},
        planted={name: planted.what for name, planted in PLANTED.items()},
    )


if __name__ == "__main__":
    main()
