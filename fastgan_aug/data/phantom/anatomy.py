"""Anatomy of the phantom: grey and white matter of the ICBM152 atlas, and how heads differ.

The maps are those that nilearn ships (ICBM 2009a nonlinear symmetric, Fonov et al. 2011), 1 mm,
RAS+: x grows towards the patient's right, y to the front, z to the vertex. They are brought to a
3 mm grid once, slightly blurred so that the coarser grid does not alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

Volume = NDArray[np.float32]

SPACING = 3.0  # mm, of the template grid
TEMPLATE_FWHM = 3.5  # mm, of the blur already in the template
CENTRE_Y = -18.0  # mm, MNI: the brain's middle from front to back, put at the picture's middle
LOW, HIGH = np.asarray((-97.0, -133.0, -71.0)), np.asarray((98.0, 98.0, 103.0))

# Flow against whole-brain grey matter in healthy people; each person's differ by REGION_SD.
REGIONS: Mapping[str, float] = {
    "other": 1.0,
    "frontal": 1.0,
    "temporal": 0.95,
    "occipital": 1.1,
    "cerebellum": 1.05,
    "putamen": 1.1,
    "caudate": 1.05,
    "thalamus": 1.05,
    "hippocampus": 0.9,
}
REGION_SD = 0.05
SIDE_SD = 0.015  # of log(left / right), whole hemisphere and each region: about 0.03 a slice

_CRISP = 6  # exponent that undoes the atlas's averaging: 4 and 8 change little

# A template of folds that no two people share: relative SD of grey matter's activity, and the
# width over which it is alike. It stands for sulci and gyri, which averaging wiped out, and for
# regional flow; chosen so that radial power at 0.03 and 0.05 cycles/mm is that of real slices.
FOLD_SD = 0.10
_FOLD_MM = 6.0

# Ellipsoids of the deep grey, MNI mm, right side: centre, half axes, least grey share inside.
_DEEP = {
    "putamen": ((26, 2, 2), (7, 16, 11), 0.9),
    "caudate": ((13, 13, 9), (6, 10, 11), 0.85),
    "thalamus": ((11, -18, 8), (9, 13, 9), 0.85),
    "hippocampus": ((28, -22, -14), (7, 16, 8), 0.0),
}


@dataclass(frozen=True)
class Template:
    """Maps on one (x, y, z) grid of ``SPACING`` mm, float32.

    Attributes:
        grey: Share of grey matter, 0 to 1.
        white: Share of white matter, 0 to 1.
        scalp: Share of scalp, 0 to 1.
        regions: Weight of each region of ``REGIONS``; they sum to 1 everywhere.
        right: Weight of the patient's right side, 0 to 1, with a soft midline.
        x: MNI x of each voxel in mm, broadcastable; y and z likewise.
        y: See x.
        z: See x.
    """

    grey: Volume
    white: Volume
    scalp: Volume
    regions: Mapping[str, Volume]
    right: Volume
    x: Volume
    y: Volume
    z: Volume


def _atlas_file(tissue: str) -> Path:
    # nilearn's own import takes seconds; only its files are wanted.
    from importlib.util import find_spec

    spec = find_spec("nilearn")
    places = spec.submodule_search_locations if spec else None
    path = Path(places[0] if places else "nilearn") / "datasets" / "data"
    path /= f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise DataError(
            f"the anatomy map {path.name} was not found",
            allowed="the maps that nilearn >= 0.12 ships",
            do="install the phantom's anatomy: pip install 'fastgan-aug[method]'",
        )
    return path


def sample_world(
    volume: NDArray[np.floating],
    affine: NDArray[np.float64],
    points: NDArray[np.floating],
    outside: float = 0.0,
) -> Volume:
    """Trilinear values of a volume at world points.

    Args:
        volume: (I, J, K).
        affine: (4, 4) from voxel indices to RAS+ mm, whatever the order and sign of the axes.
        points: (3, ...) x, y, z in mm.
        outside: Value where the volume does not reach.

    Returns:
        (...) float32.
    """
    from scipy.ndimage import map_coordinates

    inverse = np.linalg.inv(affine)
    index = np.tensordot(inverse[:3, :3], points, 1)
    index += inverse[:3, 3].reshape((3,) + (1,) * (points.ndim - 1))
    return np.asarray(map_coordinates(volume, index, np.float32, order=1, cval=outside))


def sample_template(volume: Volume, points: NDArray[np.floating], outside: float = 0.0) -> Volume:
    """``sample_world`` for a volume on the template's grid."""
    affine = np.diag((SPACING, SPACING, SPACING, 1.0))
    affine[:3, 3] = LOW
    return sample_world(volume, affine, points, outside)


