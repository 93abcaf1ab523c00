"""Published facts that the phantom is held to, each with its source and tolerance.

[S] from a published source, [M] measured from public images, [K] common knowledge, plausible.
"""

from __future__ import annotations

import numpy as np
import pytest

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.anatomy import CENTRE_Y, REGIONS, draw_head, template
from fastgan_aug.data.phantom.lesions import (
    LEFT,
    TERRITORIES,
    Lesion,
    draw_cerebral,
    draw_diaschisis,
    remaining,
    weight,
)
from fastgan_aug.data.phantom.population import PhantomConfig, make_phantom
from fastgan_aug.quality.clinical.counts import left_right_ratio
from fastgan_aug.quality.clinical.spectrum import radial_power
from fastgan_aug.quality.clinical.tissue import grey_over_white

pytestmark = pytest.mark.phantom

COUNTS = {"CER/normal": 40, "BG/normal": 40, "COR/normal": 40, "CER/unilateral": 24}


@pytest.fixture(scope="module")
def phantom() -> Dataset:
    return make_phantom(PhantomConfig(seed=77, counts=COUNTS, patients=60))


def of(phantom: Dataset, cell: str) -> np.ndarray:
    return np.asarray([str(c) == cell for c in phantom.cells])


def activity(phantom: Dataset, rows: np.ndarray) -> np.ndarray:
    """(N, S, S) true activity."""
    columns = np.stack(list(phantom.column("activity")[rows])).astype(np.float64)
    return columns.reshape(len(columns), phantom.meta.size, phantom.meta.size)


# -- anatomy and flow ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [draw_head(random).flow for _ in range(30)]


@pytest.mark.parametrize(
    ("region", "expected"),
    [("putamen", 1.1), ("thalamus", 1.05), ("cerebellum", 1.05), ("occipital", 1.1),
     ("frontal", 1.0), ("temporal", 0.95), ("hippocampus", 0.9)],
)  # fmt: skip
def test_regional_flow(heads: list[np.ndarray], region: str, expected: float):
    """Against other cortex; each person's differ by 5 % [K]. Tolerance: 3 % of the mean of 30."""
    maps = template()

    def grey_flow(flow: np.ndarray, name: str) -> float:
        core = (maps.regions[name] > 0.7) & (maps.grey > 0.9)
        return float(flow[core].mean())

    assert REGIONS[region] == expected
    # A region of few voxels is one fold: its own 15 % average out over people alone.
    ratios = [grey_flow(flow, region) / grey_flow(flow, "other") for flow in heads]
    assert np.mean(ratios) == pytest.approx(expected, abs=0.03 + 2 * np.std(ratios) / 30**0.5)


def test_grey_over_white_before_blur(heads: list[np.ndarray]):
    """3.0 +- 0.4 [M]. Tolerance: 0.25 of the mean of 30."""
    maps = template()
    grey, white = maps.grey > 0.95, (maps.white > 0.95) & (maps.grey < 0.02)
    ratios = [float(flow[grey].mean() / flow[white].mean()) for flow in heads]
    assert np.mean(ratios) == pytest.approx(3.0, abs=0.25)
    assert 0.2 < np.std(ratios) < 0.6


def test_grey_over_white_after_blur(phantom: Dataset):
    """Grey p90 over white core 2.2 to 3.1 [M], normal slices. Tolerance: 0.1 of the median."""
    rows = of(phantom, "BG/normal") | of(phantom, "COR/normal")
    assert 2.1 <= np.nanmedian(grey_over_white(phantom.images[rows])) <= 3.2


def test_cerebellum_over_cortex(phantom: Dataset):
    """p99 of the cerebellum's level over the cortex's: 1.04 [M]. Tolerance: 0.10 of true activity.

    Of reconstructed counts 0.25: attenuation, blur and noise of few scans are in it.
    """
    counts = phantom.images * phantom.column("scale")[:, None, None]
    rows = [of(phantom, cell) for cell in ("CER/normal", "COR/normal")]
    seen = [np.percentile(counts[r], 99, axis=(1, 2)).mean() for r in rows]
    true = [np.percentile(activity(phantom, r), 99, axis=(1, 2)).mean() for r in rows]
    assert true[0] / true[1] == pytest.approx(1.04, abs=0.10)
    assert seen[0] / seen[1] == pytest.approx(1.04, abs=0.25)


def test_normal_left_right_ratio(phantom: Dataset):
    """1.00 +- 0.03 [K], of true activity about the head's own axis.

    Tolerance: mean 0.015, SD 0.015 to 0.045. Of reconstructed slices, with noise and few counts:
    mean 0.015, SD up to 0.065.
    """
    rows = of(phantom, "BG/normal") | of(phantom, "COR/normal")
    true = left_right_ratio(activity(phantom, rows).astype(np.float32))
    seen = left_right_ratio(phantom.images[rows])
    assert np.mean(true) == pytest.approx(1.0, abs=0.015)
    assert 0.015 < np.std(true) < 0.045
    assert np.mean(seen) == pytest.approx(1.0, abs=0.015)
    assert np.std(seen) < 0.065


@pytest.mark.parametrize(("per_mm", "real"), [(0.02, 4e-3), (0.05, 9e-5), (0.10, 1e-6)])
def test_radial_power(phantom: Dataset, per_mm: float, real: float):
    """4e-3, 9e-5, 1e-6 of DC [M]. Tolerance: a factor of 2, at 0.10 cycles/mm of 5.

    At 0.10 cycles/mm the filter has left little; public slices have there the steps of
    8 bits, resampling and cut edges too.
    """
    rows = phantom.labelled
    power = np.median(radial_power(phantom.images[rows], phantom.meta.pixel_mm or 0, [per_mm]))
    factor = 5 if per_mm > 0.09 else 2
    assert real / factor < power < real * factor


