"""NIfTI volumes, one per scan, with a CSV of labels; `import_nifti` reads them back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import NOTICE, row_facts, write_labels
from fastgan_aug.data.exporters.stacks import Stack, stacks
from fastgan_aug.data.schema import RADIOLOGICAL, DatasetMeta

COMMENT = 6  # extension code of plain text (nifti1.h, NIFTI_ECODE_COMMENT)
ALIGNED, UNKNOWN = 2, 0  # coordinates of some scanner or phantom; no coordinates


def write_nifti(folder: Path, dataset: Dataset, provenance: Mapping[str, Any]) -> None:
    """Writes ``NUMBER.nii.gz`` and ``labels.csv``.

    A scan on an even grid is one volume, with zeros in planes that the data set does not have; a
    slice of another scan is a volume of one plane. Values are float32 counts (image times scale).

    Args:
        folder: There already.
        dataset: Marked slices.
        provenance: Goes into a header extension, with the cells (and seeds) of the planes.
    """
    files, numbers = [""] * len(dataset), [0] * len(dataset)
    for number, stack in enumerate(stacks(dataset)):
        name = f"{number:05d}.nii.gz"
        places = list(zip(stack.rows.tolist(), stack.planes.tolist(), strict=True))
        planes = {plane: row_facts(dataset, row) for row, plane in places}
        document = json.dumps({**provenance, "planes": planes})
        (folder / name).write_bytes(_encode(stack, dataset, document))
        for row, plane in places:
            files[row], numbers[row] = name, plane
    write_labels(folder, dataset, files, numbers)


def affine(stack: Stack, meta: DatasetMeta) -> NDArray[np.float64]:
    """(4, 4) from (column, row, plane) to mm towards the patient's right, front and top.

    Columns run to the left and rows to the back (radiological convention), so both are negative.
    Where sides are unknown the rows are written the other way: to the front, as readers take them
    in a file that does not tell. Where the pixel is unknown it counts as 1.
    """
    pixel = meta.pixel_mm or 1.0
    edge = (meta.size - 1) / 2 * pixel
    back = -1.0 if meta.laterality == RADIOLOGICAL else 1.0
    found = np.diag([-pixel, back * pixel, stack.spacing or pixel, 1.0])
    found[:3, 3] = edge, -back * edge, stack.start
    return found


def _encode(stack: Stack, dataset: Dataset, document: str) -> bytes:
    import nibabel

    meta = dataset.meta
    known = meta.laterality == RADIOLOGICAL
    # Axes of the file: column, row, plane; the rows as `affine` says.
    volume = stack.counts(dataset).transpose(2, 1, 0)[:, :: 1 if known else -1]
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume), affine(stack, meta))
    header, code = image.header, ALIGNED if known else UNKNOWN
    image.set_sform(image.affine, code=code)
    image.set_qform(image.affine, code=code)
    header.set_xyzt_units("mm" if meta.pixel_mm is not None else "unknown")
    header["descrip"] = NOTICE.encode()
    header.set_intent("none", name="SYNTHETIC")
    header.extensions.append(nibabel.nifti1.Nifti1Extension(COMMENT, document.encode()))
    return gzip.compress(image.to_bytes(), mtime=0)
