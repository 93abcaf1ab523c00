"""One phantom patient: the head, the lesions, the scans at rest and under stress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.phantom.anatomy import (
    Head,
    draw_head,
    draw_pose,
    picture_points,
    sample_template,
)
from fastgan_aug.data.phantom.lesions import (
    LEFT,
    RIGHT,
    Lesion,
    draw_cerebral,
    draw_diaschisis,
    remaining,
)
from fastgan_aug.data.phantom.osem import mix_across, post_filter, reconstruct
from fastgan_aug.data.phantom.plan import (
    BILATERAL,
    CER,
    COR,
    LEVEL_Z,
    NORMAL,
    SCANS,
    UNILATERAL,
    PatientPlan,
)
from fastgan_aug.data.phantom.spect import FWHM_TO_SD, Ellipses, Images, Scanner, acquire

_BRAIN = 0.2  # of grey matter's activity: white matter is above, scalp below
_SCALP_MM = 14.0  # skull and scalp outside the brain
_MIDLINE_MM = 9.0
_OUTLINE_ERROR = 0.03  # relative, of the outline that the attenuation correction draws


@dataclass(frozen=True)
class Scan:
    """What lay in the scanner, and which of its planes are wanted.

    Attributes:
        kind: ``rest`` or ``stress``.
        z: (W,) wanted planes, mm from the anterior commissure, ascending.
        level: (W,) None for neighbours.
        activity: (W, S, S) true activity of the wanted planes, healthy grey matter about 1.
        depth: (W, S, S) share of healthy activity that the lesions took.
        lost: (W, 2) largest share of flow missing on the patient's left and right of the slice.
        emitted: (R, S, S) planes to measure, blurred across planes; a healthy slice sums to 1.
        heads: Outlines of those R.
        wanted: (W,) their positions among the R; each has R planes on both sides.
        random: The scan's own stream, for what the scanner draws.
    """

    kind: str
    z: NDArray[np.float64]
    level: list[str | None]
    activity: Images
    depth: Images
    lost: NDArray[np.float32]
    emitted: Images
    heads: Ellipses
    wanted: NDArray[np.int64]
    random: np.random.Generator


@dataclass(frozen=True)
class Patient:
    """A patient who does not exist.

    Attributes:
        number: In the population.
        plan: Pattern and labels.
        head: Age and anatomy.
        lesions: At rest; stress deepens them.
        scans: One or two.
    """

    number: int
    plan: PatientPlan
    head: Head
    lesions: list[Lesion]
    scans: list[Scan]


def draw_patient(seed: int, number: int, plan: PatientPlan, scanner: Scanner, size: int) -> Patient:
    """Draws a patient from a stream of their own: the same whoever else is drawn."""
    random = np.random.default_rng([seed, 1, number])
    head, lesions = draw_head(random), draw_lesions(plan, random)
    shared = _share_scans(plan, random)
    scans = [
        _draw_scan(scanner, size, head, lesions, kind, slices,
                   np.random.default_rng([seed, 2, number, SCANS.index(kind)]))
        for kind, slices in shared.items()
    ]  # fmt: skip
    return Patient(number, plan, head, lesions, scans)


def draw_lesions(plan: PatientPlan, random: np.random.Generator) -> list[Lesion]:
    """The lesions of a patient of this pattern; diaschisis where the plan labels it."""
    if plan.pattern == NORMAL:
        return []
    anterior = {lv for lv, p in plan.labels.items() if p == plan.pattern} == {COR}
    side = LEFT if random.random() < 0.5 else RIGHT
    sides = [LEFT, RIGHT] if plan.pattern == BILATERAL else [side]
    lesions = [draw_cerebral(random, s, anterior=anterior) for s in sides]
    if plan.labels.get(CER) == UNILATERAL:
        lesions.append(draw_diaschisis(random, side))
    return lesions


def _share_scans(plan: PatientPlan, random: np.random.Generator) -> dict[str, dict[str, int]]:
    """``{rest or stress: {level: slices}}``, halves as even as can be."""
    shared: dict[str, dict[str, int]] = {kind: {} for kind in SCANS}
    for level, slices in plan.slices.items():
        first = int(random.integers(2))
        for i in range(slices):
            scan = shared[SCANS[(first + i) % 2]]
            scan[level] = scan.get(level, 0) + 1
    return {kind: levels for kind, levels in shared.items() if levels}


def _draw_scan(
    scanner: Scanner,
    size: int,
    head: Head,
    lesions: list[Lesion],
    kind: str,
    slices: Mapping[str, int],
    random: np.random.Generator,
) -> Scan:
    """Chooses planes and finds what they emit; the scanner comes later, for many scans at once."""
    step = scanner.plane_mm
    planes = step * np.arange(round(-80 / step), round(105 / step)) + random.uniform(0, step)
    level = _choose_planes(planes / head.scale, slices, random)
    wanted = np.asarray(sorted({i + d for i in level for d in (-1, 0, 1)}))
    measured = np.asarray(sorted({i + d for i in wanted.tolist() for d in (-1, 0, 1)}))
    reach = int(np.ceil(4 * scanner.blur_mm(scanner.radius_mm) * FWHM_TO_SD / step))
    span = np.arange(measured[0] - reach, measured[-1] + reach + 1)
    left = remaining(lesions, stress=kind == "stress")
    pose = draw_pose(random, scanner.tilt_deg)
    points = picture_points(head, pose, planes[0] + step * span, size, scanner.pixel_mm)
    healthy, kept = sample_template(head.flow, points), sample_template(left, points, outside=1)
    here = measured - span[0]
    emitted = _blur_across(scanner, healthy * kept)[here]
    emitted /= max(float(healthy[here].sum((1, 2)).mean()), 1e-6)
    chosen, z = wanted - span[0], planes[wanted]
    return Scan(
        kind=kind,
        z=z,
        level=[level.get(i) for i in wanted.tolist()],
        activity=(healthy * kept)[chosen],
        depth=1 - kept[chosen],
        lost=_lost(1 - kept[chosen], healthy[chosen], points[0, chosen]),
        emitted=emitted,
        heads=Ellipses.around(healthy[here] > _BRAIN, _SCALP_MM / scanner.pixel_mm),
        wanted=np.searchsorted(measured, wanted),
        random=random,
    )


def _choose_planes(
    z: NDArray[np.floating], slices: Mapping[str, int], random: np.random.Generator
) -> dict[int, str]:
    """``{plane: level}`` for as many planes of each level as the scan gives."""
    chosen: dict[int, str] = {}
    for level, count in slices.items():
        low, high = LEVEL_Z[level]
        inside = np.flatnonzero((z >= low) & (z <= high))
        chosen |= {int(i): level for i in random.choice(inside, count, replace=False)}
    return chosen


def _blur_across(scanner: Scanner, activity: Images) -> Images:
    """The collimator's blur across planes, at its mean depth."""
    from scipy.ndimage import gaussian_filter1d

    sd = scanner.blur_mm(scanner.radius_mm) * FWHM_TO_SD / scanner.plane_mm
    return np.asarray(gaussian_filter1d(activity, sd, axis=0, mode="nearest"), np.float32)


