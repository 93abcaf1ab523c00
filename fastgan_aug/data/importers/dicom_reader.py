"""The process that parses DICOM: limited in memory and time, and silent about people.

``dicom_worker`` starts it and asks for one file after the other. A request is a line of JSON
(``path``, ``pixels``); the answer is a line of JSON, and after it the voxels as float32 where they
were asked for. Of the header leaves what ``describe`` lists, or the reason of a refusal in words
of this module. Identifiers leave because slices are grouped by them, and for nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MEMORY_BYTES = 2 * 2**30
CPU_SECONDS = 30
MAX_VOXELS = 512**3  # as in ``volumes``, whose own imports this process does without
IDENTIFIABLE = "identifiable"

# The elements that are read at all; everything else is skipped by the parser.
TAGS = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "ConversionType", "SyntheticData",
    "PatientID", "IssuerOfPatientID", "SeriesInstanceUID", "SeriesType", "Units",
    "BurnedInAnnotation", "RecognizableVisualFeatures", "LossyImageCompression",
    "SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient",
    "PatientOrientation", "DetectorInformationSequence", "SliceVector", "FrameIncrementPointer",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleIntercept", "RescaleSlope",
)  # fmt: skip
_PIXELS = ("PixelData",)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_SLICE_VECTOR = 0x00540080
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99",
          "1.2.840.10008.1.2.2")  # fmt: skip
_RLE = "1.2.840.10008.1.2.5"
_LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81",
          "1.2.840.10008.1.2.4.91")  # fmt: skip
_NOT_RECONSTRUCTED = {
    "TOMO": "it holds raw projections, not reconstructed slices",
    "GATED TOMO": "it holds raw gated projections, not reconstructed slices",
    "RECON GATED TOMO": "it is gated: one slice has several phases",
    "GATED": "it is a gated planar study, not a tomogram",
    "DYNAMIC": "it is dynamic: one view has several times",
    "STATIC": "it is a planar image, not a tomogram",
    "WHOLE BODY": "it is a planar whole-body image, not a tomogram",
}
_UNITS = {"": "counts", "CNTS": "counts", "BQML": "Bq/ml", "CPS": "counts/s", "GML": "g/ml",
          "PROPCNTS": "counts", "PROPCPS": "counts/s"}  # fmt: skip


class Refused(Exception):
    """A file that is not taken, and why; ``identifiable`` where it could tell who it shows."""

    def __init__(self, why: str, *, identifiable: bool = False) -> None:
        self.why, self.identifiable = why, identifiable
        super().__init__(why)


def main() -> None:
    """Answers requests until the other side closes the pipe."""
    import pydicom.pixels.decoders  # noqa: F401 before the limits: no byte code is written later

    _limit()
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "w") as nowhere:  # what a library may print must not reach the pipe
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_time()
        try:
            fields, voxels = read(Path(request["path"]), pixels=bool(request["pixels"]))
            _answer(answers, fields, voxels)
        except Refused as refusal:
            kind = IDENTIFIABLE if refusal.identifiable else "data"
            _answer(answers, {"refused": refusal.why, "kind": kind}, None)


def _answer(
    stream: IO[bytes], fields: Mapping[str, Any], voxels: NDArray[np.float32] | None
) -> None:
    size = 0 if voxels is None else voxels.nbytes
    stream.write(json.dumps(dict(fields) | {"bytes": size}).encode() + b"\n")
    if voxels is not None:
        stream.write(voxels.data)
    stream.flush()


def _limit() -> None:
    import resource

    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),  # a core dump would hold the file
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        with contextlib.suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(what, (limit, limit))


def _limit_time() -> None:
    """Gives the next file its own processor time; the kernel ends the process after that."""
    import resource

    limit = int(time.process_time()) + CPU_SECONDS
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def read(
    source: Path | IO[bytes], *, pixels: bool
) -> tuple[dict[str, Any], NDArray[np.float32] | None]:
    """Reads one file.

    Args:
        source: The file, or its path.
        pixels: Whether its pixels are wanted.

    Returns:
        What ``describe`` lists, and the stored values, (frames, rows, columns) float32, where
        ``pixels`` are wanted.

    Raises:
        Refused: it is no image that can be taken; the reason quotes nothing of the header.
    """
    from pydicom import config, dcmread
    from pydicom.errors import InvalidDicomError

    config.settings.reading_validation_mode = config.IGNORE
    wanted = [*TAGS, *_PIXELS] if pixels else list(TAGS)
    try:
        dataset = dcmread(source, stop_before_pixels=not pixels, specific_tags=wanted)
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
        fields = describe(dataset, syntax)
        return fields, _voxels(dataset, fields, syntax) if pixels else None
    except Refused:
        raise
    except InvalidDicomError:
        raise Refused("it is no DICOM file") from None
    except MemoryError:
        raise Refused("it needs more memory than its reader may take") from None
    except OSError:
        raise Refused("it cannot be opened") from None
    except Exception as error:  # pydicom raises nearly anything on damaged files
        raise Refused(f"it is damaged ({type(error).__name__})") from None


def describe(dataset: Any, syntax: str) -> dict[str, Any]:
    """The allow-list: all that is ever told of a header.

    Args:
        dataset: pydicom's.
        syntax: UID of the transfer syntax.

    Raises:
        Refused: it is not a tomographic grey image of a readable kind, or it could be identified.
    """
    if "Rows" not in dataset or "Columns" not in dataset:
        raise Refused("it holds no image")
    capture = _check_identity(dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not capture:
        _check_kind(dataset, frames)
    elif frames > 1:
        raise Refused("it is a secondary capture of several frames")
    _check_storage(dataset, syntax)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if min(rows, columns, frames) < 1 or rows * columns * frames > MAX_VOXELS:
        raise Refused(f"its header declares {frames} frames of {rows} x {columns} pixels")
    orientation, position = _captured(dataset) if capture else _geometry(dataset)
    return {
        "patient": _text(dataset, "PatientID"),
        "issuer": _text(dataset, "IssuerOfPatientID"),
        "series": _text(dataset, "SeriesInstanceUID"),
        "instance": _text(dataset, "SOPInstanceUID"),
        "capture": capture,
        "frames": frames,
        "rows": rows,
        "columns": columns,
        "orientation": orientation,
        "position": position,
        "spacing": _numbers(dataset, "PixelSpacing", 2),
        "between": next(iter(_numbers(dataset, "SpacingBetweenSlices", 1) or []), None),
        "places": _places(dataset, frames),
        "slope": (_numbers(dataset, "RescaleSlope", 1) or [1.0])[0],
        "intercept": (_numbers(dataset, "RescaleIntercept", 1) or [0.0])[0],
        "unit": _UNITS.get(_text(dataset, "Units").upper(), "other"),
        "synthetic": _text(dataset, "SyntheticData").upper() == "YES",
        "eight_bit": int(dataset.get("BitsStored") or 16) <= 8,
        "lossy": _text(dataset, "LossyImageCompression") == "01",
    }


def _check_identity(dataset: Any) -> bool:
    """Whether it is a secondary capture of nobody: marked synthetic, and told free of text."""
    if _text(dataset, "BurnedInAnnotation").upper() == "YES":
        raise Refused("text is burned into its pixels", identifiable=True)
    if _text(dataset, "RecognizableVisualFeatures").upper() == "YES":
        raise Refused("it shows features that a person can be recognised by", identifiable=True)
    capture = _text(dataset, "SOPClassUID").startswith(_SECONDARY_CAPTURE)
    if not (capture or "ConversionType" in dataset):
        return False
    synthetic = _text(dataset, "SyntheticData").upper() == "YES"
    if not (synthetic and _text(dataset, "BurnedInAnnotation").upper() == "NO"):
        raise Refused("it is a secondary capture: names may be in its pixels", identifiable=True)
    return True


def _check_storage(dataset: Any, syntax: str) -> None:
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise Refused("it is a colour image: colours are no counts")
    photometric = _text(dataset, "PhotometricInterpretation").upper()
    if photometric == "MONOCHROME1":
        raise Refused("its grey values are inverted (MONOCHROME1)")
    if photometric != "MONOCHROME2":
        raise Refused("its pixels are no grey values (colour or palette)")
    if int(dataset.get("BitsAllocated") or 0) not in (8, 16, 32):
        raise Refused("its pixels are not of 8, 16 or 32 bits")
    if syntax in _LOSSY:
        raise Refused("its compression is lossy: counts are no longer what was measured")
    if syntax not in (*_PLAIN, _RLE):
        raise Refused("its compression cannot be decoded here; store it uncompressed first")


def _check_kind(dataset: Any, frames: int) -> None:
    """Refuses all but reconstructed slices."""
    modality = _text(dataset, "Modality").upper()
    kinds = [str(value).strip().upper() for value in _values(dataset, "ImageType")]
    if modality == "NM":
        kind = kinds[2] if len(kinds) > 2 else ""
        if kind != "RECON TOMO":
            raise Refused(_NOT_RECONSTRUCTED.get(kind, "it does not say what kind of image it is"))
        if "TRANSMISSION" in kinds:
            raise Refused("it is a transmission image, not one of the tracer")
    elif modality not in ("PT", "CT", "MR"):
        raise Refused("its modality is none of NM, PT, CT and MR")
    elif frames > 1:
        raise Refused("it is an enhanced multi-frame image; store one file a slice first")
    elif "LOCALIZER" in kinds:
        raise Refused("it is a localiser, not a slice")
    series = [str(value).strip().upper() for value in _values(dataset, "SeriesType")]
    if {"GATED", "DYNAMIC"} & set(series):
        raise Refused("it is gated or dynamic: one slice has several phases or times")


def _geometry(dataset: Any) -> tuple[list[float], list[float] | None]:
    """Orientation and position, of the image itself or of its detectors (NM)."""
    detectors = list(dataset.get("DetectorInformationSequence") or [])
    found = [_numbers(item, "ImageOrientationPatient", 6) for item in [dataset, *detectors]]
    orientations = [value for value in found if value is not None]
    if not orientations:
        raise Refused("its header gives no orientation")
    if any(np.abs(np.subtract(value, orientations[0])).max() > 1e-3 for value in orientations):
        raise Refused("its header gives several orientations")
    places = [_numbers(item, "ImagePositionPatient", 3) for item in [dataset, *detectors]]
    return orientations[0], next((place for place in places if place is not None), None)


def _captured(dataset: Any) -> tuple[list[float] | None, None]:
    """Orientation of a secondary capture, which has no position; None where it is untold."""
    told = [str(value).strip().upper() for value in _values(dataset, "PatientOrientation")]
    if told == ["L", "P"]:
        return [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], None
    if any(told):
        raise Refused("its rows do not run to the left and its columns to the back")
    return None, None


def _places(dataset: Any, frames: int) -> list[int] | None:
    """The slice each frame shows, from 1; None where the frames are in order."""
    pointers = _values(dataset, "FrameIncrementPointer")
    if frames > 1 and pointers and _SLICE_VECTOR not in [int(tag) for tag in pointers]:
        raise Refused("its frames do not follow each other by slice")
    places = [int(value) for value in _values(dataset, "SliceVector")]
    if frames == 1 or not places:
        return None
    if sorted(places) != list(range(1, frames + 1)):
        raise Refused("its SliceVector does not name each slice once")
    return places


def _text(dataset: Any, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip(" \0")


def _values(dataset: Any, name: str) -> list[Any]:
    value = dataset.get(name)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _numbers(dataset: Any, name: str, count: int) -> list[float] | None:
    """``count`` finite numbers; None where there is nothing."""
    values = [float(value) for value in _values(dataset, name)]
    if not values:
        return None
    if len(values) != count or not np.isfinite(values).all():
        raise Refused(f"its {name} is not {count} finite numbers")
    return values


def _voxels(dataset: Any, fields: Mapping[str, Any], syntax: str) -> NDArray[np.float32]:
    """The stored values, (frames, rows, columns) float32."""
    from pydicom.pixels import iter_pixels

    if "PixelData" not in dataset:
        raise Refused("it holds no pixels of whole numbers")
    shape = fields["frames"], fields["rows"], fields["columns"]
    stored = int(np.prod(shape)) * int(dataset.BitsAllocated) // 8
    if syntax != _RLE and len(dataset.PixelData) < stored:
        raise Refused("it is cut short: fewer pixels than its header declares")
    voxels = np.empty(shape, np.float32)
    count = 0
    for frame in iter_pixels(dataset, raw=True):
        if count == shape[0]:
            break  # some writers pad the pixels by whole frames
        voxels[count] = frame
        count += 1
    if count != shape[0]:
        raise Refused("it holds fewer frames than its header declares")
    return voxels
