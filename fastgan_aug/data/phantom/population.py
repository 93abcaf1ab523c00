"""A digital phantom of 123I-IMP brain perfusion SPECT, drawn patient by patient.

Atlas anatomy of people who differ (`anatomy`), arterial lesions that deepen under stress
(`lesions`), and a scanner's physics from photons to a filtered reconstruction (`spect`). Patients
are drawn in blocks of a fixed number, so that a data set has the same bytes however many processes
share the work, and one of any length fits in memory a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.patient import Patient, Scan, draw_patient, scan_all
from fastgan_aug.data.phantom.plan import (
    BILATERAL,
    CER,
    LEVELS,
    PATTERNS,
    PatientPlan,
    plan_patients,
)
from fastgan_aug.data.phantom.spect import HEAD_MM, Scanner, require
from fastgan_aug.data.schema import FICTION, DatasetMeta

PHANTOM_VERSION = 2
SPACE = ConditionSpace.of({"level": LEVELS, "pattern": PATTERNS})
# Werner et al. 2022, Table 1.
TABLE_1: Mapping[str, int] = {
    "CER/normal": 248, "CER/unilateral": 66, "CER/bilateral": 0,
    "BG/normal": 174, "BG/unilateral": 116, "BG/bilateral": 44,
    "COR/normal": 129, "COR/unilateral": 109, "COR/bilateral": 52,
}  # fmt: skip
BLOCK = 8  # patients drawn together: large enough for the matrix products, 200 MB at most

Job = tuple[int, Sequence[PatientPlan]]  # number of the first patient, plans
# Does all jobs, results in their order: the built-in map, or processes or Ray workers.
Run = Callable[[Callable[[Job], pa.Table], Iterable[Job]], Iterator[pa.Table]]


@dataclass(frozen=True)
class PhantomConfig:
    """What to draw; the defaults give the counts of the paper's Table 1 on the paper's scanner.

    Attributes:
        seed: Decides everything: same settings, same data set, bit for bit.
        size: Rows and columns, pixels.
        counts: ``{"level/pattern": labelled slices}``; a cell left out has none.
        patients: How many patients share the slices, each with a rest and a stress scan.
        scanner: How they are measured and reconstructed.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    seed: int = 0
    size: int = 64
    counts: Mapping[str, int] = field(default_factory=lambda: dict(TABLE_1))
    patients: int = 250
    scanner: Scanner = field(default_factory=Scanner)

    def __post_init__(self) -> None:
        known = [str(cell) for cell in SPACE.cells]
        unknown = sorted(set(self.counts) - set(known))
        require(not unknown, f"counts names the cells {unknown}", ", ".join(known))
        negative = {k: v for k, v in self.counts.items() if v < 0}
        require(not negative, f"counts are {negative}", "0 or more")
        require(not self.counts.get(f"{CER}/{BILATERAL}"),
                f"counts asks for {CER}/{BILATERAL} slices",
                "0: crossed diaschisis takes one cerebellar hemisphere")  # fmt: skip
        total = sum(self.counts.values())
        require(1 <= self.patients <= total, f"patients is {self.patients}", f"1 to {total}")
        require(16 <= self.size <= 512, f"size is {self.size}", "16 to 512 pixels")
        require(self.seed >= 0, f"seed is {self.seed}", "0 or more")
        field_mm = self.size * self.scanner.pixel_mm
        require(field_mm >= 2 * HEAD_MM, f"size and pixel_mm give a field of {field_mm:g} mm",
                f"{2 * HEAD_MM:g} mm or more: a head")  # fmt: skip

    @property
    def meta(self) -> DatasetMeta:
        """What the data set says of all its rows."""
        return DatasetMeta(
            space=SPACE,
            size=self.size,
            source=f"digital phantom of 123I-IMP brain perfusion SPECT, version {PHANTOM_VERSION}",
            pixel_mm=self.scanner.pixel_mm,
            pseudonym_key=FICTION,
            extra={"phantom_version": PHANTOM_VERSION, "phantom": asdict(self)},
        )


