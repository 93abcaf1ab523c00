"""Time, memory and difficulty of the phantom: `python -m benchmarks.phantom [--large]`.

Writes docs/phantom.png too. Without `--large` the figures of the large one are kept from the last
run that had it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measure import RESULTS, figure, publish, resident, watched
from fastgan_aug.config import load_config
from fastgan_aug.data.contact_sheet import contact_sheet
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom import spect
from fastgan_aug.data.phantom.plan import plan_patients
from fastgan_aug.data.phantom.population import (
    BLOCK,
    PhantomConfig,
    draw_block,
    make_phantom,
)
from fastgan_aug.quality.clinical.counts import left_right_ratio, masks, mean_counts, symmetry_axes
from fastgan_aug.quality.clinical.spectrum import radial_power
from fastgan_aug.quality.clinical.tissue import grey_over_white, head_width_mm

PICTURE = RESULTS.parents[1] / "docs" / "phantom.png"
# From the project's own requirements.
TABLE_1_SECONDS, SLICES, EASIEST = 60, 100_000, 0.95
TIMES_TABLE_1 = 36  # with their neighbours, more than SLICES


def draw(folder: Path, times: int) -> tuple[Path, float, list[tuple[float, int]]]:
    """Draws Table 1, so many times over, by the command line, on all cores."""
    config = PhantomConfig()
    text = f"[phantom]\npatients = {times * config.patients}\n[phantom.counts]\n"
    text += "".join(f'"{cell}" = {times * n}\n' for cell, n in config.counts.items())
    (folder / "phantom.toml").write_text(text)
    out = folder / f"phantom-{times}.parquet"
    command = [sys.executable, "-m", "fastgan_aug.cli.main", "data", "phantom"]
    command += ["--config", str(folder / "phantom.toml"), "--out", str(out)]
    return (out, *watched(command, resident, every=1 if times == 1 else 5))


def table_1(folder: Path) -> tuple[list[dict[str, Any]], str]:
    out, seconds, memory = draw(folder, 1)
    dataset = Dataset.read(out)
    PICTURE.write_bytes(contact_sheet(dataset))
    peak = max(size for _, size in memory) / 2**30
    score, chance = difficulty(dataset)
    return [
        figure(f"Table 1: {int(dataset.labelled.sum())} labelled of {len(dataset)} slices",
               seconds, "s", TABLE_1_SECONDS),
        figure("Table 1: peak memory (PSS)", peak, "GiB"),
        figure("Table 1: file", out.stat().st_size / 2**20, "MiB"),
        figure("logistic regression on ten features, macro-F1", score, "", EASIEST),
        figure("the same on shuffled labels", chance, ""),
        *likeness("default scanner", dataset),
    ], dataset.digest  # fmt: skip


def large(folder: Path) -> list[dict[str, Any]]:
    out, seconds, memory = draw(folder, TIMES_TABLE_1)
    rows = pq.ParquetFile(out).metadata.num_rows
    # After the start: the processes, their matrices and the first blocks.
    then, sizes = np.asarray([m for m in memory if m[0] > 0.1 * seconds]).T
    slope = float(np.polyfit(then / seconds, sizes / 2**20, 1)[0])
    return [
        figure("large: slices", rows, "slices", SLICES, least=True),
        figure("large: time", seconds, "s"),
        figure("large: peak memory (PSS)", max(s for _, s in memory) / 2**30, "GiB"),
        figure("large: growth of memory over the last nine tenths", slope, "MiB"),
        figure("large: slices per second", rows / seconds, "slices/s"),
        figure("large: file", out.stat().st_size / 2**30, "GiB"),
    ]


def likeness(name: str, dataset: Dataset) -> list[dict[str, Any]]:
    """What `data compare` measures, of all labelled slices, medians."""
    pixel = dataset.meta.pixel_mm or 1.0
    labelled = dataset.images[dataset.labelled]
    cells = np.asarray([str(c) for c in dataset.cells])
    normal = dataset.images[np.isin(cells, ["BG/normal", "COR/normal"])]
    power = np.median(radial_power(labelled, pixel, (0.02, 0.05, 0.10)), 0)
    return [
        *(figure(f"{name}: radial power at {f} cycles/mm over DC", p, "")
          for f, p in zip(("0.02", "0.05", "0.10"), power.tolist(), strict=True)),
        figure(f"{name}: grey over white, normal BG and COR",
               float(np.nanmedian(grey_over_white(normal))), ""),
        figure(f"{name}: SD of left over right, normal BG and COR",
               float(np.nanstd(left_right_ratio(normal))), ""),
        figure(f"{name}: mean counts", float(np.median(mean_counts(labelled))), ""),
        figure(f"{name}: head width", float(np.nanmedian(head_width_mm(labelled, pixel))), "mm"),
    ]  # fmt: skip


def second_scanner() -> list[dict[str, Any]]:
    config = load_config("phantom-second-scanner").phantom
    assert config is not None
    few = replace(config, counts={k: n // 4 for k, n in config.counts.items()}, patients=60)
    return likeness("second scanner", make_phantom(few))


def floor() -> list[dict[str, Any]]:
    """How much of one core's time is the matrix products that the method cannot do without."""
    config = PhantomConfig()
    plans = plan_patients(
        config.counts, config.patients, config.scanner.plane_mm, np.random.default_rng(0)
    )
    draw_block(config, (0, plans[:BLOCK]))  # the matrices are made
    times, rows = [], 0
    for first in range(BLOCK, 6 * BLOCK, BLOCK):
        begun = time.perf_counter()
        rows += len(draw_block(config, (first, plans[first : first + BLOCK])))
        times.append(time.perf_counter() - begun)
    a, b = (np.ones((1024, 1024), np.float32) for _ in range(2))
    peaks = []
    for _ in range(7):
        begun = time.perf_counter()
        a @ b
        peaks.append(2 * 1024**3 / (time.perf_counter() - begun))
    scanner = config.scanner
    pixels = int(spect.inside(config.size, scanner.pixel_mm).sum())
    # One projection to measure; per iteration one each way; one back for the normalisation.
    passes = 2 + 2 * scanner.iterations
    operations = 2 * passes * scanner.views * pixels * config.size
    seconds = sum(times) / rows
    return [
        figure("one core: a slice", 1000 * seconds, "ms"),
        figure("one core: products of a slice", operations / 1e9, "GFLOP"),
        figure("one core: peak of matrix products", float(np.median(peaks)) / 1e9, "GFLOP/s"),
        figure("one core: share of that peak", operations / seconds / float(np.median(peaks)), ""),
    ]


