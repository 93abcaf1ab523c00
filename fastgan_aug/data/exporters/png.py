"""16-bit PNG images with a CSV of labels; `import_folder` reads them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import NOTICE, row_facts, write_labels
from fastgan_aug.data.exporters.stacks import slice_numbers

FULL = 65535  # the grey of 1.0


def write_png(folder: Path, dataset: Dataset, provenance: Mapping[str, Any]) -> None:
    """Writes ``images/`` and ``labels.csv``.

    A grey of 65535 is 1.0; times the row's ``scale`` it is the count. ``slice`` is the slice's
    number in its scan, one apart where two slices are neighbours.

    Args:
        folder: There already.
        dataset: Marked slices.
        provenance: Goes into each image's text chunks, with its cell and seed.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    (folder / "images").mkdir()
    names = [f"{row:06d}.png" for row in range(len(dataset))]
    for row, name in enumerate(names):
        told = PngInfo()
        told.add_text("Synthetic", "YES")
        told.add_text("Comment", NOTICE)
        told.add_text("Provenance", json.dumps({**provenance, **row_facts(dataset, row)}))
        grey = np.round(dataset.images[row].astype(np.float64) * FULL).astype(np.uint16)
        Image.fromarray(grey).save(folder / "images" / name, pnginfo=told)
    write_labels(folder, dataset, names, slice_numbers(dataset).tolist())
