"""`fastgan-aug serve` and `fastgan-aug sample`: run the service, and ask it for images."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from fastgan_aug.errors import BalanceError, ConfigError
from fastgan_aug.target import Target

if TYPE_CHECKING:
    from fastgan_aug.config import Config
    from serving.client import BalancedBatch

SAMPLE_EXAMPLE = (
    'Example: fastgan-aug sample --counts "COR/normal=129,COR/bilateral=52" --out batch.parquet'
)


def register_commands(app: typer.Typer) -> None:
    """Adds ``serve`` and ``sample`` to the command line."""
    app.command(epilog="Example: fastgan-aug serve --tracking-uri http://127.0.0.1:5000")(serve)
    app.command(epilog=SAMPLE_EXAMPLE)(sample)


def serve(
    config: Annotated[str | None, typer.Option(help="Configuration, a name or a TOML.")] = None,
    model: Annotated[str, typer.Option(help="Alias or version that is served.")] = "champion",
    tracking_uri: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; else the configuration's."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address; else the configuration's.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; else the configuration's.")] = None,
    tokens: Annotated[
        str | None, typer.Option(help="File of tokens, made by `token`; else the configuration's.")
    ] = None,
) -> None:
    """Serve a registered model on this machine until Ctrl-C."""
    from fastgan_aug.cli.signals import sigterm_as_ctrl_c
    from fastgan_aug.config import Config

    chosen = _configured(config)
    changes = {"host": host, "port": port, "tokens": tokens}
    serving = chosen.serving.model_dump() | {k: v for k, v in changes.items() if v is not None}
    chosen = Config.of(chosen.to_dict() | {"serving": serving}, "the options")
    uri = tracking_uri or chosen.tracking.uri
    if uri is None:
        raise ConfigError(
            "no tracking URI is given",
            allowed="a server (http://...) or an SQLite file (sqlite:////path/mlflow.db)",
            do="pass --tracking-uri, set MLFLOW_TRACKING_URI, or set tracking.uri",
        )
    if chosen.serving.haproxy:  # Ray Serve looks when it is imported
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    from fastgan_aug.engines.ray_cluster import ray_cluster
    from serving.deployment import check_exposure, start_service, stop_service
    from serving.tokens import find_store

    console = Console()
    logging.getLogger("serving").setLevel(logging.INFO)
    sigterm_as_ctrl_c()
    check_exposure(chosen.serving)
    with ray_cluster(chosen.engine.timeout):
        console.print(f"Starting {chosen.tracking.model} ({model}) ...")
        url = start_service(chosen.serving, uri, chosen.tracking.model, model)
        console.print(f"Serving at {url}, described at {url}/docs. Ctrl-C ends it.")
        if find_store(chosen.serving.tokens) is None:
            console.print("No tokens: everyone on this machine may call, and nobody else.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass  # the way it is meant to end
        finally:
            console.print("Ending the service ...")
            stop_service()


def sample(
    counts: Annotated[
        str, typer.Option(help="Real images there are: a JSON file, or CELL=N,CELL=N.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")],
    target: Annotated[
        str, typer.Option(help="Desired count after filling: majority, N, JSON, or CELL=N,...")
    ] = "majority",
    model: Annotated[str, typer.Option(help="Alias or version.")] = "champion",
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    max_ratio: Annotated[float | None, typer.Option(help="Most synthetic per real image.")] = None,
    allow_unseen: Annotated[
        bool, typer.Option("--allow-unseen", help="Also cells without training images.")
    ] = False,
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
) -> None:
    """Ask the running service for the images that fill every cell up to the target."""
    from serving.client import Client

    have, wanted = parse_counts(counts, "counts"), parse_target(target)
    with Client(url) as client:
        batch = client.request_balanced_batch(
            have,
            wanted,
            model=model,
            seed=seed,
            max_ratio=max_ratio,
            allow_unseen=allow_unseen,
        )
    batch.to_parquet(out)
    _print_batch(batch, out, Console())


def parse_counts(text: str, what: str) -> dict[str, int]:
    """Reads a JSON file, or ``CELL=N,CELL=N``.

    Raises:
        BalanceError: neither of them.
    """
    path = Path(text)
    try:
        if path.suffix == ".json":
            plain = json.loads(path.read_text(encoding="utf-8"))
        else:
            pairs = [part.rpartition("=") for part in text.split(",")]
            plain = {key.strip(): int(n) for key, _, n in pairs}
            if len(plain) != len(pairs):
                raise ValueError("a cell stands there twice")
        if not isinstance(plain, Mapping):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise BalanceError(
            f"{what} {text!r} cannot be read: {error}",
            allowed="a .json file {cell: count}, or CELL=N,CELL=N",
            do='write for example "COR/normal=129,COR/bilateral=52"',
        ) from error
    return dict(plain)


def parse_target(text: str) -> Target:
    """Reads ``majority``, an integer, or what ``parse_counts`` reads.

    Raises:
        BalanceError: none of them.
    """
    if text.lstrip("+-").isdecimal():
        return int(text)
    return parse_counts(text, "target") if "=" in text or text.endswith(".json") else text


def _configured(name: str | None) -> Config:
    from fastgan_aug.config import Config, load_config

    return load_config(name) if name else Config(name="serve")


def _print_batch(batch: BalancedBatch, out: Path, console: Console) -> None:
    table = Table("cell", "present", "target", "generated", "note")
    for key, row in batch.plan.asked.items():
        note = row.reason or ("" if row.seen else "unseen in training")
        table.add_row(key, str(row.present), str(row.target), str(row.generate), note)
    console.print(table)
    for warning in batch.plan.warnings:
        console.print(f"Warning: {warning}")
    origin = batch.provenance
    console.print(
        f"{len(batch)} images by {origin.model} version {origin.version}, seed {origin.seed}: {out}"
    )