def _axes() -> Sequence[Volume]:
    lines = [
        np.arange(a, b + 0.1, SPACING, dtype=np.float32) for a, b in zip(LOW, HIGH, strict=True)
    ]
    return np.meshgrid(*lines, indexing="ij", sparse=True)


def _load(tissue: str) -> Volume:
    import nibabel
    from scipy.ndimage import gaussian_filter

    image = nibabel.load(_atlas_file(tissue))
    share = np.asarray(image.dataobj, np.float32) / 255.0
    # The maps are averages of 152 people, blurred at every border: one person's are crisper.
    sharp = share**_CRISP / (share**_CRISP + (1 - share) ** _CRISP)
    voxel = np.sqrt((image.affine[:3, :3] ** 2).sum(0))
    smooth = gaussian_filter(sharp, TEMPLATE_FWHM / 2.355 / voxel, truncate=3)
    return sample_world(smooth, image.affine, np.stack(np.broadcast_arrays(*_axes())))


@cache
def template() -> Template:
    """The template, computed once per process (about a second).

    Raises:
        DataError: nilearn's maps are not installed.
    """
    from scipy.ndimage import distance_transform_edt

    grey, white = _load("gm"), _load("wm")
    x, y, z = _axes()
    regions = _regions(x, y, z, grey.shape)
    for name, (_, _, least) in _DEEP.items():
        # The atlas calls much of the thalamus and pallidum white; their flow is grey matter's.
        grey = np.maximum(grey, least * regions[name])
    white = np.minimum(white, np.clip(1 - grey, 0, 1))
    outside = distance_transform_edt(grey + white < 0.3) * SPACING
    scalp = np.exp(-0.5 * ((outside - 12.0) / 3.0) ** 2).astype(np.float32) * (outside > 0)
    right = soft_step(x, 2.0) + np.zeros_like(grey)
    return Template(grey, white, scalp, regions, right, x, y, z)


def soft_step(distance: NDArray[np.floating], width: float) -> Volume:
    """From 0 to 1 over about 4 widths, 0.5 where ``distance`` is 0."""
    return np.asarray(1 / (1 + np.exp(-np.clip(distance / width, -40, 40))), np.float32)


def _regions(x: Volume, y: Volume, z: Volume, shape: tuple[int, ...]) -> dict[str, Volume]:
    """Soft regions by MNI coordinates; coarse lobes are enough at 9 mm and more."""
    side = np.abs(x)
    tentorium = -10 - 0.3 * np.maximum(side - 5, 0) - 0.25 * np.maximum(-y - 65, 0)
    cerebellum = soft_step(tentorium - z, 1.5) * soft_step(-33 - y, 2.0)
    occipital = soft_step(-68 - y, 4.0) * soft_step(30 - z, 4.0)
    temporal = soft_step(side - 32, 3.0) * soft_step(-2 - z + 0.2 * (-y - 10), 3.0)
    frontal = soft_step(y - 5 + 0.45 * (z - 10), 4.0)
    left: NDArray[np.float32] = np.ones(shape, np.float32)
    found: dict[str, Volume] = {}
    for name, (centre, half, _) in _DEEP.items():
        radius = np.sqrt(
            sum(((v - c) / h) ** 2 for v, c, h in zip((side, y, z), centre, half, strict=True))
        )
        found[name] = soft_step(1 - radius, 0.12) * left
        left = left - found[name]
    for name, weight in (
        ("cerebellum", cerebellum),
        ("occipital", occipital),
        ("temporal", temporal),
        ("frontal", frontal),
    ):
        found[name] = weight * left
        left = left - found[name]
    found["other"] = left
    return found


@dataclass(frozen=True)
class Head:
    """What makes one person's head: shape and healthy flow.

    Attributes:
        scale: Head size against the atlas.
        ventricles: How much the middle is widened (atrophy), 0 to 0.6.
        warp: (3, 7, 7, 7) control displacements, mm.
        age: Years.
        flow: (x, y, z) healthy activity on the template's grid, grey matter about 1.
    """

    scale: float
    ventricles: float
    warp: NDArray[np.float64]
    age: float
    flow: Volume


