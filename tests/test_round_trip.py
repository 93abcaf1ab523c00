"""Out and in again: a phantom exported in a clinical format and imported is the same data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_export import lines, pairs, scans  # noqa: F401

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import export
from fastgan_aug.data.importers.dicom import import_dicom
from fastgan_aug.data.importers.importing import Import
from fastgan_aug.data.importers.nifti import import_nifti
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import RADIOLOGICAL

KEY = PseudonymKey(bytes(32))


def there_and_back(dataset: Dataset, folder: Path, file_format: str) -> Import:
    export(dataset, folder, file_format)
    space = dataset.meta.space
    settings = {
        "factors": list(space.names),
        "values": space.to_dict(),
        "size": dataset.meta.size,
        "key": KEY,
    }
    if file_format == "dicom":
        return import_dicom(folder, folder / "labels.csv", **settings)  # type: ignore[arg-type]
    return import_nifti(
        folder,
        folder / "labels.csv",
        scan_column="scan_id",
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("file_format", ["dicom", "nifti"])
@pytest.mark.parametrize("kind", ["scans", "small_phantom"])
def test_the_same_slices_come_back(
    kind: str, file_format: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    found = there_and_back(dataset, tmp_path / "out", file_format)
    back = found.dataset
    assert back is not None
    assert len(back) == len(dataset), [item for item in found.items if item.refused]
    rows = lines(tmp_path / "out")
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["file"], int(rows[i]["slice"])))
    before = dataset.take(np.asarray(order))

    # 16 bits are shared by a whole scan: half a step of its brightest slice.
    peak = {s: before.column("scale")[before.column("scan_id") == s].max()
            for s in set(before.column("scan_id"))}  # fmt: skip
    step = np.asarray([peak[s] for s in before.column("scan_id")]) / before.column("scale") / 65535
    off = np.abs(back.images - before.images).max((1, 2))
    assert (off <= (1.1 * step if file_format == "dicom" else 1e-6)).all()
    assert np.allclose(back.column("scale"), before.column("scale"), rtol=1e-4)
    assert back.cells == before.cells
    assert back.meta.pixel_mm == pytest.approx(before.meta.pixel_mm)
    assert back.meta.laterality == RADIOLOGICAL
    assert pairs(back) == pairs(before)
    for name in ("patient_id", "scan_id"):
        together = {(a, b) for a, b in zip(back.column(name), before.column(name), strict=True)}
        assert len(together) == len(set(before.column(name))) == len(set(back.column(name)))
    assert back.column("synthetic").all(), "the mark comes back"
