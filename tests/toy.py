"""A one-factor, four-class, 32-pixel toy set: nothing here looks like SPECT."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.pseudonyms import PseudonymKey

SIZE = 32
COUNTS = {"disc": 60, "ring": 40, "bar": 24, "cross": 12}
SLICES_PER_DONOR = 4


def shape_image(
    shape: str, centre: NDArray[np.float64], size: float, random: np.random.Generator
) -> NDArray[np.uint16]:
    """One (32, 32) picture with soft edges and noise, 16 bit."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2 - centre[:, None, None]
    radius = np.hypot(x, y)
    distance = {
        "disc": size - radius,
        "ring": 2.2 - np.abs(radius - size),
        "bar": np.minimum(2.5 - np.abs(x), size + 2 - np.abs(y)),
        "cross": np.maximum(
            np.minimum(2 - np.abs(x), size - np.abs(y)), np.minimum(2 - np.abs(y), size - np.abs(x))
        ),
    }[shape]
    picture = random.uniform(0.7, 1.0) / (1 + np.exp(-2 * distance))
    picture = np.clip(picture + random.normal(0, 0.03, picture.shape), 0, 1.2)
    return (picture * 50_000).astype(np.uint16)


def make_toy_folder(root: Path, seed: int = 0) -> Path:
    """Writes 16-bit PNGs in ``root/images`` and ``root/labels.csv``; returns ``root``.

    Columns: file, donor, slice, shape. A donor has up to four slices of one shape, alike in place
    and size. Beyond ``COUNTS`` a few slices have no shape and become neighbours.
    """
    random = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, int, str]] = []
    for shape, count in COUNTS.items():
        for i in range(count + count // 20):
            donor = f"{shape[0]}{i // SLICES_PER_DONOR:03d}"
            if i % SLICES_PER_DONOR == 0:
                centre, size = random.uniform(-2.5, 2.5, 2), random.uniform(6, 9)
            own = centre + random.normal(0, 0.3, 2), size + random.normal(0, 0.2)
            name = f"{len(rows):04d}.png"
            Image.fromarray(shape_image(shape, *own, random)).save(root / "images" / name)
            rows.append((name, donor, i % SLICES_PER_DONOR, shape if i < count else ""))
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "donor", "slice", "shape"))
        writer.writerows(rows)
    return root


def toy_dataset(tmp: Path, seed: int = 0) -> Dataset:
    """The toy folder, imported."""
    root = make_toy_folder(tmp / f"toy-{seed}", seed)
    imported = import_folder(
        root,
        root / "labels.csv",
        factors=["shape"],
        size=SIZE,
        patient_column="donor",
        z_column="slice",
        source="toy shapes",
        key=PseudonymKey(bytes(32)),
    )
    assert imported.dataset is not None
    return imported.dataset
