"""Out and in again: a phantom exported in a clinical format and imported is the same data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clinical import write_labels
from test_export import batch, generated, lines, pairs, scans  # noqa: F401

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import export
from fastgan_aug.data.importers.dicom import import_dicom
from fastgan_aug.data.importers.importing import Import
from fastgan_aug.data.importers.nifti import import_nifti
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import RADIOLOGICAL, UNVERIFIED

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


def test_generated_slices_come_back_from_dicom(generated: Dataset, tmp_path: Path) -> None:  # noqa: F811
    found = there_and_back(generated, tmp_path / "out", "dicom")
    back = found.dataset
    assert back is not None
    assert len(back) == len(generated), [item for item in found.items if item.refused]
    off = np.abs(back.images * back.column("scale")[:, None, None] - generated.images)
    assert off.max() <= 1 / 65535
    assert back.cells == generated.cells
    assert back.meta.pixel_mm is None
    assert back.meta.laterality == generated.meta.laterality
    assert back.column("synthetic").all()
    assert len(set(back.column("scan_id"))) == len(generated)


@pytest.mark.parametrize("kind", ["generated", "scans"])
def test_slices_of_unknown_sides_come_back_upright_from_nifti(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """No header tells their rows: they are written as readers take them then."""
    dataset: Dataset = request.getfixturevalue(kind)
    dataset = Dataset(dataset.table, replace(dataset.meta, laterality=UNVERIFIED))
    back = there_and_back(dataset, tmp_path / "out", "nifti").dataset
    assert back is not None
    assert len(back) == len(dataset)
    rows = lines(tmp_path / "out")
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["file"], int(rows[i]["slice"])))
    before = dataset.take(np.asarray(order))
    counts = (d.images * d.column("scale")[:, None, None] for d in (back, before))
    assert np.allclose(*counts, rtol=1e-5, atol=1e-6)
    assert back.cells == before.cells
    assert back.meta.laterality == UNVERIFIED


@pytest.mark.parametrize("sides", [RADIOLOGICAL, UNVERIFIED])
def test_single_slices_of_scans_come_back_from_dicom(
    scans: Dataset,  # noqa: F811
    sides: str,
    tmp_path: Path,
) -> None:
    for cell in ("disc", "cross"):  # two scans of one slice, and one scan of two far apart
        rows = [i for i, found in enumerate(scans.cells) if str(found) == cell]
        chosen = scans.take(np.asarray(rows))
        chosen = Dataset(chosen.table, replace(chosen.meta, laterality=sides))
        found = there_and_back(chosen, tmp_path / cell, "dicom")
        back = found.dataset
        assert back is not None
        assert len(back) == len(chosen), [item for item in found.items if item.refused]
        counts = (d.images * d.column("scale")[:, None, None] for d in (back, chosen))
        assert np.allclose(*counts, atol=chosen.column("scale").max() / 65535)
        assert back.meta.pixel_mm == pytest.approx(3)
        assert back.meta.laterality == sides
        assert len(back.patients) == len(chosen.patients)
        assert back.column("synthetic").all()


def test_slices_without_a_scale_are_not_taken_with_others(
    generated: Dataset,  # noqa: F811
    scans: Dataset,  # noqa: F811
    tmp_path: Path,
) -> None:
    root = tmp_path / "both"
    for name, dataset in (("generated", generated), ("scans", scans)):
        export(dataset, root / name, "dicom")
    rows = [
        f"{name}/{row['file']},{row['slice']},{row['shape']}"
        for name in ("generated", "scans")
        for row in lines(root / name)
    ]
    write_labels(root, *rows, columns="file,slice,shape")
    for name in ("generated", "scans"):
        (root / name / "labels.csv").unlink()
    found = import_dicom(root, root / "labels.csv", factors=["shape"], size=24, key=KEY)
    assert found.dataset is not None
    assert found.dataset.meta.pixel_mm == pytest.approx(3)
    assert len(found.dataset) == len(scans)
    said = [item.refused for item in found.refused]
    assert said == ["its header gives no pixel spacing, as those of others do"] * len(generated)
