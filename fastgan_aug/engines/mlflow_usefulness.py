"""What a version's slices did to a classifier, told beside the version.

Files and figures go to the version's run, each report in a folder named after its own digest, so
that a later one never overwrites it; the version's tags say which is the last, and its verdicts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastgan_aug.engines.mlflow_client import connect, registry_errors
from fastgan_aug.engines.mlflow_registry import RegisteredVersion
from fastgan_aug.engines.mlflow_tracking import metric_name, metric_names

PLACE_TAG = "usefulness_report"


def record_usefulness(
    version: RegisteredVersion,
    files: Sequence[Path],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    uri: str,
) -> str:
    """Logs a report's files and figures to the version's run, and tags the version.

    Args:
        version: The one that was judged.
        files: The report first; its digest names the folder.
        metrics: Figures, by name.
        tags: Verdicts in words.
        uri: MLflow's address.

    Returns:
        Folder of the files among the run's artefacts.

    Raises:
        RegistryError: MLflow refused or could not be reached.
    """
    digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
    place = f"usefulness/version-{version.version}/{digest[:16]}"
    client, now = connect(uri), int(time.time() * 1000)
    with registry_errors(uri):
        from mlflow.entities import Metric

        for path in files:
            client.log_artifact(version.run_id, str(path), place)
        names = metric_names(metrics)
        points = [Metric(names[k], float(v), now, 0) for k, v in metrics.items()]
        client.log_batch(version.run_id, metrics=points)
        # The place last: until then the tag speaks of the report before.
        for key, value in {**tags, PLACE_TAG: place}.items():
            client.set_model_version_tag(version.name, version.version, metric_name(key), value)
    return place
