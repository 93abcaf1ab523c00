"""The paper's table beside ours: what it said of two generators, and what is found here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.counts import counts_table
from fastgan_aug.quality.likeness.features import Sample, fixed_view, real_sample
from fastgan_aug.quality.likeness.kid import kid_metrics
from fastgan_aug.quality.metric import OVERALL
from fastgan_aug.quality.statistics.means import ALPHA
from fastgan_aug.quality.statistics.paper_table import POOLED, Against, PaperRow


@dataclass(frozen=True)
class Published:
    """P values as they were printed.

    Attributes:
        source: Where.
        factor: Whose values the rows are.
        p: ``{generator: {endpoint: {value: P as printed}}}``.
    """

    source: str
    factor: str
    p: Mapping[str, Mapping[str, Mapping[str, str]]]

    @classmethod
    def read(cls, path: Path) -> Published:
        """Reads a JSON file.

        Raises:
            DataError: it is none, or lacks a part.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values["source"], values["factor"], values["p"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no table of published P values: {error}",
                allowed="JSON with source, factor and p",
            ) from error

    def of(self, generator: str, endpoint: str, value: str) -> str:
        """As printed; a dash where nothing was."""
        return self.p.get(generator, {}).get(endpoint, {}).get(value, "–")


def line_of(row: PaperRow, against: Against, published: Published, seed: int) -> dict[str, Any]:
    """One generator in one row, as plain JSON values; a NaN becomes None.

    Args:
        row: Of ``paper_table``.
        against: One of its generators.
        published: What the paper printed.
        seed: Of the fit.
    """
    test = against.equivalence
    values = {
        "seed": seed,
        "value": row.value,
        "scope": row.scope,
        "endpoint": row.endpoint,
        "generator": against.generator,
        "n_real": row.n,
        "patients": row.patients,
        "n": against.n,
        "real": row.mean,
        "real_sd": row.sd,
        "mean": against.mean,
        "sd": against.sd,
        "p_paper": published.of(against.generator, row.endpoint, row.value),
        "p_anova": row.anova.p,
        "p": against.tukey_p,
        "p_clustered": against.clustered_p,
        "ratio": test.estimate,
        "ratio_low": test.low,
        "ratio_high": test.high,
        "margin": list(test.margin),
        "tost_p": test.p,
        "tost_power": test.power,
        "equivalent": test.passes,
        "g": against.effect.g,
    }
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in values.items()}  # fmt: skip


def beyond(
    dataset: Dataset, made: Mapping[str, tuple[NDArray[np.float32], Sequence[str]]]
) -> list[dict[str, Any]]:
    """What mean counts and sides do not see: texture, shape, and variety.

    The kernel distance of the fixed vector (no fit decides it) and the mean of the pixel-wise SD
    map, the paper's third endpoint, in the cells that all generators know and over them together.

    Args:
        dataset: The real slices.
        made: Images and cells of each generator.

    Returns:
        Per cell and generator ``kid``, its ``floor`` of real slices against real ones, and
        ``sd_ratio``, generated over real (None over all cells).
    """
    known = [set(cells) for _, cells in made.values()]
    shared = [str(c) for c in dataset.meta.space.cells if all(str(c) in k for k in known)]
    view = fixed_view(dataset)
    real = _only(real_sample(view, dataset), shared)
    found = []
    for name, (images, cells) in made.items():
        synthetic = _only(Sample.of(view(images), cells), shared)
        sd = {r.cell: r.sd_map_synthetic / r.sd_map_real
              for r in counts_table(dataset, images, cells) if r.sd_map_real > 0}  # fmt: skip
        found += [
            {
                "generator": name,
                "cell": metric.cell,
                "kid": metric.value,
                "low": metric.low,
                "high": metric.high,
                "floor": metric.floor,
                "sd_ratio": sd.get(metric.cell),
            }
            for metric in kid_metrics(real, synthetic, view=view.name, delta=0.0)
            if not math.isnan(metric.value)
        ]
    return found


def _only(sample: Sample, cells: Sequence[str]) -> Sample:
    return sample.take(np.isin(sample.cells, list(cells)))


@dataclass(frozen=True)
class Standing:
    """One generator in one scope, over all rows and seeds.

    Attributes:
        rows: How many.
        different: In how many the paper's test tells it from real slices.
        clustered: In how many the test that knows of patients does.
        equivalent: In how many equivalence is shown.
        effect: Mean size of Hedges' g.
    """

    rows: int
    different: int
    clustered: int
    equivalent: int
    effect: float


