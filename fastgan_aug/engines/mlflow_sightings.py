"""Which registered model versions saw a patient, by the manifests that MLflow keeps of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastgan_aug.data.schema import FICTION
from fastgan_aug.engines.mlflow_client import connect, registry_errors
from fastgan_aug.engines.mlflow_registry import RegisteredVersion, describe, download_file
from fastgan_aug.engines.mlflow_upload import SHA_TAG
from fastgan_aug.errors import CheckpointError, FastGANAugError
from fastgan_aug.gan.checkpoint import META, CheckpointMeta, read_manifest


@dataclass(frozen=True)
class Sighting:
    """Whether a model version was trained on a patient.

    Attributes:
        version: Which, with its aliases.
        saw: Whether it was; None where nobody can tell.
        why: Why nobody can tell; empty otherwise.
    """

    version: RegisteredVersion
    saw: bool | None
    why: str = ""


def sightings(patient_digest: str, pseudonym_key: str, uri: str) -> list[Sighting]:
    """Looks at every version of every registered model.

    Args:
        patient_digest: Sha256 of the pseudonym.
        pseudonym_key: Id of the key that made it.
        uri: MLflow's address.

    Returns:
        By model and version. A version whose patients were named with another key, or that has no
        readable manifest, cannot be told of: it is never passed over.

    Raises:
        RegistryError: MLflow could not be reached.
    """
    client = connect(uri)
    with registry_errors(uri):
        versions = sorted(_versions(client), key=lambda v: (v.name, int(v.version)))
    return [_look(version, patient_digest, pseudonym_key, uri) for version in versions]


def _look(version: RegisteredVersion, digest: str, key: str, uri: str) -> Sighting:
    try:
        lineage = _manifest(version, uri).lineage
    except Exception as error:  # stores of artefacts raise nearly anything, missing libraries too
        why = error.code if isinstance(error, FastGANAugError) else type(error).__name__
        return Sighting(version, None, f"its {META} cannot be read ({why})")
    if lineage.pseudonym_key != key and FICTION in (lineage.pseudonym_key, key):
        return Sighting(version, False)  # patients who do not exist are never shared
    if lineage.pseudonym_key != key:
        why = f"its patients were named with another key ({lineage.pseudonym_key})"
        return Sighting(version, None, why)
    return Sighting(version, digest in lineage.patient_digests)


def _manifest(version: RegisteredVersion, uri: str) -> CheckpointMeta:
    with TemporaryDirectory(prefix="fastgan-aug-") as folder:
        download_file(version, META, uri, Path(folder))
        meta = read_manifest(Path(folder))
    if meta.digest != version.tags.get(SHA_TAG):
        raise CheckpointError(f"{version.uri} has another {META} than was registered")
    return meta


def _versions(client: Any) -> Iterator[RegisteredVersion]:
    # Registered models and versions come in pages.
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        for found in page:
            # The search leaves the aliases out.
            yield describe(client.get_model_version(found.name, found.version))
        token = page.token
        if not token:
            return