def draw_head(random: np.random.Generator) -> Head:
    """Draws a person."""
    maps = template()
    grey_to_white = random.normal(3.0, 0.4)
    age = float(np.clip(random.normal(61.0, 16.4), 20, 90))  # the paper's patients
    atrophy = np.clip(0.4 + 0.01 * (age - 61) + random.normal(0, 0.15), 0, 1)
    factors = {r: f * random.normal(1, REGION_SD) for r, f in REGIONS.items()}
    whole = random.normal(0, SIDE_SD)
    flow = np.zeros_like(maps.grey)
    for name, weight in maps.regions.items():
        log_ratio = whole + random.normal(0, SIDE_SD)  # log(left / right)
        right, left = factors[name] * np.exp(np.asarray((-0.5, 0.5)) * log_ratio)
        flow += weight * np.float32(left) + (weight * maps.right) * np.float32(right - left)
    flow *= _folds(random, maps.grey.shape)
    # Atrophy thins the cortex: partial shares of grey shrink, full ones stay.
    flow *= maps.grey ** np.float32(1 + 0.5 * atrophy)
    flow += maps.white * np.float32(1 / np.clip(grey_to_white, 2.0, 4.0))
    flow += maps.scalp * np.float32(random.uniform(0.05, 0.15))
    scale = float(random.uniform(0.92, 1.08))
    # Weights of the kernel's neighbours average the draws down to 0.15 of their SD: 2.5 mm remain.
    warp = random.normal(0, 2.5 / 0.15, (3, 7, 7, 7))
    return Head(scale, 0.6 * float(atrophy), warp, age, flow)


def _folds(random: np.random.Generator, shape: tuple[int, ...]) -> Volume:
    """A smooth positive field about 1, on the template's grid."""
    from scipy.ndimage import gaussian_filter, zoom

    # Drawn on every other voxel: it is smooth, and a quarter of the work.
    coarse = [n // 2 + 1 for n in shape]
    sd = _FOLD_MM / (2 * SPACING)
    white = random.standard_normal(coarse, np.float32)
    field = gaussian_filter(white, sd, mode="wrap")
    fine = zoom(field / field.std(), 2, order=1, grid_mode=False)[tuple(map(slice, shape))]
    return np.asarray(np.exp(np.float32(FOLD_SD) * fine), np.float32)


@dataclass(frozen=True)
class Pose:
    """How a head lay in one scan: rotations in radians about x, y and z, and shifts in mm."""

    angles: tuple[float, float, float]
    shift: tuple[float, float]


def draw_pose(random: np.random.Generator, tilt_deg: float) -> Pose:
    """Draws rotations within +-``tilt_deg`` and shifts of about 2 mm."""
    angles = np.deg2rad(random.uniform(-tilt_deg, tilt_deg, 3))
    shift = random.normal(0, 2, 2)
    return Pose((angles[0], angles[1], angles[2]), (shift[0], shift[1]))


def picture_points(
    head: Head, pose: Pose, z: NDArray[np.float64], size: int, pixel_mm: float
) -> NDArray[np.float32]:
    """Template points of every pixel: row 0 is anterior, column 0 the patient's right.

    Args:
        head: Whose head.
        pose: How it lay.
        z: (P,) positions of the planes along the body axis, mm, 0 at the anterior commissure.
        size: Rows and columns.
        pixel_mm: Pixel edge.

    Returns:
        (3, P, size, size) float32, MNI x, y, z in mm.
    """
    # x falls with the column and y with the row: the radiological convention.
    line = ((size - 1) / 2 - np.arange(size)) * pixel_mm
    grid = np.meshgrid(z, line + pose.shift[1], line + pose.shift[0], indexing="ij")
    points = np.stack((grid[2], grid[1], grid[0]))
    points = np.tensordot(_rotation(pose.angles), points, 1) / head.scale
    basis = [_kernel(values / head.scale) for values in (line, line, z)]
    points += np.einsum("dabc,xa,yb,zc->dzyx", head.warp, *basis, optimize=True)
    # Points near the ventricles look nearer to the middle, so that the ventricles grow.
    centre = np.asarray((0.0, -8.0, 12.0)).reshape(3, 1, 1, 1)
    centre[1] -= CENTRE_Y
    distance = ((points - centre) ** 2).sum(0) / 28.0**2
    points -= (points - centre) * (head.ventricles * np.exp(-0.5 * distance))
    points[1] += CENTRE_Y
    return points.astype(np.float32)


def _rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.asarray(((1, 0, 0), (0, cx, -sx), (0, sx, cx)))
    about_y = np.asarray(((cy, 0, sy), (0, 1, 0), (-sy, 0, cy)))
    about_z = np.asarray(((cz, -sz, 0), (sz, cz, 0), (0, 0, 1)))
    return np.asarray(about_z @ about_y @ about_x)


def _kernel(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N, 7) smooth weights of control points 35 mm apart; each row sums to 1."""
    weights = np.exp(-0.5 * ((values[:, None] - 35.0 * np.arange(-3, 4)) / 35.0) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))
