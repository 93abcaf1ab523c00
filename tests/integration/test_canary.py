"""Names, ids, dates and UIDs of patients stand nowhere: not in a file, a log, an error, MLflow."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import canary
import pytest
from served import FolderModels, InProcess
from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.exporters.export import FORMATS, export
from fastgan_aug.data.importers.dicom import import_dicom
from fastgan_aug.data.importers.folder import import_folder
from fastgan_aug.data.importers.importing import Import
from fastgan_aug.data.importers.nifti import import_nifti
from fastgan_aug.data.importers.npz import import_npz
from fastgan_aug.data.pseudonyms import PseudonymKey
from fastgan_aug.data.withdrawal import without_patient
from fastgan_aug.errors import DataError, FastGANAugError
from fastgan_aug.gan.checkpoint import newest_checkpoint
from serving.client import Client
from serving.server.app import create_app

pytestmark = pytest.mark.integration

KEY = PseudonymKey(bytes(range(32)))
SHAPES = {"shape": ["disc", "ring"]}
CONFIG = """
name = "shapes"
[data]
test_fraction = 0.25
[network]
size = 32
latent = 8
embedding = 8
generator_width = 4
discriminator_width = 4
[training]
images = 32
batch = 8
log_every = 16
checkpoint_every = 32
[augment]
flip = { shape = ["disc"] }
[tracking]
experiment = "shapes"
"""


class Heard:
    """Everything that was said on the way, by whom."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def fails(self, what: Callable[[], Any]) -> None:
        """Runs what must raise one of this project's errors; keeps its whole traceback."""
        with pytest.raises(FastGANAugError) as caught:
            what()
        self.said.append(("traceback", "".join(traceback.format_exception(caught.value))))
        self.said.append(("error", repr(caught.value) + repr(caught.value.args)))

    def takes(self, name: str, found: Import, labelled: int) -> Dataset:
        """Keeps an import's report; some of it must have been refused."""
        self.said.append((f"{name} report", repr(found.items) + repr(found.warnings)))
        assert found.refused, name
        assert found.dataset is not None
        assert found.dataset.labelled.sum() == labelled, [i for i in found.items if i.refused]
        return found.dataset

    def command(self, *words: object) -> None:
        """Runs a command; it may fail in its own words."""
        result = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
        self.said.append((f"output of {words[:2]}", result.output))
        if result.exception is not None:
            chain = "".join(traceback.format_exception(result.exception))
            self.said.append((f"traceback of {words[:2]}", chain))
            assert isinstance(result.exception, FastGANAugError | SystemExit), chain


def planted(source: Path) -> dict[str, Path]:
    """Every format's files with a person in four copies: the CSVs, and the archive."""
    return {
        "dicom": canary.plant_dicom(source / "dicom"),
        "nifti": canary.plant_nifti(source / "nifti"),
        "folder": canary.plant_folder(source / "folder"),
        "npz": canary.plant_npz(source / "npz"),
    }


def imported(heard: Heard, paths: dict[str, Path]) -> dict[str, Dataset]:
    """Every format's import."""
    settings: dict[str, Any] = {"factors": ["shape"], "values": SHAPES, "size": 32, "key": KEY}
    by_visit = settings | {"scan_column": "visit"}
    dicom, nifti, folder = (paths[name] for name in ("dicom", "nifti", "folder"))
    found = {
        "dicom": import_dicom(dicom.parent, dicom, **settings),
        "nifti": import_nifti(nifti.parent, nifti, **by_visit),
        "folder": import_folder(folder.parent, folder, **by_visit, z_column="slice"),
        "npz": import_npz(paths["npz"], key=KEY),
    }
    return {name: heard.takes(name, found[name], 18 if name == "npz" else 12) for name in found}


def import_commands(heard: Heard, paths: dict[str, Path], out: Path) -> None:
    """The same imports as a user types them, dry and in earnest."""
    key = out.parent / "secret.key"
    key.write_text(KEY.secret.hex())
    for name, path in paths.items():
        words = ["data", "import", path if name == "npz" else path.parent, "--key", key]
        words += ["--factor", "shape=disc,ring", "--size", 32, "--format", name]
        words += {"npz": ["--no-patients"], "dicom": []}.get(name, ["--scan", "visit"])
        heard.command(*words, "--dry-run")
        heard.command(*words, "--out", out / f"typed-{name}.parquet")
        assert Dataset.read(out / f"typed-{name}.parquet").labelled.any(), heard.said[-1]


