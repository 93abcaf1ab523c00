"""Lesions of the phantom: arterial territories, depth, stress, and crossed diaschisis.

Territories are told by the angle from the anterior midline in the outer cortex (from an arterial
atlas of 1298 patients), with soft edges. Depths: hemodynamic loss 10-35 %, infarcts 30-80 %; one
cerebellar hemisphere loses 10-25 % opposite to a cerebral lesion (crossed diaschisis).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.phantom.anatomy import CENTRE_Y, Volume, soft_step, template

LEFT, RIGHT = "left", "right"

# Borders between the territories, degrees from the anterior midline, by MNI z in mm.
_Z = (6.0, 20.0, 30.0, 40.0, 60.0)
_ACA_MCA = (0.0, 5.0, 20.0, 26.0, 30.0)
_MCA_PCA = (150.0, 160.0, 160.0, 154.0, 152.0)
# Beside the midline the anterior artery reaches back along the whole cortex: how far from the
# midline, mm. Chosen so that the areas come near the atlas's: ACA 5, 29 and 48 % at z +6, +30, +60.
_STRIP = (2.0, 9.0, 16.0, 19.0, 24.0)

# How often each territory suffers in chronic ischemia. ICA is ACA and MCA together; the last two
# are the border zones between two arteries.
TERRITORIES = ("MCA", "ICA", "PCA", "ACA", "ACA-MCA", "MCA-PCA")
FREQUENCY = (0.60, 0.20, 0.08, 0.04, 0.04, 0.04)

# Flow under acetazolamide over flow at rest: healthy 1.45, affected 1.28, tight stenosis 1.0.
HEALTHY_RESERVE = 1.45


@dataclass(frozen=True)
class Lesion:
    """One lesion of one side.

    Attributes:
        side: The patient's ``left`` or ``right``.
        territory: One of ``TERRITORIES``, or ``cerebellum``.
        depth: Share of flow lost at rest at the core.
        reserve: Flow under stress over flow at rest inside the lesion.
        start: Where the lesion begins and ends inside its territory, shares of its angle.
        end: See start.
        deep: How far the deep grey takes part, 0 to 1.
        edge_deg: Softness of the edges, degrees.
    """

    side: str
    territory: str
    depth: float
    reserve: float = HEALTHY_RESERVE
    start: float = 0.0
    end: float = 1.0
    deep: float = 0.0
    edge_deg: float = 6.0

    def depth_in(self, stress: bool) -> float:
        """Share of flow lost against healthy tissue in the same scan."""
        ratio = self.reserve / HEALTHY_RESERVE if stress else 1.0
        return 1 - (1 - self.depth) * ratio


def draw_cerebral(random: np.random.Generator, side: str, *, anterior: bool) -> Lesion:
    """Draws a cerebral lesion of one side.

    Args:
        random: Its stream decides everything.
        side: ``left`` or ``right``.
        anterior: Whether the anterior artery alone may be meant; it reaches the upper level only.
    """
    frequency = np.asarray(FREQUENCY) * [anterior or name != "ACA" for name in TERRITORIES]
    territory = str(random.choice(TERRITORIES, p=frequency / frequency.sum()))
    infarct = random.random() < 0.4
    depth = random.uniform(0.3, 0.8) if infarct else random.uniform(0.10, 0.35)
    # An infarct takes a part of the territory; hemodynamic loss most of it.
    width = random.uniform(0.35, 0.7) if infarct else random.uniform(0.6, 1.0)
    if territory not in ("MCA", "ICA"):
        width = 1.0
    start = random.uniform(0, 1 - width)
    deep = random.uniform(0.3, 1.0) if territory in ("MCA", "ICA") and random.random() < 0.5 else 0
    # None behind a tight stenosis, whole where others help out; on an affected side +28 %.
    reserve = 1.0 + 0.45 * random.beta(1.85, 1.13)
    edge = random.uniform(4, 9)
    return Lesion(side, territory, depth, reserve, start, start + width, float(deep), edge)


def draw_diaschisis(random: np.random.Generator, cerebral_side: str) -> Lesion:
    """Draws the cerebellar loss opposite to a cerebral lesion; its reserve is kept."""
    side = LEFT if cerebral_side == RIGHT else RIGHT
    return Lesion(side, "cerebellum", float(np.clip(random.normal(0.17, 0.04), 0.10, 0.25)))


def _angle() -> Volume:
    """Degrees from the anterior midline about the brain's middle, 0 to 180."""
    maps = template()
    angle = np.rad2deg(np.arctan2(np.abs(maps.x), maps.y - CENTRE_Y))
    return np.asarray(angle, np.float32)


def _bounds(lesion: Lesion, z: Volume) -> tuple[Volume, Volume]:
    """First and last degree of the lesion by z; past the midline at open ends."""
    front: NDArray[np.float64] = np.asarray(np.interp(z, _Z, _ACA_MCA))
    back: NDArray[np.float64] = np.asarray(np.interp(z, _Z, _MCA_PCA))
    forward = np.maximum(front, 24.0)
    first, last = {
        "MCA": (front, back),
        "ICA": (np.full_like(front, -20.0), back),
        "PCA": (back, np.full_like(back, 200.0)),
        "ACA": (np.full_like(front, -20.0), front + 4),
        "ACA-MCA": (forward - 14, forward + 14),
        "MCA-PCA": (back - 14, back + 14),
    }[lesion.territory]
    span = last - first
    start, end = first + lesion.start * span, first + lesion.end * span
    return start.astype(np.float32), end.astype(np.float32)


def weight(lesion: Lesion) -> Volume:
    """Where a lesion is, 0 to 1, on the template's grid."""
    maps = template()
    side = soft_step(maps.x if lesion.side == RIGHT else -maps.x, 2.0)
    if lesion.territory == "cerebellum":
        return np.asarray(maps.regions["cerebellum"] * side)
    first, last = _bounds(lesion, maps.z)
    angle = _angle()
    sector = soft_step(angle - first, lesion.edge_deg / 2) * soft_step(
        last - angle, lesion.edge_deg / 2
    )
    deep = sum(maps.regions[r] for r in ("putamen", "caudate"))
    thalamus = maps.regions["thalamus"]
    strip = soft_step(np.interp(maps.z, _Z, _STRIP) - np.abs(maps.x), 2.0)
    before = soft_step(np.interp(maps.z, _Z, _MCA_PCA) - angle, lesion.edge_deg / 2)
    if lesion.territory == "MCA":
        sector = sector * (1 - strip)
    elif lesion.territory == "ACA":
        sector = np.maximum(sector, strip * before)
    cortex = sector * (1 - deep - thalamus)
    # Above the Sylvian stem only: the cerebellar level shows diaschisis alone, even in a tilted
    # head.
    above = soft_step(maps.z + 7, 1.5)
    return np.asarray((cortex + lesion.deep * deep) * side * above, np.float32)


def remaining(lesions: Sequence[Lesion], *, stress: bool) -> Volume:
    """Share of healthy flow that remains, (x, y, z) float32; 1 where there is no lesion."""
    left = np.ones_like(template().grey)
    for lesion in lesions:
        left *= 1 - np.float32(lesion.depth_in(stress)) * weight(lesion)
    return left
