"""One way to MLflow: quiet, without telemetry, and never blocking for minutes."""

from __future__ import annotations

import logging
import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from fastgan_aug.errors import FastGANAugError, RegistryError

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
# MLflow reads these at every request. Its own defaults (120 s, 7 retries) block for minutes when
# a server is gone; a value that the user has set is kept.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
# urllib3 warns of every refused connection; our own messages say it once.
QUIET = {"mlflow": logging.WARNING, "alembic": logging.WARNING, "urllib3": logging.ERROR}


def local_uri(folder: Path) -> str:
    """The URI of the SQLite database in ``folder``, which needs no server."""
    return f"sqlite:///{folder.resolve() / DATABASE}"


def artifact_folder(folder: Path) -> Path:
    """Where the artefacts of the database in ``folder`` are kept."""
    return folder.resolve() / ARTIFACTS


def connect(uri: str) -> Any:
    """An ``MlflowClient`` for both tracking and registry at ``uri``. Importing it takes seconds.

    Raises:
        RegistryError: ``uri`` is no address that MLflow knows.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    # What MLflow's own use of SQLAlchemy is warned of is nothing that a user could change.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"mlflow\.")
    from mlflow import MlflowClient

    for name, level in QUIET.items():  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(level)
    with registry_errors(uri):
        _make_database(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_database(uri: str) -> None:
    """Makes a missing SQLite file beside its place, and renames it.

    MLflow makes its tables one after another for seconds, and refuses a file that lacks some: a
    process killed in between would leave a database that can never be used.
    """
    from mlflow import MlflowClient

    path = database_path(uri)
    if path is None or path.exists():
        return
    temporary = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
    try:
        MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments(max_results=1)
        if not path.exists():  # another process was faster: its file holds records already
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def experiment_id(client: Any, name: str) -> str:
    """The experiment's id; the experiment is made when missing, with artefacts beside a local DB.

    Raises:
        mlflow.exceptions.MlflowException: the server refused or could not be reached.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_location(client)))
        except MlflowException:  # another worker made it in between, or the server is gone
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _location(client: Any) -> str | None:
    """With a server, the server decides; with a bare SQLite file, the folder beside it."""
    path = database_path(client.tracking_uri)
    return None if path is None else artifact_folder(path.parent).as_uri()


def database_path(uri: str) -> Path | None:
    """The file of sqlite:///relative.db and sqlite:////absolute.db; None for other addresses."""
    return Path(urlparse(uri).path[1:]) if uri.startswith("sqlite:") else None


@contextmanager
def registry_errors(uri: str) -> Iterator[None]:
    """Turns what MLflow raises in the block into a `RegistryError` that names the address."""
    try:
        yield
    except FastGANAugError:
        raise
    except Exception as error:  # MLflow lets requests', SQLAlchemy's and its own errors through
        if not _is_mlflow_error(error):
            raise
        raise RegistryError(
            f"MLflow at {without_password(uri)} refused or could not be reached: {_told(error)}",
            allowed="a running MLflow server (http://...) or an SQLite file (sqlite:///...)",
            do="check that the server runs and that the address is right",
        ) from error


def _told(error: BaseException) -> str:
    """MLflow's own words; of a failed connection the type alone: its text is a chain of types."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__module__.partition(".")[0] in {"requests", "urllib3"}:
            return type(cause).__name__
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _is_mlflow_error(error: Exception) -> bool:
    origin = type(error).__module__.partition(".")[0]
    return origin in {"mlflow", "requests", "urllib3", "sqlalchemy"} or isinstance(error, OSError)


def without_password(uri: str) -> str:
    """The address with ``***`` for user and password and for whatever follows a ``?``.

    Fit to be shown or written down.
    """
    try:
        parsed = urlparse(uri)
    except ValueError:  # no address at all: nothing of it is shown
        return "***"
    host = parsed.netloc.rpartition("@")[2]
    netloc = host if host == parsed.netloc else f"***@{host}"
    if (netloc, parsed.query) == (parsed.netloc, ""):
        return uri  # unchanged: urlparse would write sqlite:////folder with fewer slashes
    return parsed._replace(netloc=netloc, query="***" if parsed.query else "").geturl()
