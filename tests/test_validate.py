from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.schema import RADIOLOGICAL, DatasetMeta
from fastgan_aug.data.validation.finding import SEVERITIES, Finding
from fastgan_aug.data.validation.validate import check_valid, validate
from fastgan_aug.errors import InvalidDataset

SIZE, PATIENTS, SLICES = 32, 12, 4
SPACE = ConditionSpace.of({"kind": ["round", "long"]})


def slice_of(patient: int, place: int) -> np.ndarray:
    """A lopsided blob with texture of the patient's own, changing slowly along the body."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    wide, tall = (8, 10) if patient % 2 else (10, 8)
    body = 1 / (1 + np.exp(3 * (np.hypot(x / wide, y / tall) - 1) * 8))
    waves = np.random.default_rng(patient).uniform(0, 2 * np.pi, 6)
    texture = sum(
        np.sin(x * np.cos(w) * 0.9 + y * np.sin(w) * 0.9 + w + 0.3 * place) for w in waves
    )
    image = body * (1 + 0.15 * texture)
    return (image / image.max()).astype(np.float32)


def make(**changes: Any) -> Dataset:
    """A sound data set, two kinds, each with half the patients; columns can be replaced."""
    rows = [(p, s) for p in range(PATIENTS) for s in range(SLICES)]
    columns: dict[str, Any] = {
        "images": np.stack([slice_of(*row) for row in rows]),
        "labels": {"kind": [SPACE.factors[0].values[p % 2] for p, _ in rows]},
        "patient_id": [f"p{p}" for p, _ in rows],
        "scan_id": [f"p{p}/1" for p, _ in rows],
        "z": [float(s) for _, s in rows],
        "scale": np.linspace(50, 90, len(rows)).tolist(),
    }
    meta = changes.pop("meta", {})
    facts = {"laterality": RADIOLOGICAL, "pseudonym_key": "Kabc"} | meta
    return Dataset.build(DatasetMeta(SPACE, SIZE, "test", **facts), **columns | changes)


def columns() -> dict[str, Any]:
    """The columns of the sound data set, to be changed."""
    dataset = make()
    names = ("patient_id", "scan_id", "z", "scale")
    plain: dict[str, Any] = {name: dataset.column(name).tolist() for name in names}
    return plain | {
        "images": dataset.images.copy(),
        "labels": {"kind": dataset.column("kind").tolist()},
    }


def codes(findings: Sequence[Finding]) -> dict[str, str]:
    return {f.code: f.severity for f in findings}


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_sound_data_set_has_no_findings():
    assert validate(make()) == []
    assert check_valid(make()) == []


def test_the_toy_set_and_the_phantom_can_be_fitted(toy: Dataset, small_phantom: Dataset):
    assert "error" not in codes(check_valid(toy)).values()
    found = codes(check_valid(small_phantom))
    assert found["cell-thin"] == "warning"
    assert found["cell-empty"] == "note"


def test_constant_images_are_errors():
    c = columns()
    c["images"][[3, 7]] = [[[0.0]], [[1.0]]]
    found = only([f for f in validate(make(**c)) if f.severity == "error"])
    assert (found.code, found.where) == ("image-constant", "rows 3, 7")


def planted(change: Any, row: int = 0, to: int = 20) -> Dataset:
    """The data set whose row ``to`` is a changed copy of ``row``."""
    c = columns()
    c["images"][to] = change(c["images"][row])
    return make(**c)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: np.round(x * 127) / 255,
        lambda x: np.roll(x, (1, -2), (0, 1)),
        lambda x: x[:, ::-1],
    ],
)
def test_the_same_slice_under_two_patients_is_an_error(change: Any):
    # Patients 0 and 6 are of one kind.
    found = [f for f in validate(planted(change, 0, 6 * SLICES)) if f.severity == "error"]
    assert only(found).code == "copy-across-patients"
    assert only(found).where == "row 0 and row 24"


def test_one_image_with_two_labels_is_an_error():
    found = codes(validate(planted(lambda x: x, 0, 1 * SLICES)))
    assert found["copy-two-labels"] == "error"
    c = columns()
    c["labels"]["kind"][1] = "long"
    c["images"][1] = c["images"][0]
    assert codes(validate(make(**c)))["copy-two-labels"] == "error"


def test_copies_within_a_patient_are_warnings():
    c = columns()
    c["scan_id"][2:4] = ["p0/2"] * 2
    c["images"][2] = np.round(c["images"][0] * 255) / 255
    assert codes(validate(make(**c)))["copy-in-scans"] == "warning"
    c = columns()
    c["images"][1] = c["images"][0]
    assert codes(validate(make(**c)))["copy-in-scan"] == "warning"


def test_without_patients_copies_are_warnings():
    c = columns()
    c["images"][8] = c["images"][0]
    c["patient_id"] = c["scan_id"] = [f"r{i}" for i in range(len(c["z"]))]
    found = codes(validate(make(meta={"grouping": "none"}, **c)))
    assert "error" not in found.values()
    assert {"no-patients", "copy-without-patients", "no-neighbours"} <= set(found)


def test_thin_cells_and_few_patients():
    dataset = make()
    few = dataset.of_patients(["p0", "p2", "p4", "p6", "p8", "p1"])
    found = {f.code: f for f in validate(few)}
    assert found["cell-thin"].what == "4 slices in long: too few to learn from."
    assert found["cell-one-patient"].where == "long"
    assert "long 1." in found["class-few-patients"].what
    assert {f.severity for f in found.values()} == {"warning"}
    none = codes(validate(dataset.of_patients([f"p{p}" for p in range(0, 12, 2)])))
    assert none == {"cell-empty": "note"}


def test_no_labels_is_an_error():
    c = columns() | {"labels": {"kind": [None] * PATIENTS * SLICES}}
    assert codes(validate(make(**c)))["no-labels"] == "error"


def test_one_patient_who_outweighs_a_cell_is_noted():
    dataset = make()
    kept = dataset.column("patient_id") != "p0"
    kept[:SLICES] = True
    many = dataset.take(np.concatenate([np.flatnonzero(kept), np.zeros(0, int)]))
    c = columns()
    c["patient_id"] = ["p0" if p % 2 == 0 and p < 8 else f"p{p}" for p in np.repeat(range(12), 4)]
    assert codes(validate(make(**c)))["patient-heavy"] == "note"
    assert validate(many) == []


def test_clipped_cut_and_unnormalised_images_are_warned_of():
    c = columns()
    c["images"][0] = np.minimum(c["images"][0], 0.8) / 0.8
    c["images"][4] = np.roll(c["images"][4], 8, axis=1)
    c["images"][9] *= 0.7
    found = {f.code: f.where for f in validate(make(**c))}
    assert found["image-clipped"] == "row 0"
    assert found["image-cut"] == "row 4"
    assert found["image-not-normalised"] == "row 9"


def test_a_mirrored_slice_in_a_scan_is_warned_of():
    for row in (0, 5, 7):
        c = columns()
        c["images"][row] = c["images"][row][:, ::-1]
        found = only(validate(make(**c)))
        assert (found.code, found.where) == ("slice-mirrored", f"row {row}")
    whole = columns()
    whole["images"] = whole["images"][:, :, ::-1]
    assert validate(make(**whole)) == []


@pytest.mark.parametrize(
    ("meta", "changes", "code"),
    [
        ({"laterality": "unverified"}, {}, "laterality-unverified"),
        ({"pseudonym_key": "unkeyed"}, {}, "ids-as-given"),
        ({"extra": {"eight_bit": 3}}, {}, "eight-bit"),
        ({}, {"scale": [0.0] + [1.0] * 47}, "scale-invalid"),
        ({}, {"scale": [float("nan")] * 48}, "scale-invalid"),
        ({}, {"scale": [1.0] * 48}, "scale-lost"),
        ({}, {"z": [0.0] * 48}, "no-neighbours"),
        ({}, {"z": [0.0, 1.0, 2.0, 9.0] * 12}, "some-without-neighbour"),
        ({}, {"synthetic": [True] + [False] * 47}, "synthetic-rows"),
    ],
)
def test_facts(meta: dict[str, Any], changes: dict[str, Any], code: str):
    found = only(validate(make(meta=meta, **changes)))
    assert found.code == code
    assert found.severity != "error"


def test_one_place_with_two_labels():
    c = columns()
    c["z"][1] = c["z"][0]
    c["labels"]["kind"][1] = "long"
    assert codes(validate(make(**c)))["place-two-labels"] == "warning"


def test_a_given_split_with_a_patient_on_both_sides_is_an_error():
    split = ["train"] * 46 + ["test"] * 2
    found = validate(make(extra={"given_split": pa.array(split)}))
    assert only(found).code == "patient-on-both-sides"
    assert only(found).severity == "error"
    clean = ["train"] * 44 + ["test"] * 4
    assert validate(make(extra={"given_split": pa.array(clean)})) == []


def test_two_sides_share_no_patient_and_no_slice():
    dataset = make()
    train = dataset.of_patients([f"p{p}" for p in range(6)])
    test = dataset.of_patients([f"p{p}" for p in range(6, 12)])
    assert "error" not in codes(validate(train, test)).values()
    both = codes(validate(train, train))
    assert both["patient-on-both-sides"] == both["copy-on-both-sides"] == "error"
    renamed = test.meta.__dict__ | {"pseudonym_key": "Kother"}
    assert codes(validate(train, Dataset(test.table, DatasetMeta(**renamed))))["keys-differ"]
    small = replace(test.meta, size=16)
    other = Dataset.build(
        small, images=np.ascontiguousarray(test.images[:, ::2, ::2]),
        labels={"kind": test.column("kind").tolist()},
        patient_id=test.column("patient_id").tolist(),
        scan_id=test.column("scan_id").tolist(), z=test.column("z").tolist(),
        scale=test.column("scale").tolist(),
    )  # fmt: skip
    assert codes(validate(train, other))["sizes-differ"] == "error"


def test_errors_are_refused_and_all_named():
    with pytest.raises(InvalidDataset, match="row 0 and row 24") as raised:
        check_valid(planted(lambda x: x, 0, 24))
    assert "data validate" in raised.value.do
    assert validate(planted(lambda x: x, 0, 24)) == validate(planted(lambda x: x, 0, 24))


def test_findings_are_sorted_and_name_nobody():
    c = columns()
    c["images"][3] = 0
    c["scale"] = [1.0] * 48
    findings = validate(make(meta={"laterality": "unverified"}, **c))
    order = [SEVERITIES.index(f.severity) for f in findings]
    assert order == sorted(order)
    assert len(set(order)) == 3
    text = " ".join(f"{f.where} {f.what} {f.advice}" for f in findings)
    assert "p0" not in text
    assert all(f.what.endswith(".") and f.advice for f in findings)


def test_an_empty_data_set_is_refused():
    with pytest.raises(InvalidDataset):
        check_valid(make().take(np.zeros(0, np.int64)))
