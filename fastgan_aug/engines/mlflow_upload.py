"""What goes to MLflow when a checkpoint becomes a model version."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastgan_aug.data.schema import BY_PATIENT
from fastgan_aug.gan.checkpoint import FILTER, GENERATOR, META, CheckpointMeta

SHA_TAG = "checkpoint_sha256"
LOGGED = "models:/"


def upload_version(
    client: Any, checkpoint: Path, meta: CheckpointMeta, model_name: str, run_id: str
) -> str:
    """Logs the served files as a model of the run, and makes a version of it.

    Returns:
        The version's number.
    """
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    tags = version_tags(meta)
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=f"generator-{meta.images_seen:09d}",
        source_run_id=run_id,
        tags={key: tags[key] for key in (SHA_TAG, "dataset_digest", "config_digest")},
        model_type="conditional-fastgan",
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in (META, GENERATOR, *([FILTER] if FILTER in meta.files else [])):
            shutil.copyfile(checkpoint / name, Path(folder, name))
        _write_mlmodel(Path(folder), logged.model_id, run_id)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, meta.images_seen)])
    made = client.create_model_version(
        model_name,
        source=_source(client, logged),
        run_id=run_id,
        model_id=logged.model_id,
        tags=tags,
        description=_in_words(client, run, meta),
    )
    return str(made.version)


def _source(client: Any, logged: Any) -> str:
    """The logged model's own URI, which the server resolves for its pages.

    Without a server MLflow would look that URI up at its process-wide address: the place instead.
    """
    bare = client.tracking_uri.startswith("sqlite:")
    return str(logged.artifact_location) if bare else f"{LOGGED}{logged.model_id}"


def _write_mlmodel(folder: Path, model_id: str, run_id: str) -> None:
    """MLflow's own description of the folder, with a flavour of ours: no code is run to load it."""
    from mlflow.models import Model

    model = Model(run_id=run_id, model_id=model_id)
    model.add_flavor("fastgan_aug", manifest=META, weights=GENERATOR, format="safetensors")
    model.save(str(folder / "MLmodel"))


def _in_words(client: Any, run: Any, meta: CheckpointMeta) -> str:
    origin, info = meta.lineage, run.info
    patients = f"{len(origin.patient_digests)} patients"
    if origin.grouping != BY_PATIENT:
        patients = "without patients: no test of this model proves anything"
    start = "" if origin.prior is None else f", from the prior `{origin.prior}`"
    rows = "\n".join(f"| {cell} | {count} |" for cell, count in origin.class_counts.items())
    return (
        f"Conditional FastGAN after {meta.images_seen} images.\n\n"
        f"Trained by [run {info.run_name}](#/experiments/{info.experiment_id}/runs/{info.run_id}) "
        f"on data `{origin.dataset_digest}` ({patients}), with "
        f"configuration `{origin.config_digest}` and code `{origin.code_version}`{start}.\n\n"
        f"| cell | training slices |\n|---|---|\n{rows}\n\n{_sample_grid(client, info.run_id)}"
    )


def _sample_grid(client: Any, run_id: str) -> str:
    """The run's newest picture as Markdown, which MLflow's pages show; empty without pictures."""
    steps = {
        int(found[1]): item.path
        for item in client.list_artifacts(run_id, "images")
        if (found := re.search(r"\+step\+(\d+)\+.*\.png$", item.path))
    }
    if not steps:
        return ""
    path = quote(steps[max(steps)], safe="")
    return f"![samples after {max(steps)} images](get-artifact?path={path}&run_uuid={run_id})"


def version_tags(meta: CheckpointMeta) -> dict[str, str]:
    """What a version says of itself, all of it from the checkpoint's own manifest."""
    origin = meta.lineage
    return {
        SHA_TAG: meta.digest,
        "dataset_digest": origin.dataset_digest,
        "config_digest": origin.config_digest,
        "code_version": origin.code_version,
        "images_seen": str(meta.images_seen),
        "space": json.dumps(origin.space),
        "class_counts": json.dumps(origin.class_counts),
        "training_patients": str(len(origin.patient_digests)),
        "pseudonym_key": origin.pseudonym_key,
        "grouping": origin.grouping,
    } | ({} if origin.prior is None else {"prior": origin.prior})