def ten_features(images: np.ndarray, pixel_mm: float) -> np.ndarray:
    """(N, 10) what one would measure by hand: counts, sides, texture, shape."""
    mask = masks(images)
    inside = [image[m] for image, m in zip(images, mask, strict=True)]
    ratio = np.log(left_right_ratio(images))
    shifts = np.round(2 * symmetry_axes(mask) - (images.shape[-1] - 1)).astype(int)
    mirrored = [np.roll(i[:, ::-1], s, 1) for i, s in zip(images, shifts, strict=True)]
    area = mask.sum((1, 2))
    half = images.shape[1] // 2
    front, back = ((images * mask)[:, s].sum((1, 2)) for s in (slice(half), slice(half, None)))
    return np.nan_to_num(np.column_stack((
        mean_counts(images), ratio, np.abs(ratio), area,
        [v.std() for v in inside], [np.percentile(v, 10) for v in inside],
        (np.abs(images - np.stack(mirrored)) * mask).sum((1, 2)) / area,
        np.log((front + 1) / (back + 1)), grey_over_white(images),
        np.log(radial_power(images, pixel_mm, [0.03])[:, 0]),
    )))  # fmt: skip


def difficulty(dataset: Dataset) -> tuple[float, float]:
    """Macro-F1 of the pattern, five folds by patient, and the same with shuffled labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = dataset.labelled
    features = ten_features(dataset.images[rows], dataset.meta.pixel_mm or 1.0)
    labels = dataset.column("pattern")[rows].astype(str)
    patients = dataset.column("patient_id")[rows].astype(str)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")
    )
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)

    def score(y: np.ndarray) -> float:
        guessed = cross_val_predict(model, features, y, groups=patients, cv=folds)
        return float(f1_score(y, guessed, average="macro"))

    shuffled = np.random.default_rng(0).permutation(labels)
    return score(labels), score(shuffled)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures, digest = table_1(Path(folder))
        figures += second_scanner() + floor()
        if "--large" in sys.argv:
            figures += large(Path(folder))
        else:
            known = RESULTS / "phantom.json"
            before = json.loads(known.read_text())["figures"] if known.is_file() else []
            figures += [row for row in before if row["what"].startswith("large")]
    publish("phantom", figures, seeds=[PhantomConfig().seed], dataset=digest)


if __name__ == "__main__":
    main()
