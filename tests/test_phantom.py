from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.anatomy import (
    CENTRE_Y,
    Head,
    Pose,
    draw_head,
    picture_points,
    sample_template,
    sample_world,
    template,
)
from fastgan_aug.data.phantom.lesions import LEFT, RIGHT, TERRITORIES, Lesion, remaining, weight
from fastgan_aug.data.phantom.plan import BILATERAL, CER, NORMAL, plan_patients
from fastgan_aug.data.phantom.population import (
    TABLE_1,
    PhantomConfig,
    Run,
    make_phantom,
    write_phantom,
)
from fastgan_aug.data.phantom.spect import Scanner
from fastgan_aug.engines.tasks import map_in_processes
from fastgan_aug.errors import ConfigError, DataError

STRAIGHT = Pose((0.0, 0.0, 0.0), (0.0, 0.0))


def standard_head() -> Head:
    return Head(1.0, 0.0, np.zeros((3, 7, 7, 7)), 61.0, template().grey)


def counts_of(dataset: Dataset) -> dict[str, int]:
    return {str(cell): n for cell, n in dataset.class_counts.items() if n}


def side_log_ratio(images: np.ndarray) -> np.ndarray:
    """log of the patient's left over right: left is in the higher columns."""
    half = images.shape[-1] // 2
    return np.log(images[..., half:].mean((-2, -1)) / images[..., :half].mean((-2, -1)))


# -- counts and patients -------------------------------------------------------------------


def test_table_1_is_dealt_exactly():
    plans = plan_patients(TABLE_1, 250, 5.0, np.random.default_rng(0))
    dealt: dict[str, int] = {}
    for plan in plans:
        for level, n in plan.slices.items():
            dealt[f"{level}/{plan.labels[level]}"] = (
                dealt.get(f"{level}/{plan.labels[level]}", 0) + n
            )
    assert dealt == {cell: n for cell, n in TABLE_1.items() if n}
    totals = [plan.total for plan in plans]
    assert len(plans) == 250
    assert sum(totals) == 938
    assert 2 <= min(totals) <= max(totals) <= 6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=8, max_size=8), st.integers(0, 9))
def test_any_counts_are_dealt_exactly_or_refused(numbers: list[int], seed: int):
    cells = [cell for cell in TABLE_1 if cell != "CER/bilateral"]
    counts = dict(zip(cells, numbers, strict=True))
    patients = max(3, sum(numbers) // 4)
    try:
        plans = plan_patients(counts, patients, 5.0, np.random.default_rng(seed))
    except DataError:
        return
    assert len(plans) == patients
    dealt = dict.fromkeys(cells, 0)
    for plan in plans:
        assert plan.total
        for level, n in plan.slices.items():
            dealt[f"{level}/{plan.labels[level]}"] += n
    assert dealt == counts


def test_a_patient_keeps_one_pattern(small_phantom: Dataset):
    seen: dict[str, set[str]] = {}
    cerebella: dict[str, set[str]] = {}
    for patient, cell in zip(small_phantom.column("patient_id"), small_phantom.cells, strict=True):
        if cell is not None:
            level, pattern = cell.values
            (cerebella if level == CER else seen).setdefault(patient, set()).add(pattern)
    assert all(len(patterns) == 1 for patterns in (*seen.values(), *cerebella.values()))
    for patient, (pattern,) in cerebella.items():
        assert pattern == NORMAL or seen.get(patient, {pattern}) == {pattern}
        assert pattern != BILATERAL


def test_the_small_phantom_has_its_counts(small_phantom: Dataset, small_config: PhantomConfig):
    assert counts_of(small_phantom) == {k: v for k, v in small_config.counts.items() if v}
    assert len(small_phantom.patients) == small_config.patients


# -- the data set --------------------------------------------------------------------------


def test_same_settings_same_digest(small_phantom: Dataset, small_config: PhantomConfig):
    calls: list[tuple[int, int]] = []
    again = make_phantom(small_config, progress=lambda *done: calls.append(done))
    assert again.digest == small_phantom.digest
    assert calls == [(8, 9), (9, 9)]  # blocks of 8 patients
    assert make_phantom(replace(small_config, seed=4)).digest != small_phantom.digest


def test_a_file_is_the_same_however_the_work_is_split(
    small_phantom: Dataset, small_config: PhantomConfig, tmp_path: Path
):
    runs: dict[str, Run] = {"alone": map, "processes": partial(map_in_processes, workers=2)}
    for name, run in runs.items():
        assert write_phantom(small_config, tmp_path / name, run) == len(small_phantom)
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "processes").read_bytes()
    assert Dataset.read(tmp_path / "alone").digest == small_phantom.digest
    assert pq.ParquetFile(tmp_path / "alone").num_row_groups == 2


