"""Model versions in MLflow: registered from checkpoints, found, fetched, verified.

A version holds ``meta.json`` and ``generator.safetensors`` and nothing that is executed: whoever
serves it downloads both, checks their sha256 and loads the weights itself. The resume state stays
with the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastgan_aug.engines.mlflow_client import connect, registry_errors
from fastgan_aug.engines.mlflow_upload import LOGGED, SHA_TAG, upload_version
from fastgan_aug.errors import CheckpointError, ModelNotFound, RegistryError
from fastgan_aug.gan.checkpoint import META, STATE, read_manifest, read_meta
from fastgan_aug.storage import replace_when_complete

CANDIDATE, CHAMPION = "candidate", "champion"


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a registered model.

    Attributes:
        name: Of the registered model.
        version: Its number, as MLflow writes it.
        aliases: Such as ``candidate`` and ``champion``.
        run_id: Of the training run.
        folder: Verified local copy, where it was fetched; else None.
        tags: Digests, counts and whatever was said at registration and promotion.
    """

    name: str
    version: str
    aliases: tuple[str, ...] = ()
    run_id: str | None = None
    folder: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return f"models:/{self.name}/{self.version}"


def register(
    checkpoint: Path,
    *,
    uri: str,
    model_name: str,
    run_id: str,
    extra_tags: Mapping[str, str] | None = None,
    alias: str | None = CANDIDATE,
) -> RegisteredVersion:
    """Makes a checkpoint a model version, with the alias ``candidate`` where none other is given.

    The same checkpoint of the same run is registered once; again, it only takes the alias.

    Args:
        checkpoint: A checkpoint's folder.
        uri: MLflow's address.
        model_name: Of the registered model; made when missing.
        run_id: Of the run that trained it.
        extra_tags: Added to the version's own tags.
        alias: That it takes; None gives it none, so that nobody serves it by mistake.

    Raises:
        CheckpointError: the checkpoint is damaged.
        RegistryError: the name cannot be used, MLflow has no such run, refused or could not be
            reached.
    """
    check_name(model_name)
    meta = read_meta(checkpoint)
    client = connect(uri)
    with registry_errors(uri):
        client.get_run(run_id)  # a wrong address must not leave an empty model behind
        _make_model(client, model_name)
        version = _find_same(client, model_name, run_id, meta.digest)
        if version is None:
            version = upload_version(client, checkpoint, meta, model_name, run_id)
        for key, value in (extra_tags or {}).items():
            client.set_model_version_tag(model_name, version, key, str(value))
        if alias is not None:
            client.set_registered_model_alias(model_name, alias, version)
        return describe(client.get_model_version(model_name, version))


def check_name(model: str) -> None:
    """Refuses a model's name that MLflow does not take, or could not look up again.

    Raises:
        RegistryError: it is one.
    """
    both = "'" in model and '"' in model  # MLflow's filters have no way to escape a quote
    path = model.strip() in ("", ".", "..") or {"/", ":"} & set(model)
    if both or path or not model.isprintable():
        raise RegistryError(
            f"a model cannot be named {model!r}",
            allowed="printable characters but / and :, and not both kinds of quotes (' and \")",
            do="name it otherwise: --model NAME, or tracking.model in the configuration",
        )


def find(model: str, version_or_alias: str, uri: str) -> RegisteredVersion:
    """The version that a number or an alias means.

    Raises:
        ModelNotFound: no such model, version or alias; the message says which there are.
        RegistryError: no model can have that name, or MLflow could not be reached.
    """
    from mlflow.exceptions import MlflowException

    check_name(model)
    client = connect(uri)
    with registry_errors(uri):
        try:
            if version_or_alias.isdigit():
                return describe(client.get_model_version(model, version_or_alias))
            found = client.get_model_version_by_alias(model, version_or_alias)
            return describe(client.get_model_version(model, found.version))
        except MlflowException as error:
            if error.get_http_status_code() not in (400, 404):
                raise
            raise _not_found(client, model, version_or_alias) from error


def fetch(model: str, version_or_alias: str, uri: str, cache: Path) -> RegisteredVersion:
    """Downloads a version's files and verifies them; a verified copy is not downloaded again.

    Args:
        model: Name of the registered model.
        version_or_alias: ``"3"`` or ``"champion"``.
        uri: MLflow's address.
        cache: Holds one folder per version and content.

    Raises:
        ModelNotFound: no such model, version or alias.
        RegistryError: MLflow could not be reached.
        CheckpointError: what MLflow holds is not what was registered.
        StorageError: the cache cannot be written.
    """
    version = find(model, version_or_alias, uri)
    sha = version.tags.get(SHA_TAG)
    if not sha:
        raise CheckpointError(
            f"{version.uri} has no tag {SHA_TAG}",
            allowed="versions made by `fastgan-aug register`",
            do="register the checkpoint again",
        )
    folder = cache / model / f"{version.version}-{sha[:16]}"
    if not _is_good(folder, sha):
        shutil.rmtree(folder, ignore_errors=True)
        with replace_when_complete(folder) as temporary:
            _download(version, uri, temporary)
            _verify(temporary, sha, version.uri)
    return replace(version, folder=folder)


