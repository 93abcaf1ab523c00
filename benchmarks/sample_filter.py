"""What the filter of generated slices refuses: real slices, copies, wrong labels, a generator's.

`python -m benchmarks.sample_filter [--checkpoint FOLDER --data FILE] [--draws 3] [--pool FOLDER]`:
in each draw it is fitted on one phantom of Table 1 and judges slices of another, and its own
training slices as a copier would give them back. What a checkpoint generates is judged by a filter
of its training slices; ``--data`` is what its fit was given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.gate import phantom
from benchmarks.measure import figure, publish
from fastgan_aug.code_version import code_version
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import REASONS
from fastgan_aug.engines.job import training_part, validation_part
from fastgan_aug.gan.synthesizer import Synthesizer
from fastgan_aug.quality.filter_fitting import DIVERSITY, fit_sample_filter
from fastgan_aug.quality.likeness.prdc import distances
from fastgan_aug.quality.sample_filter import ACCEPTED, SampleFilter

Images = NDArray[np.float32]
Cells = NDArray[np.int64]

FIRST = 1000  # seed of the first draw's phantom; the next one is judged
GENERATED = 400  # slices of each cell
SHIFT, NOISE, BLUR = 2, 0.01, 0.5  # pixels, of the maximum, pixels
PASS, REFUSED, FIT_SECONDS = 0.85, 0.9, 15.0
NEAR_COPY = 1 + REASONS.index("near_copy")


def shifted(images: Images, random: np.random.Generator) -> Images:
    """By up to ``SHIFT`` pixels each way."""
    steps = random.integers(-SHIFT, SHIFT + 1, (len(images), 2)).tolist()
    return np.stack([np.roll(i, tuple(s), (0, 1)) for i, s in zip(images, steps, strict=True)])


def noisy(images: Images, random: np.random.Generator) -> Images:
    """With noise of ``NOISE`` of the maximum."""
    noise = NOISE * random.standard_normal(images.shape, np.float32)
    return np.asarray(np.clip(images + noise, 0, 1), np.float32)


COPIES: Mapping[str, Callable[[Images, np.random.Generator], Images]] = {
    "exact": lambda images, _: images,
    "mirrored": lambda images, _: images[:, :, ::-1],
    "shifted": shifted,
    "noisy": noisy,
    "blurred": lambda images, _: ndimage.gaussian_filter(images, (0, BLUR, BLUR)),
}


def elsewhere(dataset: Dataset, factor: int, random: np.random.Generator) -> Cells:
    """For each slice another cell that differs from its own in one factor alone."""
    space = dataset.meta.space
    found = []
    for i in dataset.cell_index:
        own = space.cells[i].values
        others = [
            j
            for j, cell in enumerate(space.cells)
            if [k for k, v in enumerate(cell.values) if v != own[k]] == [factor]
        ]
        found.append(random.choice(others))
    return np.asarray(found, np.int64)


def shares(judge: SampleFilter, images: Images, cells: Cells) -> NDArray[np.float64]:
    """Of the slices: those accepted, then those refused by each reason."""
    codes = judge.judge(np.ascontiguousarray(images), cells)
    return np.bincount(codes, minlength=1 + len(REASONS)) / len(codes)


def of_draw(pool: Path, draw: int) -> Iterator[tuple[str, NDArray[np.float64] | float]]:
    """What is judged, and its shares; the seconds of the fit among them."""
    train, other = (phantom(pool, FIRST + (2 * draw + i) % 16) for i in (0, 1))
    random, begun, worked = np.random.default_rng(draw), time.perf_counter(), time.process_time()
    judge = fit_sample_filter(train)
    yield "fit", time.perf_counter() - begun
    yield "work", time.process_time() - worked
    yield "real", shares(judge, other.images, other.cell_index)
    for name, changed in COPIES.items():
        images = changed(train.images, random)
        yield f"copies, {name}", shares(judge, images, train.cell_index)
    last = len(train.meta.space.names) - 1
    for factor, name in enumerate(train.meta.space.names):
        cells = elsewhere(train, factor, random)
        yield f"copies, another {name}", shares(judge, train.images, cells)
    yield "wrong", shares(judge, other.images, elsewhere(other, last, random))


def spread(features: NDArray[np.float64]) -> float:
    """Mean distance between two of (N, D)."""
    n = len(features)
    return float(distances(features, features).sum() / max(n * (n - 1), 1))


def filter_of_fit(synthesizer: Synthesizer, data: Path) -> SampleFilter:
    """What the fit of a checkpoint keeps in it."""
    lineage = synthesizer.meta.lineage
    config = Config.of(dict(lineage.config))
    train, _ = training_part(config, Dataset.read(data))
    if train.digest != lineage.dataset_digest:
        raise SystemExit(f"{data} is not what the checkpoint was trained on")
    return fit_sample_filter(validation_part(config, train)[0])


def of_generator(synthesizer: Synthesizer, judge: SampleFilter) -> Iterator[dict[str, Any]]:
    """Each seen cell: share accepted, variety over that of all, time over that of generating."""
    seeds = np.arange(GENERATED, dtype=np.uint64)
    for i, (cell, n) in enumerate(synthesizer.class_counts.items()):
        if n:
            begun = time.perf_counter()
            images = synthesizer.generate([cell] * GENERATED, seeds)
            made = time.perf_counter()
            codes = judge.judge(images, np.full(GENERATED, i))
            took = (time.perf_counter() - made) / (made - begun)
            features = judge.view(images)
            variety = spread(features[codes == ACCEPTED]) / spread(features)
            refused = {r: float((codes == k).mean()) for k, r in enumerate(REASONS, start=1)}
            accepted = float((codes == ACCEPTED).mean())
            yield {
                "cell": str(cell), "accepted": accepted, "variety": variety, "time": took,
            } | refused  # fmt: skip


def figures_of(drawn: Mapping[str, list[Any]], cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over draws, beside what they have to be."""

    def mean(name: str, code: int) -> float:
        return float(np.mean([found[code] for found in drawn[name]]))

    figures = [
        figure("fit, the longest", max(drawn["fit"]), "s", FIT_SECONDS),
        figure("of them on a core of its own", max(drawn["work"]), "s"),
        figure("real slices of other patients, accepted", mean("real", ACCEPTED), "", PASS,
               least=True),
    ]  # fmt: skip
    for code, reason in enumerate(REASONS, start=1):
        figures.append(figure(f"the same, refused: {reason}", mean("real", code), ""))
    for name in drawn:
        if name.startswith("copies"):
            found = mean(name, NEAR_COPY)
            figures.append(figure(f"{name}: near copies", found, "", REFUSED, least=True))
    for code, reason in enumerate(REASONS, start=1):
        figures.append(figure(f"wrong last factor, refused: {reason}", mean("wrong", code), ""))
    if cells:
        for name, goal in (("accepted", None), ("variety", DIVERSITY)):
            worst = min(cells, key=lambda row: row[name])
            what = f"generated, {name}, worst cell ({worst['cell']})"
            figures.append(figure(what, worst[name], "", goal, least=True))
        times = float(np.median([row["time"] for row in cells]))
        figures.append(figure("judging, over generating, median cell", times, "of its time"))
    return figures


def main() -> None:
    """Fits, judges and publishes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data", type=Path, help="what the checkpoint's fit was given")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--pool", type=Path, default=Path("runs/gate-pool"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    drawn: dict[str, list[Any]] = {}
    for draw in range(asked.draws):
        for name, found in of_draw(asked.pool, draw):
            drawn.setdefault(name, []).append(found)
    cells, facts = [], {}
    if asked.checkpoint:
        synthesizer = Synthesizer.load(asked.checkpoint)
        judge = filter_of_fit(synthesizer, asked.data)
        cells, lineage = list(of_generator(synthesizer, judge)), synthesizer.meta.lineage
        facts = {
            "digest": synthesizer.meta.digest, "config": lineage.config_digest,
            "dataset": lineage.dataset_digest, "code": lineage.code_version,
        }  # fmt: skip
    publish(
        "sample_filter",
        figures_of(drawn, cells),
        seeds={"phantoms": [FIRST, FIRST + 2 * asked.draws - 1], "generated": "0 to 399"},
        checkpoint=facts,
        code=code_version(),
        generated=cells,
        command="python -m benchmarks.sample_filter --checkpoint FOLDER --data FILE"
        f" --draws {asked.draws}",
    )


if __name__ == "__main__":
    main()
