"""Imports of DICOM files with one label, and the true volume to hold them against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from clinical import GAP_MM, PIXEL_MM, SIZE, SLICES, truth, write_labels

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.dicom import import_dicom
from fastgan_aug.data.importers.importing import Import
from fastgan_aug.data.pseudonyms import PseudonymKey

KEY = PseudonymKey(bytes(32))


def bring(root: Path, **options: Any) -> Import:
    chosen = {"factors": ["kind"], "key": KEY, "size": SIZE} | options
    return import_dicom(root, Path("labels.csv"), **chosen)


def restored(dataset: Dataset) -> np.ndarray:
    """(N, S, S) counts, in ascending order of z."""
    counts = dataset.images.astype(float) * dataset.column("scale")[:, None, None]
    return counts[np.argsort(dataset.column("z"))]


def whole(root: Path, name: str = "a.dcm") -> Import:
    write_labels(root, *(f"{name},{i},x" for i in range(SLICES)))
    return bring(root)


def assert_true(imported: Import) -> None:
    assert imported.dataset is not None, imported.items
    assert_true_volume(imported.dataset)
    assert imported.dataset.meta.laterality == "radiological"
    assert imported.dataset.meta.pixel_mm == PIXEL_MM


def volumes_of(imported: Import) -> list[Dataset]:
    """The data set of each scan."""
    assert imported.dataset is not None, imported.items
    scans = imported.dataset.column("scan_id").astype(str)
    return [imported.dataset.take(scans == scan) for scan in dict.fromkeys(scans)]


def assert_true_volume(dataset: Dataset) -> None:
    np.testing.assert_allclose(restored(dataset), truth(), rtol=1e-6)
    assert sorted(dataset.column("z")) == [GAP_MM * k for k in range(SLICES)]
