"""Laws of the outcomes: what is written is read back, and what is no outcome is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downstream.outcome import Outcome, Truth
from fastgan_aug.errors import DataError


def outcome(seed: int = 0, n_validation: int = 5, n_test: int = 7) -> Outcome:
    random = np.random.default_rng(seed)
    made = [random.dirichlet(np.ones(3), n).astype(np.float32) for n in (n_validation, n_test)]
    return Outcome(2, "small-cnn", "réal + synthetic", seed, 40, 12, 1.5, made[0], made[1], 3)


def truth(n_validation: int = 5, n_test: int = 7) -> Truth:
    codes = [np.arange(n, dtype=np.int64) for n in (n_validation, n_test)]
    return Truth(2, codes[0] % 3, codes[1] % 3, codes[0] // 2, codes[1] // 2)


def same(one: object, other: object) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(one)]  # type: ignore[arg-type]
    return all(
        np.array_equal(a, b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
        for a, b in pairs
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(0, 6))
def test_the_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory, seed: int, validation: int, test: int
) -> None:
    folder = tmp_path_factory.mktemp("outcome")
    one, fact = outcome(seed, validation, test), truth(validation, test)
    one.write(folder / "one.npz")
    fact.write(folder / "truth.npz")
    assert same(Outcome.read(folder / "one.npz"), one)
    assert same(Truth.read(folder / "truth.npz"), fact)


def test_what_is_damaged_or_something_else_is_refused(tmp_path: Path) -> None:
    outcome().write(tmp_path / "one.npz")
    truth().write(tmp_path / "truth.npz")
    with pytest.raises(DataError, match=r"one\.npz"):
        Truth.read(tmp_path / "one.npz")
    with pytest.raises(DataError):
        Outcome.read(tmp_path / "truth.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:200])
    for name in ("cut.npz", "missing.npz"):
        with pytest.raises(DataError, match="makes it again"):
            Outcome.read(tmp_path / name)


def test_what_is_no_probability_is_refused() -> None:
    good = outcome()
    for bad in (good.test * 2, good.test[:, 0], np.full_like(good.test, np.nan), good.test[:, :2]):
        with pytest.raises(DataError):
            replace(good, test=bad)
    with pytest.raises(DataError, match="patient for each"):
        replace(truth(), test_patients=np.zeros(3, np.int64))