def test_the_truth_travels_along(small_phantom: Dataset):
    n, size = len(small_phantom), small_phantom.meta.size
    activity = small_phantom.column("activity")
    depth = small_phantom.column("defect_depth")
    assert activity[0].dtype == np.float16
    assert depth[0].dtype == np.uint8
    assert len(activity) == len(depth) == n
    assert {len(a) for a in activity} == {len(d) for d in depth} == {size * size}
    hurt = np.asarray([d.max() > 0 for d in depth])
    named = small_phantom.column("territory") != ""
    assert (hurt <= named).all()
    assert ((small_phantom.column("age") >= 20) & (small_phantom.column("age") <= 90)).all()


def test_a_slice_of_a_lesion_has_fewer_counts():
    lesion = PhantomConfig(counts={"BG/bilateral": 16}, patients=16)
    dataset = make_phantom(lesion)
    activity = np.stack(list(dataset.column("activity"))).astype(np.float64)
    depth = np.stack(list(dataset.column("defect_depth"))) / 100
    kept = activity.sum(1) / (activity / np.maximum(1 - depth, 0.05)).sum(1)
    counts = dataset.images.sum((1, 2)) * dataset.column("scale")
    # Within a scan, where dose and time are the same.
    for scan in set(dataset.column("scan_id")):
        rows = np.flatnonzero(dataset.column("scan_id") == scan)
        assert counts[rows].std() / counts[rows].mean() < 0.2
    assert kept.min() < 0.85
    assert kept.max() <= 1


def test_each_labelled_slice_stands_between_its_neighbours(small_phantom: Dataset):
    neighbours, z = small_phantom.neighbours(), small_phantom.column("z")
    for row in np.flatnonzero(small_phantom.labelled):
        distances = sorted((z[neighbours[row]] - z[row]).tolist())
        assert distances == pytest.approx([-5.0, 5.0], abs=1e-3)


def test_neighbours_look_alike_and_strangers_less(small_phantom: Dataset):
    neighbours, images = small_phantom.neighbours(), small_phantom.images
    rows = np.flatnonzero(small_phantom.labelled)

    def likeness(pairs: list[tuple[int, int]]) -> float:
        return float(
            np.mean([np.corrcoef(images[a].ravel(), images[b].ravel())[0, 1] for a, b in pairs])
        )

    beside = likeness([(r, n) for r in rows for n in neighbours[r]])
    assert beside > 0.85
    assert beside > likeness(list(zip(rows, np.roll(rows, 7), strict=True)))


def test_slices_are_normalised_and_their_scale_is_kept(small_phantom: Dataset):
    assert (small_phantom.images.max((1, 2)) == 1).all()
    totals = small_phantom.images.sum((1, 2)) * small_phantom.column("scale")
    assert ((totals > 2_000) & (totals < 300_000)).all()


def test_the_metadata_tell_how_to_draw_it_again(
    small_phantom: Dataset, small_config: PhantomConfig
):
    meta = small_phantom.meta
    assert meta.laterality == "radiological"
    assert meta.extra["phantom_version"] == 2
    assert Config.of({"name": "x", "phantom": meta.extra["phantom"]}).phantom == small_config


@pytest.mark.parametrize("size", [32, 128])
def test_the_size_is_a_setting(size: int):
    counts = {"BG/normal": 1}
    scanner = Scanner(pixel_mm=256 / size)
    config = PhantomConfig(size=size, scanner=scanner, counts=counts, patients=1)
    dataset = make_phantom(config)
    assert dataset.images.shape == (3, size, size)
    assert 0.1 < (dataset.images > 0.3).mean() < 0.45


# -- orientation ---------------------------------------------------------------------------


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_world_points_are_found_whatever_the_axes_directions(signs: tuple[int, int, int]):
    # One bright voxel at the world point (+8, -4, +6): the patient's right, back, top.
    affine = np.diag((*[2.0 * s for s in signs], 1.0))
    affine[:3, 3] = [-20.0 * s for s in signs]
    volume = np.zeros((21, 21, 21), np.float32)
    index = np.linalg.inv(affine) @ (8, -4, 6, 1)
    volume[tuple(np.round(index[:3]).astype(int))] = 1
    points = np.asarray([[8.0, -8.0], [-4.0, -4.0], [6.0, 6.0]])
    np.testing.assert_allclose(sample_world(volume, affine, points), [1, 0], atol=1e-6)


def test_row_0_is_anterior_and_column_0_the_patients_right():
    points = picture_points(standard_head(), STRAIGHT, np.asarray([0.0]), 64, 4.0)
    x, y, _ = points[:, 0]
    assert x[10, 0] > 100 > -100 > x[10, -1]  # RAS+: x grows to the right
    assert y[0, 10] > CENTRE_Y + 100
    assert y[-1, 10] < CENTRE_Y - 100
    np.testing.assert_allclose(x + x[:, ::-1], 0, atol=1e-4)


@pytest.mark.parametrize(("side", "sign"), [(LEFT, -1), (RIGHT, 1)])
def test_a_lesion_darkens_its_own_side_of_the_picture(side: str, sign: int):
    head = standard_head()
    flow = head.flow * remaining([Lesion(side, "MCA", 0.8)], stress=False)
    points = picture_points(head, STRAIGHT, np.asarray([5.0, 40.0]), 64, 4.0)
    ratio = side_log_ratio(sample_template(flow, points))
    assert (sign * ratio > 0.1).all()
    healthy = side_log_ratio(sample_template(head.flow, points))
    np.testing.assert_allclose(healthy, 0, atol=0.01)  # the atlas is symmetric


