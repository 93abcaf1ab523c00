"""`fastgan-aug serve` and `fastgan-aug sample`: run the service, and ask it for images."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fastgan_aug.cli.sample import EXAMPLE, sample
from fastgan_aug.errors import ConfigError

if TYPE_CHECKING:
    from fastgan_aug.config import Config


def register_commands(app: typer.Typer) -> None:
    """Adds ``serve`` and ``sample`` to the command line."""
    app.command(epilog="Example: fastgan-aug serve --tracking-uri http://127.0.0.1:5000")(serve)
    app.command(epilog=EXAMPLE)(sample)


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
    from serving.server.deployment import check_exposure, start_service, stop_service
    from serving.server.ray_measures import metrics_urls
    from serving.server.tokens import find_store

    console = Console()
    logging.getLogger("serving").setLevel(logging.INFO)
    sigterm_as_ctrl_c()
    check_exposure(chosen.serving)
    with ray_cluster(chosen.engine.timeout):
        console.print(f"Starting {chosen.tracking.model} ({model}) ...")
        url = start_service(chosen.serving, uri, chosen.tracking.model, model)
        console.print(f"Serving at {url}, described at {url}/docs. Ctrl-C ends it.")
        console.print(f"Metrics for Prometheus at {', '.join(metrics_urls())}.")
        if find_store(chosen.serving.tokens) is None:
            console.print("No tokens: everyone on this machine may call, and nobody else.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass  # the way it is meant to end
        finally:
            console.print("Ending the service ...")
            stop_service()


def _configured(name: str | None) -> Config:
    from fastgan_aug.config import Config, load_config

    return load_config(name) if name else Config(name="serve")
