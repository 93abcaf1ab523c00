"""Laws of pseudonyms: keyed, never traceable without the key, never compared across keys."""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import (
    PseudonymKey,
    SeenPatients,
    check_comparable,
    default_key_path,
    patient_digest,
)
from fastgan_aug.data.schema import FICTION, UNGROUPED, UNKEYED, DatasetMeta
from fastgan_aug.data.split import check_disjoint
from fastgan_aug.errors import DataError, LeakageError, PseudonymKeysDiffer, StorageError

ONE, TWO = PseudonymKey(bytes(32)), PseudonymKey(bytes(31) + b"\1")


def of_patients(*patients: str, key: str = ONE.id, grouping: str = "patient") -> Dataset:
    n = len(patients)
    meta = DatasetMeta(
        ConditionSpace.of({"shape": ["disc"]}), 4, "made here", pseudonym_key=key, grouping=grouping
    )
    return Dataset.build(
        meta,
        images=np.ones((n, 4, 4), np.float32),
        labels={"shape": ["disc"] * n},
        patient_id=patients,
        scan_id=patients,
        z=[0.0] * n,
        scale=[1.0] * n,
    )


def test_one_key_one_pseudonym_and_no_other() -> None:
    assert ONE.patient("4711") == PseudonymKey(bytes(32)).patient("4711")
    made = [f(k) for k in (ONE, TWO) for f in (
        lambda k: k.patient("4711"), lambda k: k.patient("4712"), lambda k: k.scan("4711", ""),
        lambda k: k.scan("471", "1"), lambda k: k.scan("4711", "1"), lambda k: k.id,
    )]  # fmt: skip
    assert len(set(made)) == len(made)
    assert all("471" not in name for name in made)


def test_the_key_shows_nowhere(tmp_path: Path) -> None:
    key, made = PseudonymKey.read_or_create(tmp_path / "folder" / "key")
    assert made
    assert PseudonymKey.read_or_create(tmp_path / "folder" / "key") == (key, False)
    assert key.secret.hex() not in repr(key) + key.id
    mode = stat.S_IMODE((tmp_path / "folder" / "key").stat().st_mode)
    assert mode == 0o600
    assert PseudonymKey.read(tmp_path / "folder" / "key") == key


def test_a_bad_key_file_is_a_typed_error_that_quotes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pseudonym key"):
        PseudonymKey.read(tmp_path / "missing")
    for content in ("", "secret-text", "ab" * 31, "\u00e9" * 64):
        (tmp_path / "bad").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match="cannot be read") as error:
            PseudonymKey.read(tmp_path / "bad")
        assert not content or content not in str(error.value)
    (tmp_path / "file").write_text("")
    with pytest.raises((StorageError, DataError)):
        PseudonymKey.read_or_create(tmp_path / "file" / "key")


def test_the_default_place_is_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_path().is_relative_to(tmp_path)
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert default_key_path().is_relative_to(Path(os.path.expanduser("~")))


def test_different_keys_are_never_compared() -> None:
    keys = (ONE.id, TWO.id, UNKEYED)
    for one, other in itertools.product(keys, keys):
        if one == other:
            check_comparable(one, other)
        else:
            with pytest.raises(PseudonymKeysDiffer, match="would not be noticed"):
                check_comparable(one, other)
    for key in (*keys, FICTION):
        check_comparable(key, FICTION)
        check_comparable(FICTION, key)


def test_a_leakage_check_across_keys_is_refused_not_passed() -> None:
    train = of_patients(ONE.patient("4711"), ONE.patient("4712"))
    # The same person under another key has another pseudonym: nothing is shared, to look at.
    other = of_patients(TWO.patient("4711"), key=TWO.id)
    assert not set(train.patients) & set(other.patients)
    for left, right in ((train, other), (other, train)):
        with pytest.raises(PseudonymKeysDiffer):
            check_disjoint(left, right)
        with pytest.raises(PseudonymKeysDiffer):
            SeenPatients.of(left).shared_with(right)
    with pytest.raises(LeakageError, match="1 patients"):
        check_disjoint(train, of_patients(ONE.patient("4712")))
    check_disjoint(train, of_patients(ONE.patient("4713")))
    check_disjoint(train, of_patients("phantom-1", key=FICTION))


def test_seen_patients_count_without_naming() -> None:
    train = of_patients(ONE.patient("4711"), ONE.patient("4712"))
    seen = SeenPatients.of(train)
    assert seen.digests == {patient_digest(p) for p in train.patients}
    assert seen.shared_with(train) == 2
    assert seen.shared_with(of_patients(ONE.patient("4712"), ONE.patient("9"))) == 1
    assert not any(p in repr(seen) for p in train.patients)


def test_nobody_can_tell_whom_a_model_without_patients_saw() -> None:
    train = of_patients(ONE.patient("row 1"), grouping=UNGROUPED)
    test = of_patients(ONE.patient("4711"))
    with pytest.raises(LeakageError, match="grouping"):
        SeenPatients.of(train).shared_with(test)
    assert SeenPatients.of(train).shared_with(replace(train)) == 1
    phantom = of_patients("phantom-1", key=FICTION)
    assert SeenPatients.of(phantom).shared_with(train) == 0
