"""The paper's own table: per pattern, levels pooled, real against generators, ANOVA and Tukey.

Werner et al. 2022 pool the cells that share the last factor's value, call groups alike where
P > 0.05, and do not say which post hoc test they used, nor whether the generator that knew one
level only met all real slices or that level's. Here it meets both: "one generator is better than
the other" may come from the pooling alone, so the other one is judged on that level too. Beside
the paper's tests stand those that know that slices come in patients, and equivalence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.quality.clinical.endpoints import Measured
from fastgan_aug.quality.statistics.anova import (
    Anova,
    Pair,
    anova,
    anova_clustered,
    tukey,
    tukey_clustered,
)
from fastgan_aug.quality.statistics.equivalence import of_cells
from fastgan_aug.quality.statistics.means import (
    Effect,
    Equivalence,
    Mean,
    hedges_g,
    mean_of,
    tost_ratio,
)

REAL = "real"
POOLED = "pooled"
# LR about 1 within 2 % is log LR about 0 within 0.02, the margin of the equivalence tables.
MARGINS = {"mc": (0.95, 1.05), "lr": (0.98, 1.02)}


@dataclass(frozen=True)
class Against:
    """One generator against the real slices of a row.

    Attributes:
        generator: Its name.
        n: Its slices.
        mean: Of the endpoint.
        sd: Of the endpoint over slices.
        tukey_p: Tukey's P as the paper would have it: every slice independent.
        clustered_p: Games and Howell's P with patients as clusters.
        equivalence: Of the means' ratio, generator over real, with patients as clusters.
        effect: Hedges' g, generator minus real.
    """

    generator: str
    n: int
    mean: float
    sd: float
    tukey_p: float
    clustered_p: float
    equivalence: Equivalence
    effect: Effect


@dataclass(frozen=True)
class PaperRow:
    """One endpoint of one value of the last factor.

    Attributes:
        value: Of the last factor: ``bilateral``.
        scope: ``pooled`` for all cells of that value, or the cells that some generator knows,
            ``COR/bilateral``.
        endpoint: ``mc`` or ``lr``.
        n: Real slices.
        patients: Whose they are: fewer, so the paper's P values overstate what is known.
        mean: Of the real slices.
        sd: Over the real slices.
        anova: Real and all generators, as the paper did it.
        clustered: The same with patients as clusters.
        generators: Each against the real slices.
    """

    value: str
    scope: str
    endpoint: str
    n: int
    patients: int
    mean: float
    sd: float
    anova: Anova
    clustered: Anova
    generators: tuple[Against, ...]


def paper_table(
    real: Measured, generators: Mapping[str, Measured], space: ConditionSpace
) -> list[PaperRow]:
    """Judges generators as the paper did, and beside it as one should.

    Args:
        real: All real slices.
        generators: Generated slices by the generator's name (``A``, ``B``). Of each cell no more
            are taken than there are real ones.
        space: Of the real slices; rows go by its last factor, cells with one value pooled.

    Returns:
        Per value, scope and endpoint: ``pooled`` first, then, where a generator has fewer cells of
        that value than the real slices, those alone.
    """
    capped = {name: _at_most(slices, real) for name, slices in generators.items()}
    rows = []
    for value in space.factors[-1].values:
        present = set(real.cells.tolist())
        cells = [str(c) for c in space.cells if c.values[-1] == value and str(c) in present]
        for scope, kept in _scopes(cells, list(capped.values())):
            own = of_cells(real, kept)
            sides = {name: of_cells(slices, kept) for name, slices in capped.items()}
            sides = {name: slices for name, slices in sides.items() if len(slices)}
            if len(own) and sides:
                rows += [_row(value, scope, endpoint, own, sides) for endpoint in MARGINS]
    return rows


def _scopes(cells: list[str], generators: Sequence[Measured]) -> list[tuple[str, list[str]]]:
    """All cells, and each smaller set of them that some generator knows, once."""
    scopes = {tuple(cells): POOLED}
    for slices in generators:
        known = tuple(cell for cell in cells if cell in set(slices.cells.tolist()))
        if known:
            scopes.setdefault(known, ", ".join(known))
    return [(name, list(kept)) for kept, name in scopes.items()]


def _at_most(slices: Measured, real: Measured) -> Measured:
    """No more of any cell than there are real ones, the first ones."""
    left = dict(zip(*np.unique(real.cells, return_counts=True), strict=True))
    seen = {cell: count() for cell in left}
    keep = [cell in left and next(seen[cell]) < left[cell] for cell in slices.cells]
    return slices.take(np.asarray(keep, np.bool_))


def _row(
    value: str, scope: str, endpoint: str, real: Measured, sides: Mapping[str, Measured]
) -> PaperRow:
    clustered = {REAL: mean_of(_values(real, endpoint), real.patients)}
    clustered |= {k: mean_of(_values(s, endpoint), s.patients) for k, s in sides.items()}
    apart, together = tukey(clustered), tukey_clustered(clustered)
    own, means = clustered[REAL], list(clustered.values())
    return PaperRow(
        value=value,
        scope=scope,
        endpoint=endpoint,
        n=own.n,
        patients=own.clusters,
        mean=own.mean,
        sd=own.sd,
        anova=anova(means),
        clustered=anova_clustered(means),
        generators=tuple(
            _against(name, clustered[name], own, endpoint, apart, together) for name in sides
        ),
    )


def _against(
    name: str, made: Mean, real: Mean, endpoint: str, apart: list[Pair], together: list[Pair]
) -> Against:
    return Against(
        generator=name,
        n=made.n,
        mean=made.mean,
        sd=made.sd,
        tukey_p=_p(apart, name),
        clustered_p=_p(together, name),
        equivalence=tost_ratio(made, real, MARGINS[endpoint]),
        effect=hedges_g(made, real),
    )


def _p(pairs: list[Pair], name: str) -> float:
    """P of this generator against real."""
    return next(pair.p for pair in pairs if (pair.first, pair.second) == (REAL, name))


def _values(slices: Measured, endpoint: str) -> NDArray[np.float64]:
    """MC, or LR itself: the paper averages the ratio, not its logarithm."""
    return slices.endpoints.mc if endpoint == "mc" else np.exp(slices.endpoints.log_lr)