def standing(lines: Sequence[Mapping[str, Any]], generator: str, scope: str) -> Standing:
    """Sums up a generator's lines of one scope.

    Args:
        lines: Of ``line_of``.
        generator: Its name.
        scope: ``pooled``, or ``alone`` for the rows of cells that a generator knows alone.
    """
    own = [x for x in lines if x["generator"] == generator and _scope(x) == scope]
    sizes = [abs(x["g"]) for x in own if x["g"] is not None]
    return Standing(
        rows=len(own),
        different=sum(x["p"] is not None and x["p"] < ALPHA for x in own),
        clustered=sum(x["p_clustered"] is not None and x["p_clustered"] < ALPHA for x in own),
        equivalent=sum(bool(x["equivalent"]) for x in own),
        effect=sum(sizes) / len(sizes) if sizes else math.nan,
    )


ALONE = "alone"


def _scope(line: Mapping[str, Any]) -> str:
    return POOLED if line["scope"] == POOLED else ALONE


def conclusion(
    lines: Sequence[Mapping[str, Any]],
    seen: Sequence[Mapping[str, Any]],
    first: str,
    second: str,
    alone: str,
) -> str:
    """What it says of the one generator against the other, in plain words.

    Args:
        lines: Of ``line_of``.
        seen: Of ``beyond``.
        first: Generator of all cells.
        second: Generator of some.
        alone: What to call the cells of the second one.

    Raises:
        DataError: a generator has no lines.
    """
    found = {(g, s): standing(lines, g, s) for g in (first, second) for s in (POOLED, ALONE)}
    if not all(found[g, POOLED].rows for g in (first, second)):
        raise DataError("a generator was not judged", do="judge both")
    parts = [f"Pooled, {_told(found, first, second, POOLED)}."]
    if found[first, ALONE].rows and found[second, ALONE].rows:
        parts.append(f"On {alone}, {_told(found, first, second, ALONE)}.")
    parts += [_lead(found, first, second, alone), _equivalence(found, first, second)]
    return " ".join([*parts, *_distance(seen, first, second)])


Found = Mapping[tuple[str, str], Standing]


def _told(found: Found, first: str, second: str, scope: str) -> str:
    one, other = found[first, scope], found[second, scope]
    return (
        f"the paper's test tells {first} from real slices in {one.different} of {one.rows} rows "
        f"and {second} in {other.different} of {other.rows} (mean |g| {one.effect:.2f} and "
        f"{other.effect:.2f})"
    )


def _lead(found: Found, first: str, second: str, alone: str) -> str:
    """Which is nearer to real slices, and whether that holds where both meet the same ones."""
    pooled = found[first, POOLED].effect < found[second, POOLED].effect
    if not found[first, ALONE].rows or not found[second, ALONE].rows:
        return f"{first if pooled else second} is the nearer one."
    apart = found[first, ALONE].effect < found[second, ALONE].effect
    if pooled and apart:
        return f"{first} is the nearer one both ways, so its lead is not the pooling's alone."
    if pooled:
        return (
            f"{first} is the nearer one pooled, {second} on {alone}: the lead of {first} comes "
            "from the pooling."
        )
    if apart:
        return f"{second} is the nearer one pooled, {first} on {alone}."
    return f"{second} is the nearer one both ways: the paper's lead of {first} is not seen here."


def _equivalence(found: Found, first: str, second: str) -> str:
    said = []
    for name in (first, second):
        sides = [found[name, scope] for scope in (POOLED, ALONE)]
        rows = sum(s.rows for s in sides)
        said.append(f"{name} in {sum(s.equivalent for s in sides)} of {rows} rows")
    return f"Equivalence inside the preset margins is shown for {' and for '.join(said)}."


def _distance(seen: Sequence[Mapping[str, Any]], first: str, second: str) -> list[str]:
    """Mean over seeds of the distance over all shared cells; nothing where there is none."""
    rows = [row for row in seen if row["cell"] == OVERALL]
    means = [float(np.mean([r["kid"] for r in rows if r["generator"] == name] or [np.nan]))
             for name in (first, second)]  # fmt: skip
    if not np.isfinite(means).all():
        return []
    floor = float(np.mean([r["floor"] for r in rows]))
    nearer = first if means[0] < means[1] else second
    clear = "neither" if min(means) > floor else nearer
    return [
        f"Beyond counts and sides, in the cells that both know, {nearer} is the nearer one (KID "
        f"{means[0]:.3g} for {first}, {means[1]:.3g} for {second}); {clear} is as near as real "
        f"slices of other patients (up to {floor:.2f})."
    ]
