"""Canaries: words that stand in headers, file names and labels, and may stand nowhere after."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
from clinical import truth, write_nm
from clinical import write_nifti as write_volume
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset as Header
from pydicom.sequence import Sequence

SURNAME, GIVEN, PHYSICIAN = "Quetzalcoatlus", "Xochitlipilli", "Wurzelpeterle"
CLINIC, REMARK = "Zwirbelbach-Klinik", "Fliederbuschneffe"
IDS = ("HOSP77314471", "HOSP77314472", "HOSP77314473", "HOSP77314474")
ISSUER = "ISS-88104-Q"
BIRTH, BORN, STUDY = "19430917", "1943-09-17", "20110326"
ACCESSION, UID = "ACC5512098771", "1.2.826.0.1.3680043.9.77731.4471"
WORDS = (
    SURNAME, GIVEN, PHYSICIAN, CLINIC, REMARK, *IDS, ISSUER, BIRTH, BORN, STUDY, ACCESSION, UID,
)  # fmt: skip
PERSON = f"{SURNAME}_{GIVEN}_{BORN}"  # as in the names of files and folders


def needles() -> dict[bytes, str]:
    """What may stand nowhere, and which word it tells of; texts in small letters."""
    found: dict[bytes, str] = {}
    for word in WORDS:
        plain = word.encode()
        for name, form in (
            ("utf-8", plain), ("utf-16", word.encode("utf-16-le")),
            *((h, hashlib.new(h, plain).hexdigest().encode()) for h in ("sha256", "sha1", "md5")),
        ):  # fmt: skip
            found[form.lower()] = f"{word} as {name}"
        for before in range(3):  # bytes of the longer text in which it may stand
            coded = base64.b64encode(bytes(before) + plain)
            # Only the characters that no byte beside the word has a part in.
            whole = coded[-(-before * 8 // 6) : (before + len(plain)) * 8 // 6]
            found[whole] = f"{word} as base64"
    return found


# -- planting --------------------------------------------------------------------------------------


def plant(header: Header, number: int) -> None:
    """Fills a DICOM header with a person: elements, nested sequences, private ones, comments."""
    header.PatientName, header.PatientID = f"{SURNAME}^{GIVEN}", IDS[number]
    header.OtherPatientIDs = IDS[number]
    header.IssuerOfPatientID = ISSUER
    header.PatientBirthDate, header.StudyDate, header.SeriesDate = BIRTH, STUDY, STUDY
    header.AcquisitionDateTime = f"{STUDY}101500"
    header.AccessionNumber, header.StudyID = ACCESSION, ACCESSION
    header.StudyInstanceUID = f"{UID}.1.{number}"
    header.SeriesInstanceUID, header.FrameOfReferenceUID = f"{UID}.2.{number}", f"{UID}.3"
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"{UID}.4.{number}"
    header.ReferringPhysicianName = header.OperatorsName = PHYSICIAN
    header.InstitutionName = header.StationName = CLINIC[:16]
    header.StudyDescription = header.ImageComments = f"{REMARK} {SURNAME}"
    header.PatientComments = f"{GIVEN} {BORN}"
    request = Header()
    request.AccessionNumber, request.RequestedProcedureID = ACCESSION, IDS[number]
    request.ReferencedPatientSequence = Sequence([Header()])
    request.ReferencedPatientSequence[0].ReferencedSOPInstanceUID = f"{UID}.5"
    request.ReferencedPatientSequence[0].PatientName = f"{SURNAME}^{GIVEN}"
    header.RequestAttributesSequence = Sequence([request])
    block = header.private_block(0x0011, f"{CLINIC} 1.0", create=True)
    block.add_new(0x01, "PN", f"{SURNAME}^{GIVEN}")
    block.add_new(0x02, "UN", f"{IDS[number]} {BIRTH}".encode())
    header.add_new(0x60004000, "LT", f"{SURNAME} {BIRTH}")  # Overlay Comments


def counts_of(number: int) -> np.ndarray[Any, Any]:
    """(6, 16, 16) counts of one of the people: nobody's are another's copy."""
    random = np.random.default_rng(number)
    return (truth() + random.integers(0, 4000, truth().shape)).astype(np.uint16)


def plant_dicom(root: Path) -> Path:
    """Four good files, bad ones of every kind, and a CSV; names everywhere."""
    lines = ["file,slice,shape,comment"]
    for i in range(4):
        path = root / PERSON / f"{IDS[i]}.dcm"
        write_planted(path, i)
        name = path.relative_to(root)
        lines += [f"{name},{k},{'disc' if (i + k) % 2 else 'ring'},{REMARK}" for k in (1, 2, 4)]
    write_planted(root / PERSON / "burned.dcm", 0, BurnedInAnnotation="YES")
    write_planted(root / PERSON / "raw.dcm", 1, ImageType=["ORIGINAL", "PRIMARY", "TOMO"])
    whole = (root / PERSON / f"{IDS[0]}.dcm").read_bytes()
    (root / PERSON / "cut.dcm").write_bytes(whole[:-3000])
    (root / PERSON / "head.dcm").write_bytes(whole[:400])
    (root / f"{SURNAME}.txt").write_text(f"{SURNAME} {IDS[0]}")
    lines += [f"{PERSON}/{bad}.dcm,1,disc,{REMARK}" for bad in ("burned", "raw", "cut", "head")]
    lines += [f"{PERSON}/{IDS[0]}.dcm,{SURNAME},disc,", f"{SURNAME}/missing.dcm,1,ring,{IDS[3]}"]
    lines.append(f"{PERSON}/{IDS[1]}.dcm,3,{SURNAME}, {GIVEN},disc")  # a comma without quotes
    return _csv(root, lines)


def write_planted(path: Path, number: int, **changes: Any) -> None:
    """A tomogram of the asymmetric volume with a person in its header."""
    import pydicom

    write_nm(path, **changes)
    header = pydicom.dcmread(path)
    plant(header, number)
    header.PixelData = counts_of(number).tobytes()
    header.save_as(path, enforce_file_format=True)


def plant_nifti(root: Path) -> Path:
    """Four good volumes, bad ones, and a CSV."""
    lines = ["file,slice,shape,patient_id,visit,comment"]
    for i in range(4):
        path = root / PERSON / f"{IDS[i]}.nii{'.gz' if i % 2 else ''}"
        write_volume(path)
        loaded = nibabel.load(path)
        voxels = counts_of(i).transpose(2, 1, 0)
        image = nibabel.Nifti1Image(voxels, loaded.affine, loaded.header)
        image.header["descrip"] = f"{SURNAME} {IDS[i]} {BORN}".encode()[:79]
        image.header["aux_file"] = SURNAME.encode()
        image.header["intent_name"] = GIVEN.encode()
        note = nibabel.nifti1.Nifti1Extension("comment", f"{SURNAME} {ACCESSION} {UID}".encode())
        image.header.extensions.append(note)
        nibabel.save(image, path)
        name = path.relative_to(root)
        lines += [
            f"{name},{k},{'disc' if (i + k) % 2 else 'ring'},{IDS[i]},{STUDY},{REMARK}"
            for k in (1, 2, 4)
        ]
    whole = (root / PERSON / f"{IDS[0]}.nii").read_bytes()
    (root / PERSON / "cut.nii").write_bytes(whole[:-500])
    (root / PERSON / "text.nii").write_text(f"{SURNAME} {IDS[0]}")
    lines += [f"{PERSON}/{bad}.nii,1,disc,{IDS[0]},{STUDY}," for bad in ("cut", "text", "missing")]
    lines.append(f"{PERSON}/{IDS[1]}.nii.gz,3,{SURNAME}, {GIVEN},disc,{IDS[1]},{STUDY}")
    return _csv(root, [*lines, f"{PERSON}/{IDS[2]}.nii,{SURNAME},disc,{IDS[2]},{STUDY},"])


def plant_folder(root: Path) -> Path:
    """PNG and TIFF with text of every kind, bad ones, and a CSV."""
    lines = ["file,slice,shape,patient_id,visit,comment"]
    (root / "images" / PERSON).mkdir(parents=True)
    for i in range(12):
        name = f"{PERSON}/{IDS[i % 4]}-{i}.{'tif' if i % 3 == 2 else 'png'}"
        picture = Image.fromarray(counts_of(i)[i % 6])
        if name.endswith("png"):
            told = PngInfo()
            told.add_text("Description", f"{SURNAME} {IDS[0]} {BORN}")
            told.add_text("Comment", f"{GIVEN} {ACCESSION}" * 20, zip=True)
            told.add_itxt("Author", PHYSICIAN, zip=True)
            picture.save(root / "images" / name, pnginfo=told)
        else:
            words = {270: f"{SURNAME} {IDS[1]}", 315: PHYSICIAN, 306: STUDY}
            picture.save(root / "images" / name, tiffinfo=words)
        shape = "disc" if i % 2 else "ring"
        lines.append(f"{name},{i // 4},{shape},{IDS[i % 4]},{STUDY},{REMARK}")
    whole = (root / "images" / PERSON / f"{IDS[0]}-0.png").read_bytes()
    (root / "images" / PERSON / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "images" / PERSON / "text.tif").write_text(f"{SURNAME} {IDS[0]}")
    Image.new("RGB", (16, 16)).save(root / "images" / PERSON / "colour.png")
    bad = ("cut.png", "text.tif", "colour.png", "missing.png", f"{SURNAME}.xyz")
    lines += [f"{PERSON}/{name},1,disc,{IDS[0]},{STUDY},{REMARK}" for name in bad]
    lines.append(f"{PERSON}/{IDS[0]}-0.png{SURNAME},{SURNAME},disc,,{STUDY},{REMARK}")
    lines.append(f"{PERSON}/comma.png,1,{SURNAME}, {GIVEN},disc,{IDS[0]},{STUDY}")
    return _csv(root, lines)


def plant_npz(root: Path) -> Path:
    """An archive with a foreign array and a bad one."""
    path = root / f"{PERSON}.npz"
    root.mkdir(parents=True, exist_ok=True)
    images = np.concatenate([counts_of(i) // 40 for i in range(3)]).astype(np.uint8)
    np.savez(
        path,
        train_images=images,
        train_labels=np.arange(18) % 2,
        val_images=np.asarray([SURNAME]),
        val_labels=np.asarray([0]),
        **{SURNAME: np.asarray([IDS[0]])},
    )
    return path


def _csv(root: Path, lines: list[str]) -> Path:
    path = root / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# -- searching -------------------------------------------------------------------------------------


def search(content: bytes, words: dict[bytes, str]) -> list[str]:
    """The canaries in some bytes."""
    small = content.lower()
    return sorted({told for needle, told in words.items() if needle in small or needle in content})


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Name, raw bytes and decoded content of every file below ``root``."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        yield f"{path} (name)", str(path.relative_to(root)).encode()
        raw = path.read_bytes()
        yield str(path), raw
        for kind, decoded in _decoded(path, raw):
            yield f"{path} ({kind})", decoded


def _decoded(path: Path, raw: bytes) -> Iterator[tuple[str, bytes]]:
    if raw.startswith(b"PAR1"):
        table = pq.read_table(path)
        yield "metadata", repr(table.schema.metadata).encode() + repr(pq.read_schema(path)).encode()
        texts = [c for c in table.column_names if "list" not in str(table.schema.field(c).type)]
        yield "columns", repr(table.select(texts).to_pydict()).encode()
    elif raw.startswith(b"SQLite format 3"):
        with sqlite3.connect(path) as database:
            yield "dump", "\n".join(database.iterdump()).encode()
    elif raw.startswith(b"\x1f\x8b"):
        yield "decompressed", gzip.decompress(raw)
    elif raw.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                yield name, name.encode() + archive.read(name)
    elif raw.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(raw)) as picture:
            yield "text", repr(picture.info).encode()
