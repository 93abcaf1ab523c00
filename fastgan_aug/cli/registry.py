"""`fastgan-aug register`, `promote`, `lineage`: versions, champions and where images are from."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.tree import Tree

if TYPE_CHECKING:
    from serving.protocol import Provenance

TrackingUri = Annotated[
    str,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow: http://HOST:PORT, or sqlite:////FOLDER/mlflow.db.",
    ),
]
ModelName = Annotated[str, typer.Option(help="Name of the registered model.")]

WIDTH = 120

REGISTER = """Make a run's checkpoint a model version, alias `candidate`.

Examples:

  fastgan-aug register runs/first/images-000240000 --tracking-uri http://127.0.0.1:5000

  fastgan-aug register runs/first
"""
PROMOTE = """Move the alias `champion`, which the service takes by default, to a version.

Only a version whose quality report says PASS: `fastgan-aug evaluate` makes it. A person may
override that; name and reason are written on the version.

Examples:

  fastgan-aug promote 3 --by "A. Person" --reason "PASS, and more varied than 2" --expect 2

  fastgan-aug promote 4 --by "A. Person" --reason "for a trial of the machinery" --override
"""
LINEAGE = """Print where a batch's images come from: version, run, configuration, data, commit.

Without a tracking server it prints what the file itself says; with one, whether MLflow agrees.

Example:

  fastgan-aug lineage batch.parquet --tracking-uri http://127.0.0.1:5000