def _lost(depth: Images, healthy: Images, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(W, 2) largest share of flow missing on the patient's left and right of each slice.

    Args:
        depth: (W, S, S) share of flow missing.
        healthy: (W, S, S) activity without lesions; scalp and background do not count.
        x: (W, S, S) template position of each pixel, mm to the patient's right.
    """
    brain = healthy > _BRAIN
    # The soft midline belongs to neither side.
    sides = (brain & (x < -_MIDLINE_MM), brain & (x > _MIDLINE_MM))
    return np.stack([(depth * side).max((1, 2)) for side in sides], 1).astype(np.float32)


def scan_all(scanner: Scanner, scans: Sequence[Scan]) -> list[Images]:
    """Measures and reconstructs scans together; each draws from its own stream.

    Returns:
        For each scan (W, S, S) reconstructed counts of its wanted planes.
    """
    draws = [
        (np.exp(s.random.uniform(*np.log(scanner.slice_counts))),
         s.random.uniform(*scanner.scatter), s.random.normal(1, _OUTLINE_ERROR))
        for s in scans
    ]  # fmt: skip
    counts, scatter, outline = np.asarray(draws).T
    scan = np.repeat(np.arange(len(scans)), [len(s.emitted) for s in scans])
    heads = Ellipses(
        np.concatenate([s.heads.centre for s in scans]),
        np.concatenate([s.heads.axes for s in scans]),
    )
    emitted = np.concatenate([s.emitted for s in scans])
    taken = acquire(scanner, emitted, heads, scan, counts, scatter, [s.random for s in scans])
    images = post_filter(scanner, reconstruct(scanner, taken, outline[scan, None]))
    return [_wanted(scanner, images[scan == i], s.wanted) for i, s in enumerate(scans)]


def _wanted(scanner: Scanner, images: Images, wanted: NDArray[np.int64]) -> Images:
    beside = np.stack((images[wanted - 1], images[wanted], images[wanted + 1]))
    return np.asarray(mix_across(scanner, beside)[0])
