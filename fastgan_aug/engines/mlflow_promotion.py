"""Quality reports beside model versions, and the alias `champion`, which moves on PASS alone.

A report lies in the version's run, in a folder named after its own digest, so that a later one
never overwrites it; the version's tags say which counts. A promotion reads that report again:
neither a tag written by hand nor the report of another checkpoint opens the gate.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastgan_aug.engines.mlflow_client import connect, registry_errors
from fastgan_aug.engines.mlflow_registry import CHAMPION, RegisteredVersion, describe, find
from fastgan_aug.engines.mlflow_upload import SHA_TAG
from fastgan_aug.errors import DataError, GateRefused, RegistryError
from fastgan_aug.quality.report import QualityReport

QUALITY_TAG, REPORT_TAG, PLACE_TAG = "quality", "quality_report_sha256", "quality_report"
REPORT, PAGE = "report.json", "report.html"
NOBODY = "none"
"""In place of a version's number where there is no champion."""
_CLAIM = "champion_claim"
_SHOWN = 3  # failed rules in a message
_LONGEST = 1000  # of a tag; MLflow takes 5000


def record_report(version: RegisteredVersion, folder: Path, uri: str) -> str:
    """Logs a report's files to the version's run, and tags the version with verdict and digest.

    Args:
        version: The one that was judged.
        folder: Holds ``report.json`` and, where there is one, ``report.html``.
        uri: MLflow's address.

    Returns:
        Folder of the files among the run's artefacts.

    Raises:
        DataError: there is no report in the folder.
        RegistryError: the report is of another checkpoint, or MLflow could not be reached.
    """
    report = QualityReport.read(folder / REPORT)
    _check_same(report, version)
    digest = hashlib.sha256((folder / REPORT).read_bytes()).hexdigest()
    place = f"quality/version-{version.version}/{digest[:16]}"
    client = connect(uri)
    with registry_errors(uri):
        for name in (REPORT, PAGE):
            if (folder / name).is_file():
                client.log_artifact(version.run_id, str(folder / name), place)
        # The verdict last: until then the tags speak of the report before.
        tags = {PLACE_TAG: place, REPORT_TAG: digest, QUALITY_TAG: str(report.verdict)}
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.version, key, value)
    return place


def recorded_report(version: RegisteredVersion, uri: str) -> QualityReport | None:
    """The report that a version's tags name, verified; None where they name none.

    Raises:
        GateRefused: it is gone, was changed, or is of another checkpoint.
        RegistryError: MLflow could not be reached.
    """
    place, digest = version.tags.get(PLACE_TAG), version.tags.get(REPORT_TAG)
    if not place or not digest:
        return None
    client = connect(uri)
    with TemporaryDirectory(prefix="fastgan-aug-") as folder, registry_errors(uri):
        if f"{place}/{REPORT}" not in [
            f.path for f in client.list_artifacts(version.run_id, place)
        ]:
            raise _untrusted(version, "is gone from its run")
        found = client.download_artifacts(version.run_id, f"{place}/{REPORT}", folder)
        content = Path(found).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise _untrusted(version, f"does not have the sha256 {digest} of its tag")
    try:
        report = QualityReport.from_json(content)
        _check_same(report, version)
    except (DataError, RegistryError) as error:
        raise _untrusted(version, f"cannot be trusted: {error.what}") from error
    return report


def promote(
    model: str,
    version_or_alias: str,
    uri: str,
    *,
    by: str,
    reason: str,
    override: bool = False,
    expect: str | None = None,
) -> RegisteredVersion:
    """Moves the alias ``champion`` to a version, and writes on it who did so, when and why.

    Only to a version whose recorded quality report passes, unless a person overrides the gate,
    which the version's tag ``promoted_override`` then says.

    MLflow has no compare-and-set. Each promotion leaves a claim on the model, looks at the champion
    before and after, and takes itself back where another claim or champion came in between; what
    remains open is the time between that last look and the taking back.

    Args:
        model: Name of the registered model.
        version_or_alias: ``"3"`` or ``"candidate"``.
        uri: MLflow's address.
        by: Who promotes.
        reason: Why, in words.
        override: Promotes without a report that passes.
        expect: The champion's version that this one is to replace, ``"none"`` for no champion;
            None takes whichever there is.

    Raises:
        ModelNotFound: no such version.
        GateRefused: the version has no report, or one that does not pass, and nobody overrides.
        RegistryError: ``by`` or ``reason`` is empty, the champion is not the expected one, or
            somebody else moved the alias meanwhile.
    """
    if not by.strip() or not reason.strip():
        raise RegistryError(
            f"a champion needs a name and a reason; by is {by!r}, reason is {reason!r}",
            do="say who promotes it and why: --by NAME --reason TEXT",
        )
    version = find(model, version_or_alias, uri)
    overridden = _gate(version, uri, override)
    client = connect(uri)
    with registry_errors(uri):
        previous = _champion(client, model)
        if expect is not None and expect != previous:
            raise RegistryError(
                f"the champion of {model!r} is {_named(previous)}, not {_named(expect)}",
                do="look at that version, then promote again",
            )
        tags = {
            "promoted_by": by,
            "promoted_reason": reason,
            "promoted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "promoted_over": previous,
            "promoted_override": overridden,
        }
        with _tags_unless_refused(client, version, tags):
            _move(client, model, version.version, previous)
        return describe(client.get_model_version(model, version.version))