def test_unilateral_slices_are_darker_on_the_side_that_truth_names():
    config = PhantomConfig(counts={"BG/unilateral": 16}, patients=16)
    dataset = make_phantom(config)
    left, right = dataset.column("defect_left"), dataset.column("defect_right")
    deep = dataset.labelled & (np.abs(left - right) > 0.3)
    assert deep.sum() >= 4
    # In a scan of few counts the noise can hide a small lesion; most it does not.
    ratios = side_log_ratio(dataset.images[deep])
    assert (np.sign(ratios) == np.sign((right - left)[deep])).mean() > 0.8


# -- anatomy and lesions -------------------------------------------------------------------


@pytest.mark.parametrize("tilt_deg", [3.0, 10.0])
def test_truth_and_pattern_agree(small_config: PhantomConfig, tilt_deg: float):
    phantom = make_phantom(replace(small_config, scanner=Scanner(tilt_deg=tilt_deg)))
    left, right = phantom.column("defect_left"), phantom.column("defect_right")
    depth = np.stack(list(phantom.column("defect_depth"))) / 100
    for i, cell in enumerate(phantom.cells):
        if cell is not None:
            damaged = int(left[i] > 0.08) + int(right[i] > 0.08)
            assert damaged == {"normal": 0, "unilateral": 1, "bilateral": 2}[cell.values[1]]
            assert depth[i].max() >= max(left[i], right[i]) - 0.006


def test_regions_share_the_head_and_tissues_stay_in_range():
    maps = template()
    np.testing.assert_allclose(sum(maps.regions.values()), 1, atol=1e-5)
    assert all(w.min() >= -1e-6 for w in maps.regions.values())
    for tissue in (maps.grey, maps.white, maps.scalp):
        assert tissue.min() >= 0
        assert tissue.max() <= 1.001
    assert (maps.grey + maps.white).max() <= 1.001


def test_healthy_heads_are_symmetric_within_a_few_percent():
    random = np.random.default_rng(0)
    points = picture_points(standard_head(), STRAIGHT, np.asarray([5.0]), 64, 4.0)
    ratios = [side_log_ratio(sample_template(draw_head(random).flow, points))[0] for _ in range(40)]
    assert abs(np.mean(ratios)) < 0.012
    assert 0.01 < np.std(ratios) < 0.04


@pytest.mark.parametrize("territory", [*TERRITORIES, "cerebellum"])
def test_a_lesion_lies_on_its_side_and_is_soft(territory: str):
    maps, lesion = template(), Lesion(LEFT, territory, 0.5)
    where = weight(lesion)
    assert where.min() >= 0
    assert where.max() <= 1.001
    assert where[maps.x[:, 0, 0] > 9].max() < 0.05
    brain = where * (maps.grey + maps.white)
    assert brain.max() > 0.6
    assert ((where > 0.2) & (where < 0.8)).sum() > 100


def test_diaschisis_spares_the_cerebrum_and_cerebral_lesions_the_cerebellum():
    low = template().z[0, 0] < -25
    assert weight(Lesion(LEFT, "MCA", 0.5))[..., low].max() < 0.01
    assert weight(Lesion(LEFT, "cerebellum", 0.5))[..., template().z[0, 0] > 10].max() < 0.01


@given(st.floats(0.05, 0.8), st.floats(1.0, 1.45))
def test_stress_deepens_a_lesion_and_never_beyond_everything(depth: float, reserve: float):
    lesion = Lesion(LEFT, "MCA", depth, reserve)
    assert depth == pytest.approx(lesion.depth_in(False))
    assert depth - 1e-9 <= lesion.depth_in(True) < 1


# -- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"counts": {"CER/bilateral": 1}, "patients": 1},
        {"counts": {"TOP/normal": 1}, "patients": 1},
        {"counts": {"BG/normal": -1}, "patients": 1},
        {"patients": 0},
        {"patients": 939},
        {"size": 4},
        {"size": 32},  # of 4 mm: no head fits
        {"size": 100_000},
        {"seed": -1},
    ],
)
def test_bad_settings_are_refused_with_what_is_allowed(values: dict[str, Any]):
    with pytest.raises(ValueError, match="allowed"):
        PhantomConfig(**values)
    with pytest.raises(ConfigError, match="phantom"):
        Config.of({"name": "x", "phantom": values})


def test_an_unknown_key_is_refused():
    with pytest.raises(ConfigError, match=r"phantom\.sise"):
        Config.of({"name": "x", "phantom": {"sise": 64}})


def test_more_slices_than_patients_can_give_are_refused():
    with pytest.raises(DataError, match="What to do"):
        make_phantom(PhantomConfig(counts={"BG/bilateral": 30}, patients=2))


def test_importing_the_settings_is_light():
    code = (
        "import sys, fastgan_aug.data.phantom; "
        "assert not {'scipy', 'nibabel', 'nilearn', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
