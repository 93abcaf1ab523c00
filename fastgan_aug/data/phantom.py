"""A digital phantom of brain perfusion SPECT: anatomy, lesions, blur and correlated noise.

What it is: atlas anatomy of people who differ, arterial lesions that deepen under stress, a
Gaussian point-spread function, Poisson-like noise passed through the reconstruction filter. What
it is not: projections, attenuation, scatter and iterative reconstruction are not simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.anatomy import (
    LOW,
    SPACING,
    TEMPLATE_FWHM,
    Head,
    draw_head,
    draw_pose,
    picture_points,
    sample_template,
)
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.lesions import (
    LEFT,
    RIGHT,
    Lesion,
    draw_cerebral,
    draw_diaschisis,
    remaining,
)
from fastgan_aug.data.phantom_plan import (
    BILATERAL,
    CER,
    COR,
    LEVEL_Z,
    LEVELS,
    NORMAL,
    PATTERNS,
    PLANE_MM,
    SCANS,
    UNILATERAL,
    PatientPlan,
    plan_patients,
)
from fastgan_aug.data.schema import FICTION, DatasetMeta

PHANTOM_VERSION = 1
SPACE = ConditionSpace.of({"level": LEVELS, "pattern": PATTERNS})
# Werner et al. 2022, Table 1.
TABLE_1: Mapping[str, int] = {
    "CER/normal": 248, "CER/unilateral": 66, "CER/bilateral": 0,
    "BG/normal": 174, "BG/unilateral": 116, "BG/bilateral": 44,
    "COR/normal": 129, "COR/unilateral": 109, "COR/bilateral": 52,
}  # fmt: skip
_FWHM_TO_SD = 1 / 2.3548
_REFERENCE_COUNTS = 60_000.0
_NOISE_FWHM = 0.8  # of the resolution: the filter alone, without collimator and scatter


@dataclass(frozen=True)
class PhantomConfig:
    """What to draw; the defaults give the counts of the paper's Table 1.

    Attributes:
        seed: Decides everything: same settings, same data set, bit for bit.
        size: Rows and columns, pixels.
        pixel_mm: Pixel edge, mm; 64 pixels of 4 mm hold a head with room around it.
        counts: ``{"level/pattern": labelled slices}``; a cell left out has none.
        patients: How many patients share the slices, each with a rest and a stress scan.
        fwhm_mm: Smallest and largest resolution of a scan, mm full width at half maximum.
        noise: Relative standard deviation of grey matter at 60 thousand counts a slice.
        slice_counts: Fewest and most counts of a slice; drawn log-uniformly for each scan.
        tilt_deg: Largest rotation of the head about each axis, degrees.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    seed: int = 0
    size: int = 64
    pixel_mm: float = 4.0
    counts: Mapping[str, int] = field(default_factory=lambda: dict(TABLE_1))
    patients: int = 250
    fwhm_mm: tuple[float, float] = (9.0, 13.0)
    noise: float = 0.04
    slice_counts: tuple[float, float] = (20_000.0, 120_000.0)
    tilt_deg: float = 3.0

    def __post_init__(self) -> None:
        known = [str(cell) for cell in SPACE.cells]
        unknown = sorted(set(self.counts) - set(known))
        _require(not unknown, f"counts names the cells {unknown}", ", ".join(known))
        negative = {k: v for k, v in self.counts.items() if v < 0}
        _require(not negative, f"counts are {negative}", "0 or more")
        _require(not self.counts.get(f"{CER}/{BILATERAL}"),
                 f"counts asks for {CER}/{BILATERAL} slices",
                 "0: crossed diaschisis takes one cerebellar hemisphere")  # fmt: skip
        total = sum(self.counts.values())
        _require(1 <= self.patients <= total, f"patients is {self.patients}", f"1 to {total}")
        _require(self.size >= 16, f"size is {self.size}", "16 pixels or more")
        _require(self.pixel_mm > 0, f"pixel_mm is {self.pixel_mm}", "above 0")
        low, high = self.fwhm_mm
        _require(TEMPLATE_FWHM < low <= high, f"fwhm_mm is {self.fwhm_mm}",
                 f"two ascending values above {TEMPLATE_FWHM:g} mm")  # fmt: skip
        low, high = self.slice_counts
        _require(0 < low <= high, f"slice_counts is {self.slice_counts}", "two ascending values")
        _require(self.noise >= 0, f"noise is {self.noise}", "0 or more")
        _require(0 <= self.tilt_deg <= 20, f"tilt_deg is {self.tilt_deg}", "0 to 20 degrees")