def _gate(version: RegisteredVersion, uri: str, override: bool) -> str:
    """What is written down of an override; ``no`` where the version's report passes.

    Raises:
        GateRefused: it does not, and nobody overrides.
    """
    try:
        _require_pass(version, recorded_report(version, uri))
    except GateRefused as error:
        if not override:
            raise
        return error.what[:_LONGEST]
    return "no"


def _require_pass(version: RegisteredVersion, report: QualityReport | None) -> None:
    if report is not None and report.verdict.passed:
        return
    what = f"{version.uri} has no quality report"
    if report is not None:
        failures = report.verdict.failures
        shown = "; ".join(map(str, failures[:_SHOWN]))
        more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        what = f"the quality report of {version.uri} says {report.verdict}: {shown}{more}"
    raise GateRefused(
        what,
        allowed="versions whose quality report passes",
        do="evaluate it (`fastgan-aug evaluate`) or train a better one; a person may promote it "
        "all the same with --override, and name and reason are recorded",
    )


def _move(client: Any, model: str, version: str, previous: str) -> None:
    """Sets the alias; takes it back where another promotion came in between."""
    claim = secrets.token_hex(8)
    client.set_registered_model_tag(model, _CLAIM, claim)
    if _champion(client, model) != previous:
        raise _overtaken(model, version, _champion(client, model))
    client.set_registered_model_alias(model, CHAMPION, version)
    now = _champion(client, model)
    if now == version and client.get_registered_model(model).tags.get(_CLAIM) == claim:
        return
    if now == version:  # another one is at it: neither can know whose turn it was
        if previous == NOBODY:
            client.delete_registered_model_alias(model, CHAMPION)
        else:
            client.set_registered_model_alias(model, CHAMPION, previous)
    raise _overtaken(model, version, _champion(client, model))


@contextmanager
def _tags_unless_refused(
    client: Any, version: RegisteredVersion, tags: Mapping[str, str]
) -> Iterator[None]:
    """Tags the version first: a champion without a name must not be. Taken back where it fails."""
    for key, value in tags.items():
        client.set_model_version_tag(version.name, version.version, key, value)
    try:
        yield
    except RegistryError:
        for key in tags:
            if key in version.tags:
                client.set_model_version_tag(version.name, version.version, key, version.tags[key])
            else:
                client.delete_model_version_tag(version.name, version.version, key)
        raise


def _champion(client: Any, model: str) -> str:
    found = client.get_registered_model(model).aliases.get(CHAMPION)
    return NOBODY if found is None else str(found)


def _named(version: str) -> str:
    return "nobody" if version == NOBODY else f"version {version}"


def _overtaken(model: str, version: str, now: str) -> RegistryError:
    return RegistryError(
        f"somebody else moved the champion of {model!r} while version {version} was being "
        f"promoted; it is {_named(now)}",
        do="look at that version, then promote again",
    )


def _check_same(report: QualityReport, version: RegisteredVersion) -> None:
    judged, registered = report.provenance.get("checkpoint"), version.tags.get(SHA_TAG)
    if judged != registered:
        raise RegistryError(
            f"the report is of the checkpoint {judged}, {version.uri} is {registered}",
            allowed="a report of the version's own checkpoint",
            do="evaluate that version",
        )


def _untrusted(version: RegisteredVersion, what: str) -> GateRefused:
    return GateRefused(
        f"the quality report of {version.uri} {what}",
        allowed="the report that `fastgan-aug evaluate` logged",
        do="evaluate the version again, and find out who changed it",
    )
