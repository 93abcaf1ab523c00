"""Laws of export: never without the mark, nothing lost on the way, the same files again."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fastgan_aug.balance import BalancePlan
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import FORMATS, NOTICE, ONE_FILE, export
from fastgan_aug.data.exporters.stacks import slice_numbers, stacks
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.schema import FICTION, RADIOLOGICAL, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import DataError, StorageError
from serving.batch import BalancedBatch
from serving.protocol import Header, Provenance

KEY = PseudonymKey(bytes(32))
SPACE = ConditionSpace.of({"shape": ["disc", "ring", "bar", "cross"]})
ORIGIN = Provenance(
    "toy", "7", "champion", "run", "c" * 64, "d" * 64, "e" * 64, "0.1.0", "torch", 5, "request"
)


@pytest.fixture(scope="module")
def batch() -> BalancedBatch:
    """Five generated images of a one-factor set of 32 pixels."""
    random = np.random.default_rng(0)
    cells = ["disc", "disc", "ring", "cross", "cross"]
    plan = BalancePlan({}, {cell: cells.count(cell) for cell in dict.fromkeys(cells)})
    header = Header(32, SPACE.to_dict(), plan, ORIGIN)
    return BalancedBatch(
        header,
        random.uniform(0, 0.9, (5, 32, 32)).astype(np.float32),
        cells,
        np.asarray([2**63 + 1, 2, 3, 4, 5], np.uint64),
        np.arange(5, dtype=np.uint32),
        np.asarray([False] * 3 + [True] * 2),
    )


@pytest.fixture(scope="module")
def generated(batch: BalancedBatch) -> Dataset:
    return batch.to_dataset()


@pytest.fixture(scope="module")
def scans() -> Dataset:
    """A phantom of lopsided blobs: two patients, three scans with gaps, 24 pixels of 3 mm."""
    z = [10.0, 14.0, 18.0, 30.0, 34.0, -5.0, -1.0, 3.0, 40.0, 42.0, 50.0]
    scan = ["a-rest"] * 5 + ["a-stress"] * 3 + ["b-rest"] * 3
    shape = ["disc", None, "ring", "bar", None, "disc", None, None, "cross", None, "cross"]
    random = np.random.default_rng(1)
    y, x = np.mgrid[:24, :24] / 24
    blobs = [
        np.exp(-(((x - 0.3) / 0.12) ** 2) - ((y - 0.25 - 0.02 * i) / 0.2) ** 2) for i in range(11)
    ]
    images = np.asarray(blobs, np.float32) + random.uniform(0, 0.05, (11, 24, 24))
    images = (images / images.max((1, 2), keepdims=True)).astype(np.float32)
    return Dataset.build(
        DatasetMeta(SPACE, 24, "blobs", pixel_mm=3.0, pseudonym_key=FICTION),
        images=images,
        labels={"shape": shape},
        patient_id=[s[0] for s in scan],
        scan_id=scan,
        z=z,
        scale=random.uniform(50, 900, 11).tolist(),
    )


def of_a_key(dataset: Dataset, synthetic: bool) -> Dataset:
    """The same slices as if of real patients."""
    marks = pa.array([synthetic] * len(dataset))
    position = dataset.table.column_names.index("synthetic")
    table = dataset.table.set_column(position, "synthetic", marks)
    return Dataset(table, replace(dataset.meta, pseudonym_key=KEY.id))


def lines(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# -- what may leave --------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
def test_slices_of_real_patients_never_leave(
    scans: Dataset, tmp_path: Path, file_format: str
) -> None:
    with pytest.raises(DataError, match="neither generated nor a phantom") as error:
        export(of_a_key(scans, False), tmp_path / "out", file_format)
    assert "synthetic" in error.value.allowed
    assert not list(tmp_path.iterdir())


def test_ids_of_real_patients_never_leave_with_synthetic_rows(
    scans: Dataset, tmp_path: Path
) -> None:
    for file_format in ("parquet", "png"):
        export(of_a_key(scans, True), tmp_path / file_format, file_format)
    out = Dataset.read(tmp_path / "parquet")
    assert all(p.startswith("synthetic-") for p in out.patients)
    assert len(out.patients) == 2
    assert out.meta.pseudonym_key == FICTION
    assert {row["patient_id"] for row in lines(tmp_path / "png")} == set(out.patients)


def _check_kept(scans: Dataset, older: Path, beside: str, file_format: str) -> None:
    """Whatever stands beside an older export, the next one takes neither it nor the export."""
    path = older / beside
    if path.parent.exists() and not path.parent.is_dir():
        return
    missing = not path.parent.exists()
    path.parent.mkdir(exist_ok=True)
    path.write_text("kept")
    with pytest.raises(DataError, match="something else"):
        export(scans, older, file_format)
    assert path.read_text() == "kept"
    path.unlink()
    if missing:
        path.parent.rmdir()


def test_bad_orders_are_refused_and_cost_nothing(scans: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="format"):
        export(scans, tmp_path / "out", "jpeg")
    with pytest.raises(DataError, match="no slice"):
        export(scans.take(np.asarray([], np.int64)), tmp_path / "out", "png")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    for file_format in FORMATS:
        with pytest.raises(DataError):
            export(scans, tmp_path / "mine", file_format)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "kept"
    for file_format in ("png", "nifti", "dicom"):
        (mine := tmp_path / "mine").mkdir(exist_ok=True)
        export(scans, tmp_path / "older", file_format)
        for beside in ("thesis.txt", "images/mine.png", "000000.dcm/mine"):
            _check_kept(scans, tmp_path / "older", beside, file_format)
        told = (tmp_path / "older" / "provenance.json").read_text()
        for other in ("{}", "[]", "no JSON", told.replace(NOTICE, "another")):
            (mine / "thesis.txt").unlink(missing_ok=True)
            (mine / "provenance.json").write_text(other)
            with pytest.raises(DataError, match="something else"):
                export(scans, mine, file_format)
            assert (mine / "provenance.json").read_text() == other
        shutil.rmtree(mine)
        shutil.rmtree(tmp_path / "older")
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match="is a file"):
        export(scans, tmp_path / "file", "png")
    with pytest.raises(StorageError):
        export(scans, tmp_path / "file" / "below", "png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine"]


# -- every file says so ----------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", ["slice", "dataset"])
def test_no_column_of_the_labels_stands_there_twice(
    batch: BalancedBatch, tmp_path: Path, file_format: str, name: str
) -> None:
    """A reader would take a number or a digest for the label."""
    named = replace(batch, header=replace(batch.header, factors={name: SPACE.factors[0].values}))
    if file_format in ONE_FILE:
        export(named.to_dataset(), tmp_path / "out", file_format)
        return
    with pytest.raises(DataError, match=f"named .*{name}"):
        export(named.to_dataset(), tmp_path / "out", file_format)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("kind", ["scans", "generated"])
def test_the_same_export_gives_the_same_bytes(
    file_format: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    dataset: Dataset = request.getfixturevalue(kind)
    digests = []
    for name in ("one", "two"):
        export(dataset, tmp_path / name, file_format)
        export(dataset, tmp_path / name, file_format)  # an older export is replaced
        root = tmp_path / name
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
        digests.append([(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in files])
    assert [d for _, d in digests[0]] == [d for _, d in digests[1]]
    if file_format not in ONE_FILE:
        told = json.loads((tmp_path / "one" / "provenance.json").read_text())
        assert told["synthetic"] is True
        assert told["dataset"] == dataset.digest
        assert all(row["notice"] == NOTICE for row in lines(tmp_path / "one"))
        assert all(row["synthetic"] == "True" for row in lines(tmp_path / "one"))
        assert len(lines(tmp_path / "one")) == len(dataset)


def test_parquet_keeps_everything_but_the_mark(scans: Dataset, tmp_path: Path) -> None:
    export(scans, tmp_path / "out.parquet", "parquet")
    out = Dataset.read(tmp_path / "out.parquet")
    assert out.column("synthetic").all()
    assert np.array_equal(out.images, scans.images)
    assert out.table.drop_columns(["synthetic"]).equals(scans.table.drop_columns(["synthetic"]))
    assert out.meta.extra["export"]["dataset"] == scans.digest


def test_npz_loads_without_objects(generated: Dataset, tmp_path: Path) -> None:
    export(generated, tmp_path / "out.npz", "npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["images"], generated.images)
        assert arrays["cells"].tolist() == ["disc", "disc", "ring", "cross", "cross"]
        assert arrays["labels"].tolist() == [[cell] for cell in arrays["cells"]]
        assert arrays["factors"].tolist() == ["shape"]
        assert arrays["seeds"][0] == 2**63 + 1
        assert arrays["synthetic"].all()
        told = json.loads(str(arrays["provenance"]))
    assert told["notice"] == NOTICE
    assert told["generated_by"]["checkpoint"] == "c" * 64


def test_png_text_says_synthetic_and_where_from(generated: Dataset, tmp_path: Path) -> None:
    from PIL import Image

    export(generated, tmp_path / "out", "png")
    row = lines(tmp_path / "out")[3]
    with Image.open(tmp_path / "out" / "images" / row["file"]) as picture:
        assert picture.text["Synthetic"] == "YES"  # type: ignore[attr-defined]
        told = json.loads(picture.text["Provenance"])  # type: ignore[attr-defined]
        values = np.asarray(picture, np.float64) / 65535
    assert picture.mode == "I;16"
    assert np.abs(values - generated.images[3]).max() <= 0.5 / 65535 + 1e-9
    assert told["generated_by"]["version"] == "7"
    assert (told["cell"], told["seed"]) == ("cross", 4)
    assert (row["seed"], row["shape"], row["unseen"]) == ("4", "cross", "True")


def test_nifti_header_says_synthetic_and_where_the_patient_s_right_is(
    scans: Dataset, tmp_path: Path
) -> None:
    import nibabel

    export(scans, tmp_path / "out", "nifti")
    rows = lines(tmp_path / "out")
    assert sorted({row["file"] for row in rows}) == [f"{i:05d}.nii.gz" for i in range(3)]
    image = nibabel.load(tmp_path / "out" / rows[0]["file"])
    assert bytes(image.header["descrip"].item()).decode() == NOTICE
    assert json.loads(image.header.extensions[0].get_content())["synthetic"] is True
    assert image.header.get_zooms() == pytest.approx((3, 3, 4))
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    volume = image.get_fdata()
    assert volume.shape == (24, 24, 7)
    numbers = [int(row["slice"]) for row in rows[:5]]
    assert numbers == [0, 1, 2, 5, 6]
    assert not volume[:, :, 3:5].any(), "planes that the data set does not have"
    for i, plane in enumerate(numbers):
        expected = scans.images[i] * scans.column("scale")[i]
        assert np.allclose(volume[:, :, plane].T, expected, rtol=1e-6)
    # The blobs are at the patient's right and front: positive x and y in NIfTI's coordinates.
    brightest = np.unravel_index(volume[:, :, 0].argmax(), (24, 24))
    x, y, z, _ = image.affine @ [*brightest, 0, 1]
    assert x > 0
    assert y > 0
    assert z == pytest.approx(10)


def test_unknown_sides_are_not_claimed(scans: Dataset, tmp_path: Path) -> None:
    import nibabel
    import pydicom

    unknown = Dataset(scans.table, replace(scans.meta, laterality=UNVERIFIED))
    export(unknown, tmp_path / "nifti", "nifti")
    export(unknown, tmp_path / "dicom", "dicom")
    image = nibabel.load(tmp_path / "nifti" / "00000.nii.gz")
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 0
    found = pydicom.dcmread(tmp_path / "dicom" / "000000.dcm")
    assert "ImageOrientationPatient" not in found
    assert not found.PatientOrientation


# -- round trips -----------------------------------------------------------------------------------


def pairs(dataset: Dataset) -> set[tuple[int, int]]:
    return {(i, int(j)) for i, beside in enumerate(dataset.neighbours()) for j in beside}


def test_slice_numbers_keep_the_neighbours(scans: Dataset, small_phantom: Dataset) -> None:
    for dataset in (scans, small_phantom):
        numbers = pa.array(slice_numbers(dataset).astype(np.float32))
        table = dataset.table.set_column(dataset.table.column_names.index("z"), "z", numbers)
        plain = Dataset(table, replace(dataset.meta, pixel_mm=None))
        assert pairs(plain) == pairs(dataset)
        assert pairs(dataset)


def test_png_comes_back(small_phantom: Dataset, tmp_path: Path) -> None:
    export(small_phantom, tmp_path / "out", "png")
    space = small_phantom.meta.space
    back = import_folder(
        tmp_path / "out",
        tmp_path / "out" / "labels.csv",
        factors=list(space.names),
        values=space.to_dict(),
        scan_column="scan_id",
        z_column="slice",
        laterality=RADIOLOGICAL,
        key=KEY,
    ).dataset
    assert back is not None
    assert np.abs(back.images - small_phantom.images).max() <= 0.5 / 65535 + 1e-6
    assert back.cells == small_phantom.cells
    assert pairs(back) == pairs(small_phantom)
    assert len(back.patients) == len(small_phantom.patients)
    assert back.column("synthetic").all(), "the mark comes back"


def test_a_scan_off_the_grid_is_written_slice_by_slice(scans: Dataset, tmp_path: Path) -> None:
    z = scans.column("z").copy()
    z[1] = 15.7
    table = scans.table.set_column(scans.table.column_names.index("z"), "z", pa.array(z))
    uneven = Dataset(table, scans.meta)
    assert [len(s.rows) for s in stacks(uneven)] == [1] * 5 + [3, 3]
    assert (
        sum(len(s.rows) for s in stacks(scans))
        == len(scans)
        == len({int(r) for s in stacks(scans) for r in s.rows})
    )
    export(uneven, tmp_path / "out", "nifti")
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 7