"""


def register_commands(app: typer.Typer) -> None:
    """Adds ``register``, ``promote`` and ``lineage``."""
    app.command("register", help=REGISTER)(register_command)
    app.command("promote", help=PROMOTE)(promote_command)
    app.command("lineage", help=LINEAGE)(lineage_command)


def register_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A checkpoint folder, or its run folder: the best one by score."),
    ],
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="MLflow. [default: where the run was tracked; else MLFLOW_TRACKING_URI; else "
            "SQLite in the run folder]"
        ),
    ] = None,
    model: ModelName = "fastgan-aug",
) -> None:
    """Registers a checkpoint; records of its run that MLflow does not have yet are sent first."""
    from fastgan_aug.engines.mlflow_client import without_password
    from fastgan_aug.engines.mlflow_registry import check_name, register

    check_name(model)
    checkpoint = _chosen(checkpoint)
    run_folder = checkpoint.resolve().parent
    uri = tracking_uri or _tracked_at(run_folder)
    version = register(checkpoint, uri=uri, model_name=model, run_id=_run_of(run_folder, uri))
    console = Console()
    aliases = ", ".join(version.aliases)
    console.print(f"registered  {version.uri}, alias {aliases}", markup=False, soft_wrap=True)
    console.print(
        f"next        fastgan-aug evaluate {version.version} DATA "
        f"--model {shlex.quote(model)} --tracking-uri {without_password(uri)}",
        markup=False,
        soft_wrap=True,
    )


def _chosen(path: Path) -> Path:
    """The best checkpoint of a run folder, or the newest where none was scored."""
    from fastgan_aug.engines.scoring import best_checkpoint
    from fastgan_aug.gan.checkpoint import checkpoints, newest_checkpoint

    if not checkpoints(path):
        return path
    return best_checkpoint(path) or newest_checkpoint(path) or path


def promote_command(
    version: Annotated[str, typer.Argument(help="A version's number, or `candidate`.")],
    by: Annotated[str, typer.Option(help="Who promotes it.")],
    reason: Annotated[str, typer.Option(help="Why it is better than the champion before.")],
    tracking_uri: TrackingUri,
    model: ModelName = "fastgan-aug",
    override: Annotated[
        bool,
        typer.Option("--override", help="Promote without a PASS; it is recorded with your name."),
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option(help="Version that is champion now, or `none`; refused if it is another."),
    ] = None,
) -> None:
    """Moves the alias ``champion``, and writes on the version who did so and why."""
    from fastgan_aug.engines.mlflow_promotion import promote

    champion = promote(
        model, version, tracking_uri, by=by, reason=reason, override=override, expect=expect
    )
    before = champion.tags["promoted_over"]
    console = Console()
    console.print(f"champion    {champion.uri} (before: {before}), by {by}: {reason}", markup=False)
    overridden = champion.tags["promoted_override"]
    if overridden != "no":
        console.print(f"overridden  {overridden}", style="yellow", markup=False)


def lineage_command(
    batch: Annotated[Path, typer.Argument(help="A batch's Parquet file.")],
    tracking_uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow, to compare with.")
    ] = None,
) -> None:
    """Prints the chain from a batch to the commit that made it."""
    from fastgan_aug.errors import RegistryError
    from serving.batch import BalancedBatch

    read = BalancedBatch.read(batch)
    told: dict[str, Any] = {}
    note = "as the file says; give --tracking-uri to compare with MLflow"
    if tracking_uri:
        from fastgan_aug.engines.mlflow_registry import lineage

        try:
            told = lineage(read.provenance.model, read.provenance.version, tracking_uri)
            note = "compared with MLflow"
        except RegistryError as error:
            note = f"as the file says: {error.what}"
    # Never narrower than a digest at the end of the tree: half a digest is of no use.
    console = Console(width=max(WIDTH, Console().width))
    console.print(_tree(batch.name, len(read.images), read.provenance, told))
    console.print(note, style="dim", markup=False, soft_wrap=True)


def _tracked_at(run_folder: Path) -> str:
    """MLflow's address, where none is given.

    Raises:
        ConfigError: nothing tells it, or all but the password.
    """
    from fastgan_aug.engines.mlflow_client import database_path, local_uri
    from fastgan_aug.engines.mlflow_spool import Spool
    from fastgan_aug.errors import ConfigError

    kept = Spool(run_folder).identity.get("uri", "")
    named, masked = os.environ.get("MLFLOW_TRACKING_URI", ""), "***" in kept
    for uri in [named] if masked else [kept, named, local_uri(run_folder)]:
        path = database_path(uri)
        # A database that is not there would be made, empty: the run's folder was moved.
        if uri and (path is None or path.is_file()):
            return uri
    why = f": it was tracked at {kept}, and passwords are not written down" if masked else ""
    raise ConfigError(
        f"nothing tells the MLflow that has the run in {run_folder}{why}",
        allowed="a server (http://...) or an SQLite file (sqlite:////path/mlflow.db)",
        do="pass --tracking-uri, or set MLFLOW_TRACKING_URI",
    )


def _run_of(run_folder: Path, uri: str) -> str:
    """The id of the run whose folder this is, after sending what MLflow does not have yet."""
    from fastgan_aug.engines.mlflow_spool import Spool
    from fastgan_aug.engines.mlflow_tracking import replay
    from fastgan_aug.errors import RegistryError

    waiting = replay(run_folder, uri)
    run_id = Spool(run_folder).sent["run_id"]
    if waiting or run_id is None:
        raise RegistryError(
            f"{waiting} records of the run {run_folder} could not be sent to MLflow",
            do="check the address, then try again",
        )
    return str(run_id)


def _tree(name: str, images: int, origin: Provenance, told: dict[str, Any]) -> Tree:
    """One branch inside another: each artefact under the one that was made from it."""
    promoted = told.get("promoted", {})
    steps = [
        ("version", f"models:/{origin.model}/{origin.version}", None),
        ("checkpoint", origin.checkpoint, told.get("version", {}).get("checkpoint_sha256")),
        ("run", origin.run_id, told.get("run", {}).get("id")),
        ("config", origin.config, told.get("config_digest")),
        ("data", origin.dataset, told.get("dataset", {}).get("digest")),
        ("code", origin.code_version, told.get("code_version")),
    ]
    root = Tree(f"batch       {name}: {images} images, seed {origin.seed}, {origin.engine}")
    branch = root
    for label, value, registered in steps:
        branch = branch.add(f"{label:<11} {value}{_agreement(value, registered)}")
        if label == "run" and told.get("prior"):
            branch.add(f"started from the prior {told['prior']}")
        if label == "version" and promoted:
            overridden = promoted.get("promoted_override", "no")
            gate = "" if overridden == "no" else f" (overrode: {overridden})"
            who = f"promoted by {promoted['promoted_by']}{gate}"
            branch.add(f"{who}: {promoted['promoted_reason']}")
    return root


def _agreement(value: str, registered: str | None) -> str:
    if registered is None:
        return ""
    return "  [green]= MLflow[/]" if registered == value else f"  [red]MLflow has {registered}[/]"
