from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.importers.gathering import Gathered, in_order, numbered_files
from fastgan_aug.data.importers.importing import Item
from fastgan_aug.data.schema import DatasetMeta


def test_files_are_numbered_as_find_and_sort_do(tmp_path: Path):
    for name in ("b/x", "a.b", "a/z", "a-b", "Z", "é", "a b/c", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "Z")
    listed = subprocess.run(
        f"find '{tmp_path}/' -type f | LC_ALL=C sort", shell=True, capture_output=True, text=True
    ).stdout.split("\n")[:-1]
    assert [str(path) for _, path in numbered_files(tmp_path)] == [
        line.replace("//", "/") for line in listed
    ]
    assert [number for number, _ in numbered_files(tmp_path)] == list(range(1, 9))


def test_items_stand_in_the_order_of_files_then_lines():
    names = ["line 10", "file 9", "files 10 to 12", "line 9", "file 2 and 3 others"]
    ordered = [item.where for item in in_order(Item(name) for name in names)]
    assert ordered == ["file 2 and 3 others", "file 9", "files 10 to 12", "line 9", "line 10"]


def test_neighbours_alone_are_no_data_set():
    rows = Gathered(2, ("kind",))
    meta = DatasetMeta(ConditionSpace.of({"kind": ["x"]}), 2, "test")
    assert rows.dataset(meta) is None
    image = np.ones((2, 2), np.float32)
    rows.add(image, values=(None,), patient="p", scan="s", z=0.0, scale=1.0)
    assert rows.dataset(meta) is None
    rows.add(image, values=("x",), patient="p", scan="s", z=1.0, scale=2.0, synthetic=True)
    dataset = rows.dataset(meta, "Bq/ml")
    assert dataset is not None
    assert dataset.labelled.tolist() == [False, True]
    assert dataset.column("synthetic").tolist() == [False, True]
    assert set(dataset.column("unit")) == {"Bq/ml"}