# -- lesions ---------------------------------------------------------------------------------------


def test_which_territories_suffer():
    """MCA 60 %, carotid 20 %, PCA 8 %, ACA 4 %, border zones 8 % [K]. Tolerance: 3 points."""
    random = np.random.default_rng(0)
    drawn = [draw_cerebral(random, LEFT, anterior=True) for _ in range(2000)]
    share = {t: np.mean([lesion.territory == t for lesion in drawn]) for t in TERRITORIES}
    for names, expected in ((("MCA",), 0.6), (("ICA",), 0.2), (("PCA",), 0.08), (("ACA",), 0.04),
                            (("ACA-MCA", "MCA-PCA"), 0.08)):  # fmt: skip
        assert sum(share[n] for n in names) == pytest.approx(expected, abs=0.03)


def test_depth_of_lesions():
    """Hemodynamic 10-35 %, infarct 30-80 % [K]."""
    random = np.random.default_rng(1)
    depths = np.asarray([draw_cerebral(random, LEFT, anterior=True).depth for _ in range(500)])
    assert depths.min() >= 0.10
    assert depths.max() <= 0.80
    assert 0.5 < (depths < 0.35).mean() < 0.8


@pytest.mark.parametrize(
    ("z", "shares"),
    [(6, (0.05, 0.65, 0.26)), (30, (0.29, 0.61, 0.09)), (60, (0.48, 0.45, 0.07))],
)
def test_territory_areas(z: float, shares: tuple[float, float, float]):
    """ACA, MCA, PCA of the brain's area [M, atlas of 1298 patients]. Tolerance: 12 points.

    The atlas's areas hold white matter too; here the angle decides through the whole depth, and a
    strip beside the midline is the anterior artery's.
    """
    maps = template()
    plane = int(np.argmin(np.abs(maps.z[0, 0] - z)))
    brain = ((maps.grey + maps.white) > 0.5)[:, :, plane] & (maps.x[:, :, 0] < 0)
    whole = {"ACA": 0.0, "MCA": 0.0, "PCA": 0.0}
    for name in whole:
        where = weight(Lesion(LEFT, name, 0.5, edge_deg=2.0))[:, :, plane]
        whole[name] = float(where[brain].sum())
    total = sum(whole.values())
    for name, expected in zip(whole, shares, strict=True):
        assert whole[name] / total == pytest.approx(expected / sum(shares), abs=0.12)


def test_territory_borders():
    """Angles from the anterior midline: MCA 0-150 at z +6, 20-160 at +30 [M].

    Tolerance: 8 behind, 12 in front.
    """
    maps = template()
    for z, first, last in ((6, 0, 150), (30, 20, 160), (40, 26, 154)):
        plane = int(np.argmin(np.abs(maps.z[0, 0] - z)))
        angle = np.rad2deg(np.arctan2(-maps.x, maps.y - CENTRE_Y))[:, :, 0]
        inside = weight(Lesion(LEFT, "MCA", 0.5, edge_deg=2.0))[:, :, plane] > 0.5
        rim = (np.abs(maps.x[:, :, 0]) > 25) & (maps.x[:, :, 0] < 0)
        found = angle[inside & rim]
        assert found.max() == pytest.approx(last, abs=8)
        if first > 0:
            assert found.min() == pytest.approx(first, abs=12)


def test_stress_deepens_defects():
    """+45 % in healthy tissue, +28 % on an affected side, about 0 behind a stenosis [S]."""
    random = np.random.default_rng(2)
    reserve = np.asarray([draw_cerebral(random, LEFT, anterior=True).reserve for _ in range(1000)])
    assert reserve.mean() == pytest.approx(1.28, abs=0.02)
    assert reserve.min() < 1.05
    assert reserve.max() <= 1.45
    stenosis = Lesion(LEFT, "MCA", 0.2, reserve=1.0)
    assert 1 - stenosis.depth_in(True) == pytest.approx(0.8 / 1.45)


def test_a_hemisphere_behind_an_occluded_carotid():
    """-12 % on average [S], hemodynamic loss of the carotid's territory. Tolerance: 5 points."""
    random = np.random.default_rng(3)
    maps, losses = template(), []
    side = (maps.grey + maps.white) * (maps.x < -4) * (maps.z > 0) * (maps.z < 60)
    while len(losses) < 25:
        lesion = draw_cerebral(random, LEFT, anterior=True)
        if lesion.territory == "ICA" and lesion.depth < 0.35:
            left = remaining([lesion], stress=False)
            losses.append(1 - float((left * side).sum() / side.sum()))
    assert np.mean(losses) == pytest.approx(0.12, abs=0.05)


def test_crossed_cerebellar_diaschisis(phantom: Dataset):
    """One cerebellar hemisphere -10 to -25 %, mean 17 % [S]. Tolerance: 1 point of the mean."""
    random = np.random.default_rng(4)
    depths = [draw_diaschisis(random, LEFT).depth for _ in range(500)]
    assert np.mean(depths) == pytest.approx(0.17, abs=0.01)
    assert min(depths) >= 0.10
    assert max(depths) <= 0.25
    assert draw_diaschisis(random, LEFT).side != LEFT
    rows = np.flatnonzero(of(phantom, "CER/unilateral"))
    lost = np.column_stack([phantom.column(f"defect_{s}")[rows] for s in ("left", "right")])
    assert ((lost > 0.09) & (lost < 0.26)).any(1).all()
    assert (lost.min(1) < 0.03).all()  # the other hemisphere is spared