def _require(holds: bool, what: str, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{what}; allowed: {allowed}")


@dataclass(frozen=True)
class _Slices:
    """The slices of one scan, as columns; ``level`` is None for neighbours."""

    activity: NDArray[np.float32]
    z: NDArray[np.floating]
    level: list[str | None]
    lost: NDArray[np.float32]


def make_phantom(
    config: PhantomConfig, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Draws a data set with exactly the counts asked for.

    Each labelled slice has the planes 5 mm below and above it in its own scan, as neighbours or
    as labelled slices. Beyond the usual columns: ``scan_kind`` (rest or stress), and
    ``defect_left`` and ``defect_right``, the largest share of flow truly missing on that side.

    Args:
        config: What to draw.
        progress: Called with patients done and patients in all.

    Raises:
        DataError: the patients cannot give these slices, or the atlas maps are not installed.
    """
    random = np.random.default_rng([config.seed, 0])
    plans = plan_patients(config.counts, config.patients, random)
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    pictures: list[NDArray[np.float32]] = []
    for number, plan in enumerate(plans):
        # A stream per patient: one patient is the same whoever else is drawn.
        _draw_patient(config, number, plan, pictures, rows)
        if progress:
            progress(number + 1, len(plans))
    return _assemble(config, np.concatenate(pictures), rows)


_COLUMNS = ("level", "pattern", "patient_id", "scan_id", "z", "scan_kind", "lost")


def _draw_patient(
    config: PhantomConfig,
    number: int,
    plan: PatientPlan,
    pictures: list[NDArray[np.float32]],
    rows: dict[str, list[Any]],
) -> None:
    random = np.random.default_rng([config.seed, 1, number])
    head, lesions = draw_head(random), draw_lesions(plan, random)
    name = f"phantom-{config.seed}-{number:05d}"
    for kind, slices in _share_scans(plan, random).items():
        scan = _draw_scan(config, head, lesions, kind, slices, random)
        pictures.append(scan.activity)
        n = len(scan.z)
        rows["level"] += scan.level
        rows["pattern"] += [None if lv is None else plan.labels[lv] for lv in scan.level]
        rows["patient_id"] += [name] * n
        rows["scan_id"] += [f"{name}-{kind}"] * n
        rows["z"] += scan.z.tolist()
        rows["scan_kind"] += [kind] * n
        rows["lost"] += scan.lost.tolist()


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
    config: PhantomConfig,
    head: Head,
    lesions: list[Lesion],
    kind: str,
    slices: Mapping[str, int],
    random: np.random.Generator,
) -> _Slices:
    """One scan: chosen planes, true activity, blur in three dimensions, noise."""
    from scipy.ndimage import gaussian_filter

    planes = PLANE_MM * np.arange(-16, 21) + random.uniform(0, PLANE_MM)
    level = _choose_planes(planes / head.scale, slices, random)
    wanted = np.asarray(sorted({i + d for i in level for d in (-1, 0, 1)}))
    span = np.arange(wanted[0] - 3, wanted[-1] + 4)  # blur reaches three planes
    left = remaining(lesions, stress=kind == "stress")
    pose = draw_pose(random, config.tilt_deg)
    points = picture_points(head, pose, _extend(planes, span), config.size, config.pixel_mm)
    activity = sample_template(head.flow * left, points)
    fwhm = random.uniform(*config.fwhm_mm)
    sd = np.sqrt(fwhm**2 - (TEMPLATE_FWHM * head.scale) ** 2) * _FWHM_TO_SD
    steps = np.asarray((PLANE_MM, config.pixel_mm, config.pixel_mm))
    activity = gaussian_filter(activity, sd / steps, truncate=3)[wanted - span[0]]
    counts = np.exp(random.uniform(*np.log(config.slice_counts)))
    noisy = _add_noise(activity, config.noise * np.sqrt(_REFERENCE_COUNTS / counts),
                       _NOISE_FWHM * fwhm * _FWHM_TO_SD / config.pixel_mm, random)  # fmt: skip
    gain = counts / max(float(activity.sum((1, 2)).mean()), 1e-6)
    z = planes[wanted]
    return _Slices(noisy * np.float32(gain), z, [level.get(i) for i in wanted.tolist()],
                   _lost(left, z / head.scale))  # fmt: skip


def _extend(planes: NDArray[np.floating], span: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(planes[0] + PLANE_MM * span)


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


def _add_noise(
    activity: NDArray[np.float32], relative: float, sd: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """White noise in proportion to sqrt(activity), then the reconstruction filter.

    Args:
        activity: (P, S, S), grey matter about 1.
        relative: Standard deviation where the activity is 1.
        sd: Of the filter, pixels.
        random: Each plane has its own noise.
    """
    from scipy.ndimage import gaussian_filter

    white = random.standard_normal(activity.shape, np.float32) * np.sqrt(activity)
    # A Gaussian filter of this width leaves 1 / (2 sqrt(pi) sd) of white noise's SD.
    filtered = gaussian_filter(white, (0, sd, sd), truncate=3) * (2 * np.sqrt(np.pi) * sd)
    return np.asarray(np.clip(activity + np.float32(relative) * filtered, 0, None), np.float32)


def _lost(left: NDArray[np.float32], z: NDArray[np.floating]) -> NDArray[np.float32]:
    """(P, 2) largest share of flow missing on the patient's left and right at these heights."""
    # The soft midline belongs to neither side.
    middle, margin = round(-LOW[0] / SPACING), 3
    by_side = np.stack((left[: middle - margin].min((0, 1)), left[middle + margin :].min((0, 1))))
    index = np.clip(np.round((z - LOW[2]) / SPACING).astype(int), 0, left.shape[2] - 1)
    return np.asarray(1 - by_side[:, index].T, np.float32)


def _assemble(
    config: PhantomConfig, pictures: NDArray[np.float32], rows: dict[str, list[Any]]
) -> Dataset:
    import pyarrow as pa

    scale = pictures.max((1, 2))
    lost = np.asarray(rows.pop("lost"), np.float32)
    meta = DatasetMeta(
        space=SPACE,
        size=config.size,
        source=f"digital phantom of 123I-IMP brain perfusion SPECT, version {PHANTOM_VERSION}",
        pixel_mm=config.pixel_mm,
        pseudonym_key=FICTION,
        extra={"phantom_version": PHANTOM_VERSION, "phantom": asdict(config)},
    )
    return Dataset.build(
        meta,
        images=pictures / scale[:, None, None],
        labels={name: rows[name] for name in SPACE.names},
        patient_id=rows["patient_id"],
        scan_id=rows["scan_id"],
        z=rows["z"],
        scale=scale,
        extra={
            "scan_kind": pa.array(rows["scan_kind"], pa.string()),
            "defect_left": pa.array(lost[:, 0]),
            "defect_right": pa.array(lost[:, 1]),
        },
    )