def make_phantom(
    config: PhantomConfig,
    run: Run = map,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Draws a data set with exactly the counts asked for, in memory.

    Each labelled slice has the planes below and above it in its own scan, as neighbours or as
    labelled slices. Beyond the usual columns, the truth: ``scan_kind`` (rest or stress), ``age``,
    ``territory`` (side and artery of each lesion), ``defect_left`` and ``defect_right`` (largest
    share of flow truly missing on that side of the slice), ``activity`` (S * S float16, free of
    noise and blur, healthy grey matter about 1) and ``defect_depth`` (S * S uint8, percent of flow
    that lesions took; above 0 is the lesion's mask).

    Args:
        config: What to draw.
        run: Does the blocks, results in order: ``map`` draws one after the other.
        progress: Called with patients done and patients in all.

    Raises:
        DataError: the patients cannot give these slices, or the atlas maps are not installed.
    """
    dataset = Dataset(pa.concat_tables(_blocks(config, run, progress)), config.meta)
    dataset.check()
    return dataset


def write_phantom(
    config: PhantomConfig,
    path: Path,
    run: Run = map,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draws a data set straight into a file: any number of slices in flat memory.

    Args:
        config: As for ``make_phantom``; the rows are the same.
        path: Parquet file, the same bytes whatever ``run`` is.
        run: As for ``make_phantom``.
        progress: As for ``make_phantom``.

    Returns:
        Rows written.

    Raises:
        DataError: as for ``make_phantom``.
        StorageError: the file cannot be written.
    """
    return Dataset.write_stream(path, config.meta, _blocks(config, run, progress))


def _blocks(
    config: PhantomConfig, run: Run, progress: Callable[[int, int], None] | None
) -> Iterator[pa.Table]:
    plans = plan_patients(
        config.counts, config.patients, config.scanner.plane_mm,
        np.random.default_rng([config.seed, 0]),
    )  # fmt: skip
    jobs = [(i, plans[i : i + BLOCK]) for i in range(0, len(plans), BLOCK)]
    for (first, block), table in zip(jobs, run(partial(draw_block, config), jobs), strict=True):
        yield table
        if progress:
            progress(first + len(block), len(plans))


def draw_block(config: PhantomConfig, job: Job) -> pa.Table:
    """The rows of some patients; decided by the configuration and their plans alone.

    Args:
        config: What is drawn.
        job: Number of the first of them, and their plans.
    """
    from threadpoolctl import threadpool_limits

    first, plans = job
    patients = [
        draw_patient(config.seed, first + i, plan, config.scanner, config.size)
        for i, plan in enumerate(plans)
    ]
    # One thread: how many there are may change the last bit of a product.
    with threadpool_limits(1):
        pictures = scan_all(config.scanner, [scan for p in patients for scan in p.scans])
    owners = [(patient, scan) for patient in patients for scan in patient.scans]
    tables = [
        _rows(config, patient, scan, counts)
        for (patient, scan), counts in zip(owners, pictures, strict=True)
    ]
    return pa.concat_tables(tables).combine_chunks()


def _rows(
    config: PhantomConfig, patient: Patient, scan: Scan, counts: NDArray[np.float32]
) -> pa.Table:
    n, plan = len(scan.z), patient.plan
    name = f"phantom-{config.seed}-{patient.number:05d}"
    scale = counts.max((1, 2))
    territory = "; ".join(f"{lesion.side} {lesion.territory}" for lesion in patient.lesions)
    flat = config.size**2
    depth = np.rint(100 * np.clip(scan.depth, 0, 1)).astype(np.uint8)
    return Dataset.build(
        config.meta,
        images=counts / scale[:, None, None],
        labels={
            "level": scan.level,
            "pattern": [None if lv is None else plan.labels[lv] for lv in scan.level],
        },
        patient_id=[name] * n,
        scan_id=[f"{name}-{scan.kind}"] * n,
        z=scan.z.tolist(),
        scale=scale.tolist(),
        extra={
            "scan_kind": pa.array([scan.kind] * n, pa.string()),
            "age": pa.array(np.full(n, patient.head.age, np.float32)),
            "territory": pa.array([territory] * n, pa.string()),
            "defect_left": pa.array(scan.lost[:, 0]),
            "defect_right": pa.array(scan.lost[:, 1]),
            "activity": pa.FixedSizeListArray.from_arrays(
                pa.array(scan.activity.astype(np.float16).reshape(-1)), flat
            ),
            "defect_depth": pa.FixedSizeListArray.from_arrays(pa.array(depth.reshape(-1)), flat),
        },
    ).table
