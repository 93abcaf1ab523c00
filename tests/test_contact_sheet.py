from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from toy import SIZE, make_toy_folder

from fastgan_aug.data.contact_sheet import contact_sheet
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.pseudonyms import PseudonymKey


def test_same_seed_same_picture_and_it_is_no_empty_one(toy: Dataset):
    sheet = contact_sheet(toy, per_cell=3)
    assert sheet == contact_sheet(toy, per_cell=3)
    assert sheet != contact_sheet(toy, per_cell=3, seed=1)
    picture = Image.open(io.BytesIO(sheet))
    assert picture.format == "PNG"
    assert np.asarray(picture.convert("L")).std() > 10


def test_it_is_as_tall_as_the_cells_that_have_slices(toy: Dataset, small_phantom: Dataset):
    def height(dataset: Dataset) -> int:
        return Image.open(io.BytesIO(contact_sheet(dataset, 1))).height

    assert height(small_phantom) == 2 * height(toy)  # 8 cells of 9 (one is empty), and 4


def test_a_data_set_without_labelled_slices_has_a_sheet_too(toy: Dataset):
    assert contact_sheet(toy.take(~toy.labelled)).startswith(b"\x89PNG")


def test_a_value_with_dollar_signs_is_no_formula(tmp_path: Path):
    root = make_toy_folder(tmp_path / "toy", 0)
    labels = (root / "labels.csv").read_text()
    name = "$\\frac{$"  # as a formula it could not be drawn
    (root / "labels.csv").write_text(labels.replace("disc", name))
    imported = import_folder(
        root, root / "labels.csv", factors=["shape"], size=SIZE, patient_column="donor",
        z_column="slice", source="toy shapes", key=PseudonymKey(bytes(32)),
    )  # fmt: skip
    assert imported.dataset is not None
    assert any(name in str(cell) for cell in imported.dataset.class_counts)
    assert contact_sheet(imported.dataset).startswith(b"\x89PNG")
