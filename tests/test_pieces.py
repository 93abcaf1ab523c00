from __future__ import annotations

from pathlib import Path

import pytest
from test_local_engine import toy_config

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.engines.pieces import FitPiece, Told, fit_and_choose, read_json, write_json
from fastgan_aug.errors import StorageError


def piece(tmp_path: Path, **training: object) -> FitPiece:
    return FitPiece("toy", 0, toy_config(**training), tmp_path / "toy.parquet", tmp_path)


def test_what_is_told_adds_up(tmp_path: Path) -> None:
    told = Told().further(100, 50.0).further(300, 100.0).further(400, 25.0)
    assert told.points == ((100, 2.0), (300, 4.0), (400, 8.0))
    assert (told.images_seen, told.seconds) == (400, 8.0)
    assert told.images_per_second == pytest.approx(50)
    assert told.until(300).seconds == 4.0
    assert told.until(0) == Told()
    told.write(tmp_path)
    assert Told.read(tmp_path) == told
    assert Told.read(tmp_path / "nothing").images_per_second == 0


def test_time_ends_a_fit_at_any_step(toy: Dataset, tmp_path: Path) -> None:
    endless = piece(tmp_path, images=10**8)
    first = fit_and_choose(endless, toy, seconds=0.2).name
    # With a longer time it goes on, and does not reach its images.
    assert fit_and_choose(endless, toy, seconds=2.0).name > first
    assert 0 < endless.told.images_seen < 10**8


def test_what_was_told_after_the_last_checkpoint_counts_once(toy: Dataset, tmp_path: Path) -> None:
    short = piece(tmp_path, images=32)
    fit_and_choose(short, toy)
    told = short.told
    told.further(48, 1e-3).write(short.folder)  # 16 s that a kill has lost
    fit_and_choose(piece(tmp_path, images=64), toy)
    again = short.told
    assert [images for images, _ in again.points] == [16, 32, 48, 64]
    assert again.points[:2] == told.points
    assert again.seconds < 16


def test_progress_is_of_images(tmp_path: Path) -> None:
    one = piece(tmp_path)
    assert one.part(one.told) == (0, 96)
    assert one.part(Told(((48, 3.0),))) == (48, 96)


def test_a_damaged_result_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_json(path) is None
    write_json(path, {"a": [1, None]}, indent=None)
    assert read_json(path) == {"a": [1, None]}
    path.write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match="remove it"):
        read_json(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