def lineage(model: str, version_or_alias: str, uri: str) -> dict[str, Any]:
    """Where a version comes from: version, run, configuration, data and code.

    Raises:
        ModelNotFound: no such version.
        RegistryError: MLflow could not be reached.
    """
    version = find(model, version_or_alias, uri)
    client = connect(uri)
    with registry_errors(uri):
        run = client.get_run(version.run_id)
    inputs = [item.dataset for item in run.inputs.dataset_inputs]
    return {
        "version": {
            "uri": version.uri,
            "aliases": list(version.aliases),
            SHA_TAG: version.tags.get(SHA_TAG),
        },
        "run": {"id": version.run_id, "name": run.info.run_name, "status": run.info.status},
        "config_digest": version.tags.get("config_digest"),
        "dataset": {
            "digest": version.tags.get("dataset_digest"),
            "names": [dataset.name for dataset in inputs],
        },
        "code_version": version.tags.get("code_version"),
        "prior": version.tags.get("prior"),
        "promoted": {k: v for k, v in version.tags.items() if k.startswith("promoted_")},
    }


def loss_curves(version: RegisteredVersion, uri: str) -> list[dict[str, float]]:
    """The losses that a version's run recorded: a point for each number of images seen.

    Raises:
        RegistryError: MLflow could not be reached.
    """
    client = connect(uri)
    points: dict[int, dict[str, float]] = {}
    with registry_errors(uri):
        names = [n for n in client.get_run(version.run_id).data.metrics if n.startswith("loss")]
        for name in sorted(names):
            for point in client.get_metric_history(version.run_id, name):
                row = points.setdefault(point.step, {"images_seen": float(point.step)})
                row[name] = point.value
    return [points[step] for step in sorted(points)]


# -- registration ----------------------------------------------------------------------------------


def _make_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Conditional FastGAN for augmentation.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _is_named(model: str) -> str:
    """MLflow's filter; a name has one kind of quotes at most (``check_name``)."""
    quote = '"' if "'" in model else "'"
    return f"name = {quote}{model}{quote}"


def _find_same(client: Any, name: str, run_id: str, sha: str) -> str | None:
    for version in client.search_model_versions(_is_named(name)):
        if version.run_id == run_id and version.tags.get(SHA_TAG) == sha:
            return str(version.version)
    return None


# -- finding and fetching --------------------------------------------------------------------------


def describe(version: Any) -> RegisteredVersion:
    """What MLflow tells of a version."""
    return RegisteredVersion(
        name=version.name,
        version=str(version.version),
        aliases=tuple(sorted(version.aliases)),
        run_id=version.run_id,
        tags=dict(version.tags),
    )


def _not_found(client: Any, model: str, wanted: str) -> ModelNotFound:
    there = [describe(v) for v in client.search_model_versions(_is_named(model))]
    if not there:
        return ModelNotFound(
            f"there is no registered model {model!r}, so no {wanted!r} of it",
            do="train and register one: `fastgan-aug train`, then `fastgan-aug register`",
        )
    aliases = client.get_registered_model(model).aliases
    named = ", ".join(f"{alias} (version {v})" for alias, v in aliases.items()) or "no alias"
    versions = sorted((v.version for v in there), key=int)
    step = f"`fastgan-aug promote {versions[-1]} --by NAME --reason TEXT` makes a champion"
    return ModelNotFound(
        f"the registered model {model!r} has no {wanted!r}",
        allowed=f"versions {', '.join(versions)}; {named}",
        do=step if wanted == CHAMPION else f"ask for one of these; {step}",
    )


def download_file(version: RegisteredVersion, name: str, uri: str, folder: Path) -> None:
    """Downloads one file of a version into a folder that is there; nothing is verified.

    Raises:
        RegistryError: MLflow has no such file, or could not be reached.
    """
    from mlflow.artifacts import download_artifacts

    client = connect(uri)
    with registry_errors(uri):
        # `models:/NAME/VERSION` would be looked up at MLflow's process-wide address, not at `uri`.
        location = client.get_model_version(version.name, version.version).source
        if location.startswith(LOGGED):
            location = client.get_logged_model(location.removeprefix(LOGGED)).artifact_location
        download_artifacts(f"{location}/{name}", dst_path=str(folder), tracking_uri=uri)


def _download(version: RegisteredVersion, uri: str, target: Path) -> None:
    target.mkdir()
    download_file(version, META, uri, target)
    for name in read_manifest(target).files:
        if name != STATE:
            download_file(version, name, uri, target)


def _verify(folder: Path, sha: str, name: str) -> None:
    if read_meta(folder).digest != sha:
        raise CheckpointError(
            f"{name} is damaged: its {META} does not have the sha256 {sha} of its tag",
            do="register the checkpoint again, and find out who changed the artefacts",
        )


def _is_good(folder: Path, sha: str) -> bool:
    try:
        return read_meta(folder).digest == sha
    except CheckpointError:
        return False