def bad_orders(heard: Heard, source: Path) -> None:
    """Errors of the whole import: each has a name within reach."""
    settings: dict[str, Any] = {"factors": ["shape"], "values": SHAPES, "key": KEY}
    person, root = source / canary.PERSON, source / "bad"
    root.mkdir()
    header, row = "file,slice,shape,patient_id\n", f"a,1,disc,{canary.IDS[0]}\n"
    files = {
        "empty.csv": b"",
        "latin.csv": header.encode() + f"{canary.SURNAME}\xfc,1,disc,1".encode("latin-1"),
        "headless.csv": f"{canary.SURNAME}.dcm,1,disc,{canary.IDS[0]}\n".encode() * 2,
        "other.csv": f"{canary.SURNAME},{canary.IDS[0]}\n1,2\n".encode(),
        "value.csv": f"{header}a,1,{canary.SURNAME},{canary.IDS[0]}\n".encode(),
        "comma.csv": f"{header}a,1,{canary.SURNAME}, {canary.GIVEN},disc\n".encode(),
        "columns.csv": f"{canary.SURNAME},shape,{canary.SURNAME}\n1,2,3\n".encode(),
        "twice.csv": f"{header}{row}{row}".encode(),
        "nobody.csv": f"{header}{canary.SURNAME},1,disc,\n".encode(),
    }
    for name, content in files.items():
        (root / name).write_bytes(content)
        for read in (import_dicom, import_nifti, import_folder):
            heard.fails(lambda read=read, name=name: read(root, root / name, **settings))
    for read in (import_dicom, import_nifti, import_folder):
        heard.fails(lambda read=read: read(person, person / f"{canary.SURNAME}.csv", **settings))
    heard.fails(lambda: import_npz(person / f"{canary.SURNAME}.npz"))
    (source / f"{canary.SURNAME}.key").write_text(canary.IDS[0])
    heard.fails(lambda: PseudonymKey.read(source / f"{canary.SURNAME}.key"))


def test_nothing_of_a_patient_stands_anywhere(
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    words, heard = canary.needles(), Heard()
    for text in (f"a {canary.SURNAME}", canary.IDS[0], f"/{canary.UID}.1"):
        for form in (text.encode(), text.encode("utf-16-le"), base64.b64encode(text.encode())):
            assert canary.search(b"some" + form + b"more", words), "it can be found"

    paths = planted(source)
    capfd.readouterr()
    caplog.set_level(logging.DEBUG)
    datasets = imported(heard, paths)
    import_commands(heard, paths, out)
    bad_orders(heard, source)
    for name, dataset in datasets.items():
        path = out / f"{name}.parquet"
        dataset.write(path)
        heard.command("data", "validate", path)
        heard.command("data", "describe", path)
        for file_format in FORMATS:
            heard.fails(lambda d=dataset, f=file_format: export(d, out / "real", f))
    (out / "shapes.toml").write_text(CONFIG)
    heard.command(
        *("train", "--config", out / "shapes.toml", "--data", out / "dicom.parquet"),
        *("--engine", "local", "--out", out / "run"),
        *("--tracking-uri", f"sqlite:///{out / 'mlflow.db'}"),
    )
    checkpoint = newest_checkpoint(out / "run")
    assert checkpoint is not None, heard.said[-2:]
    heard.command("register", checkpoint)
    with Client("http://x", transport=InProcess(create_app(FolderModels(checkpoint)))) as client:
        made = client.request_balanced_batch({"disc": 3, "ring": 1}, target=5)
    for file_format in FORMATS:
        export(made.to_dataset(), out / f"made-{file_format}", file_format)
    somebody = datasets["dicom"].patients[0]
    heard.command(
        *("data", "withdraw", somebody, "--data", out / "dicom.parquet"),
        *("--tracking-uri", f"sqlite:///{out / 'mlflow.db'}"),
    )
    assert "of 1 versions saw the patient" in heard.said[-1][1]
    assert sum("cells, the header" in said for _, said in heard.said) >= 3, "a comma in a name"

    heard.said.append(("log", caplog.text))
    heard.said += zip(("stdout", "stderr"), capfd.readouterr(), strict=True)
    places = [(name, text.encode()) for name, text in heard.said] + list(canary.contents(out))
    assert len(places) > 100
    assert KEY.secret.hex().encode() not in b"".join(content for _, content in places)
    leaks = {name: told for name, content in places if (told := canary.search(content, words))}
    assert not leaks


def test_the_same_person_is_one_in_every_format(tmp_path: Path) -> None:
    datasets = imported(Heard(), planted(tmp_path))
    assert datasets["nifti"].patients == datasets["folder"].patients
    assert len(datasets["dicom"].patients) == 4
    assert {d.meta.pseudonym_key for d in datasets.values()} == {KEY.id}
    with pytest.raises(DataError, match="no patient") as caught:
        without_patient(datasets["nifti"], canary.IDS[0])
    assert canary.IDS[0] not in str(caught.value)
