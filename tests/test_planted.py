"""The generators of `benchmarks.gate` are wrong in the way they say, and in no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import gate
from benchmarks.planted import PLANTED, REAL, exponent, one_slice_each
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.errors import DataError
from fastgan_aug.quality.clinical.counts import left_right_ratio, mean_counts
from fastgan_aug.quality.clinical.spectrum import radial_power
from fastgan_aug.quality.copies.privacy import pixel_distances
from fastgan_aug.quality.gate import Rule
from fastgan_aug.quality.metric import Metric

Slices = tuple[NDArray[np.float32], NDArray[np.str_]]


@pytest.fixture(scope="module")
def source(small_phantom: Dataset) -> Dataset:
    return small_phantom.take(small_phantom.labelled)


def cells_of(source: Dataset) -> NDArray[np.str_]:
    return np.asarray([str(cell) for cell in source.cells])


def made(name: str, source: Dataset, seed: int = 0) -> Slices:
    return PLANTED[name].make(source, np.random.default_rng(seed))


def peaks(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.max(axis=(1, 2))


@pytest.mark.parametrize("name", PLANTED)
def test_each_gives_every_cell_its_number_and_the_same_for_a_seed(name: str, source) -> None:
    images, cells = made(name, source)
    assert sorted(cells) == sorted(cells_of(source))
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    again = made(name, source)
    assert np.array_equal(images, again[0])
    assert np.array_equal(cells, again[1])


def test_real_patients_are_left_as_they_are(source) -> None:
    images, cells = made(REAL, source)
    own = {(i.tobytes(), c) for i, c in zip(source.images, cells_of(source), strict=True)}
    assert {(i.tobytes(), c) for i, c in zip(images, cells, strict=True)} == own


def test_strangers_bring_one_slice_each(source) -> None:
    counts = {"BG/normal": 2, "COR/unilateral": 2, "BG/bilateral": 1}
    chosen = one_slice_each([source], counts, np.random.default_rng(0))
    assert {str(c): n for c, n in chosen.class_counts.items() if n} == counts
    assert len(chosen.patients) == len(chosen) == 5
    with pytest.raises(DataError, match="patients for"):
        one_slice_each([source], {"BG/normal": 99}, np.random.default_rng(0))


def test_the_curve_moves_mean_counts_by_a_tenth_and_no_maximum(source) -> None:
    before = mean_counts(source.images).mean()
    moves = []
    for seed in range(6):
        images, _ = made("gamma curve", source, seed)
        assert np.allclose(peaks(images), peaks(source.images), atol=1e-6)
        moves.append(mean_counts(images).mean() / before - 1)
    assert np.allclose(np.abs(moves), 0.1, atol=0.005)
    assert min(moves) < 0 < max(moves)
    assert exponent(source.images, 0.9) > 1 > exponent(source.images, 1.1)


def test_the_blur_takes_fine_detail_alone(source) -> None:
    images, _ = made("blurred", source)
    low, high = (
        np.median(radial_power(images, 1.0, [f]) / radial_power(source.images, 1.0, [f]))
        for f in (0.03, 0.3)
    )
    assert low == pytest.approx(1, abs=0.05)
    assert high < 0.6
    assert np.allclose(peaks(images), peaks(source.images), atol=1e-6)


def test_lesions_are_on_the_left_and_the_rest_is_untouched(source) -> None:
    images, cells = made("left lesions only", source)
    lost = source.column("defect_left"), source.column("defect_right")
    unilateral = np.char.endswith(cells, "/unilateral")
    moved = unilateral & (lost[1] > lost[0])
    assert 0 < moved.sum() < unilateral.sum()
    assert np.array_equal(images[moved], source.images[moved][:, :, ::-1])
    assert np.array_equal(images[~moved], source.images[~moved])
    deep = unilateral & (np.maximum(*lost) > 0.15)
    assert deep.sum() > 3
    assert (np.log(left_right_ratio(images[deep])) < 0).all()


def test_one_mode_is_one_slice_a_cell(source) -> None:
    images, cells = made("single mode", source)
    apart = pixel_distances(images, images)
    same = cells[:, None] == cells
    assert apart[same].max() < 0.5 * apart[~same].min()


def test_a_copy_lies_at_its_training_slice(source) -> None:
    images, cells = made("copier", source)
    nearest = pixel_distances(images, source.images).min(axis=1)
    among = pixel_distances(source.images, source.images)
    np.fill_diagonal(among, np.inf)
    assert np.median(nearest) < 0.2 * np.median(among.min(axis=1))
    exact = (np.abs(images[:, None] - source.images).max(axis=(2, 3)) == 0).any(axis=1)
    mirrored = np.abs(images[:, None] - source.images[:, :, ::-1]).max(axis=(2, 3)) == 0
    assert exact.mean() >= 0.2
    assert mirrored.any()
    assert not np.char.endswith(cells[mirrored.any(axis=1)], "/unilateral").any()


def test_whoever_ignores_the_condition_keeps_the_level(source) -> None:
    images, cells = made("ignores the condition", source)
    truth = dict(zip((i.tobytes() for i in source.images), cells_of(source), strict=True))
    true = [truth[image.tobytes()] for image in images]
    assert sorted(true) == sorted(cells)
    assert [c.split("/")[0] for c in true] == [c.split("/")[0] for c in cells]
    assert any(one != other for one, other in zip(true, cells, strict=True))


# -- the benchmark ---------------------------------------------------------------------------


def test_a_draw_is_three_phantoms_that_no_bound_was_chosen_on() -> None:
    assert gate.seeds_of(7) == gate.seeds_of(7)
    for draw in range(60):
        seeds = gate.seeds_of(draw)
        assert len(set(seeds)) == 3
        assert set(seeds) <= set(gate.POOL)
    assert min(gate.POOL) > 31


def test_rules_on_what_was_not_measured_neither_pass_nor_fail() -> None:
    far = Metric("kid", "a", 2.0, 9, bound=1.0, view="fixed")
    rules = [Rule("kid"), Rule("copy_rate", cells="overall", at_most=0.01)]
    metrics = [far, replace(far, cell="b", value=0.5), replace(far, cell="c", value=float("nan"))]
    asked, failed = gate.judged(rules, metrics)
    assert asked == {"kid every": {"fixed": 3}}
    assert failed == {"kid every": {"fixed": {"a": 2.0, "c": None}}}


def test_a_line_cut_short_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gate.jsonl"
    monkeypatch.setattr(gate, "LINES", path)
    assert gate.known("g") == []
    whole = json.dumps({"draw": 0, "gate": "g"})
    path.write_text(whole + "\n" + whole[:9])
    assert gate.known("g") == [json.loads(whole)]
    assert path.read_text() == whole + "\n"
    with pytest.raises(SystemExit, match="another gate"):
        gate.known("h")


def test_without_the_classifier_its_figures_are_left_out() -> None:
    line = {"failed": {"kid every": {"fixed": {"a": 1.0}, "classifier": {"b": 1.0}},
                       "kid overall": {"classifier": {"overall": 1.0}},
                       "real_on_synthetic overall": {"": {"overall": 0.1}}}}  # fmt: skip
    assert gate.quick(line) == {"failed": {"kid every": {"fixed": {"a": 1.0}}}}
