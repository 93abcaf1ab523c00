"""Generators that are wrong on purpose, each in one way, made of a phantom's real slices.

Each says which rules of the gate must catch it: a generator that fails for another reason was not
understood.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import ndimage, optimize

from fastgan_aug.config import load_config
from fastgan_aug.data.augment import flippable_cells
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.counts import mean_counts

Images = NDArray[np.float32]
Cells = NDArray[np.str_]
Make = Callable[[Dataset, np.random.Generator], tuple[Images, Cells]]

MOVED = 0.10  # of the mean counts, up or down
BLUR = 0.5  # pixels: SD of the Gaussian
NOISE = 0.01  # of the maximum
SHIFT = 2  # pixels each way
OTHERS, TRAINING, STRANGERS = "others", "training", "strangers"
COPYING = ("exact", "flipped", "shifted", "noisy", "blended")


@dataclass(frozen=True)
class Planted:
    """A generator whose fault is known.

    Attributes:
        what: What it does, one sentence.
        make: (labelled slices, random) to (M, S, S) float32 in [0, 1] and their (M,) cells.
        right: Metrics of the rules that must fail it; empty for one that must pass.
        sections: Of the evaluation: those that hold these rules.
        source: What it is made of: ``others``, slices of one other phantom, about four of each
            patient; ``training`` slices; or ``strangers``, one slice of each of 938 patients.
        classifier: Whether the classifier tells something of it.
    """

    what: str
    make: Make
    right: tuple[str, ...]
    sections: tuple[str, ...]
    source: str = OTHERS
    classifier: bool = False


def real_patients(source: Dataset, random: np.random.Generator) -> tuple[Images, Cells]:
    """The slices as they are, in random order: no generator can do better."""
    order = random.permutation(len(source))
    return source.images[order], _cells(source)[order]


def one_slice_each(
    phantoms: Sequence[Dataset], counts: Mapping[str, int], random: np.random.Generator
) -> Dataset:
    """Labelled slices with these counts, no two of one patient; rare cells choose first."""
    tables = pa.concat_tables([dataset.table for dataset in phantoms]).combine_chunks()
    everybody = Dataset(tables, phantoms[0].meta)
    owners, cells = everybody.column("patient_id").astype(str), _cells(everybody)
    order, used, chosen = random.permutation(len(owners)), set[str](), list[int]()
    for cell, wanted in sorted(counts.items(), key=lambda item: item[1]):
        free = {owners[row]: row for row in order[cells[order] == cell] if owners[row] not in used}
        taken = dict(itertools.islice(free.items(), wanted))
        if len(taken) < wanted:
            raise DataError(f"{len(free)} patients for {wanted} slices of {cell}")
        used |= set(taken)
        chosen += taken.values()
    return everybody.take(np.asarray(chosen, np.int64))


def gamma_curve(source: Dataset, random: np.random.Generator) -> tuple[Images, Cells]:
    """A curve that moves mean counts by a tenth, up or down, and leaves each maximum alone."""
    images, wanted = source.images, 1 + MOVED * random.choice((-1, 1))
    return _curved(images, exponent(images, wanted)), _cells(source)


def exponent(images: Images, wanted: float) -> float:
    """The gamma that multiplies the slices' average mean counts by ``wanted``, 0.9 to 1.1.

    Of several, the one nearest to 1: a steep curve shrinks the mask, and mean counts rise again.
    """
    before = float(mean_counts(images).mean())

    def missing(log_gamma: float) -> float:
        after = float(mean_counts(_curved(images, float(np.exp(log_gamma)))).mean())
        return after / before - wanted

    return float(np.exp(optimize.brentq(missing, 0, 0.5 if wanted < 1 else -0.5, xtol=1e-3)))


def _curved(images: Images, gamma: float) -> Images:
    peak = images.max(axis=(1, 2), keepdims=True)
    return np.asarray(peak * (images / peak) ** gamma, np.float32)


def blurred(source: Dataset, random: np.random.Generator) -> tuple[Images, Cells]:
    """A Gaussian over each slice, which keeps its maximum."""
    images = source.images
    soft = ndimage.gaussian_filter(images, (0, BLUR, BLUR))
    peaks = (i.max(axis=(1, 2), keepdims=True) for i in (images, soft))
    return np.asarray(soft * np.divide(*peaks), np.float32), _cells(source)


def left_lesions(source: Dataset, random: np.random.Generator) -> tuple[Images, Cells]:
    """Unilateral slices whose lesion is on the right are mirrored; the truth says which."""
    right = source.column("defect_right") > source.column("defect_left")
    right &= source.column("pattern") == "unilateral"
    images = source.images.copy()
    images[right] = images[right][:, :, ::-1]
    return images, _cells(source)


def one_mode(source: Dataset, random: np.random.Generator) -> tuple[Images, Cells]:
    """One slice for each cell, again and again, with a little noise and a shift."""
    cells = _cells(source)
    chosen = {cell: random.choice(np.flatnonzero(cells == cell)) for cell in np.unique(cells)}
    images = source.images[[chosen[cell] for cell in cells.tolist()]]
    return _noisy(_shifted(images, 1, random), random), cells


def copier(source: Dataset, random: np.random.Generator) -> tuple[Images, Cells]:
    """Gives its slices back: exactly, mirrored where the label allows, shifted, noisy, blended."""
    images, cells = source.images.copy(), _cells(source)
    way = random.permutation(np.arange(len(cells)) % len(COPYING))
    rows = {name: np.flatnonzero(way == i) for i, name in enumerate(COPYING)}
    keeps_label = flippable_cells(source.meta.space, load_config("werner2022-a").augment)
    flipped = rows["flipped"][keeps_label[source.cell_index[rows["flipped"]]]]
    images[flipped] = source.images[flipped][:, :, ::-1]
    images[rows["shifted"]] = _shifted(source.images[rows["shifted"]], SHIFT, random)
    images[rows["noisy"]] = _noisy(source.images[rows["noisy"]], random)
    for row in rows["blended"].tolist():
        other = source.images[random.choice(np.flatnonzero(cells == cells[row]))]
        images[row] += random.uniform(0, 0.5) * (other - images[row])
    order = random.permutation(len(cells))
    return images[order], cells[order]


def ignores_pattern(source: Dataset, random: np.random.Generator) -> tuple[Images, Cells]:
    """Slices of the level that was asked for, whatever the pattern."""
    levels, rows = source.column("level").astype(str), np.arange(len(source))
    for level in np.unique(levels):
        here = np.flatnonzero(levels == level)
        rows[here] = random.permutation(here)
    return source.images[rows], _cells(source)


def _cells(source: Dataset) -> Cells:
    return np.asarray([str(cell) for cell in source.cells], np.str_)


def _shifted(images: Images, most: int, random: np.random.Generator) -> Images:
    steps = random.integers(-most, most + 1, (len(images), 2))
    # Around the head is air: what leaves on one side and enters on the other is next to nothing.
    moved = [np.roll(i, tuple(s), (0, 1)) for i, s in zip(images, steps.tolist(), strict=True)]
    return np.stack(moved)


def _noisy(images: Images, random: np.random.Generator) -> Images:
    noise = NOISE * random.standard_normal(images.shape, np.float32)
    return np.asarray(np.clip(images + noise, 0, 1), np.float32)


REAL, INDEPENDENT = "real patients", "real patients, one slice each"
IGNORES = "ignores the condition"
PLANTED: Mapping[str, Planted] = {
    REAL: Planted(
        "slices of other patients as they are", real_patients, (),
        ("endpoints", "diversity", "fidelity", "privacy"), classifier=True),
    "gamma curve": Planted(
        f"mean counts {MOVED:.0%} up or down, each slice's maximum fixed", gamma_curve,
        ("mc_ratio",), ("endpoints",)),
    "blurred": Planted(
        f"a Gaussian of {BLUR:g} pixel, each slice's maximum fixed", blurred,
        ("kid",), ("fidelity",)),
    "left lesions only": Planted(
        "unilateral lesions on the right are mirrored", left_lesions,
        ("log_lr_difference",), ("endpoints",)),
    "single mode": Planted(
        "one slice for each cell, with noise and a shift of up to one pixel", one_mode,
        ("sd_map_ratio", "coverage_ratio", "pairwise_ratio", "modes_ratio"),
        ("diversity", "fidelity")),
    "copier": Planted(
        f"training slices, one fifth each {', '.join(COPYING)}", copier,
        ("copy_rate", "nn_share", "membership_auc"), ("privacy",), source=TRAINING),
    IGNORES: Planted(
        "slices of the level, whatever the pattern", ignores_pattern,
        ("kid", "real_on_synthetic"), ("fidelity",), classifier=True),
    INDEPENDENT: Planted(
        "as many slices of as many patients, as independent as a generator's", real_patients, (),
        ("endpoints", "diversity", "fidelity", "privacy"), source=STRANGERS),
}  # fmt: skip
