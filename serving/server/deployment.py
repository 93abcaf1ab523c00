"""The Ray Serve deployment: replicas hold models; one function starts it, one ends it.

serve deploy deploy/serve.yaml    # on a cluster: serving.server.deployment:app_builder
start_service(...)                # in a Ray that this process has initialised
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import httpx
import ray
from fastapi import FastAPI
from pydantic import ConfigDict, ValidationError
from ray import serve
from ray.serve.schema import ApplicationStatus

from fastgan_aug.config import ReplicaConfig, ServingConfig
from fastgan_aug.engines.mlflow_server import check_port
from fastgan_aug.errors import ConfigError, FastGANAugError, ServiceUnavailable
from serving.address import is_loopback
from serving.protocol import PROBLEM_TYPE, error_of
from serving.request import DEFAULT_MODEL
from serving.server.app import create_app, try_model
from serving.server.logs import log_json_lines
from serving.server.ray_measures import RayMeasures
from serving.server.registered import RegistryModels
from serving.server.scheduler import Scheduler
from serving.server.tokens import VARIABLE, find_store

APPLICATION = "fastgan-aug"
DEPLOYMENT = "SynthesisReplica"
HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
TARGET_REQUESTS = 8  # at a time and replica, above which Serve adds a replica
log = logging.getLogger(__name__)


class ServiceArguments(ReplicaConfig):
    """What an application is built from: the ``args`` of ``deploy/serve.yaml``.

    Attributes:
        tracking_uri: Where the registry is.
        model_name: Name of the registered model.
        default_model: The alias or version that readiness speaks of.
    """

    model_config = ConfigDict(protected_namespaces=())

    tracking_uri: str
    model_name: str = "fastgan-aug"
    default_model: str = DEFAULT_MODEL


@serve.ingress()
class SynthesisReplica:
    """One replica: the application over the models of the registry."""

    def __init__(self, args: ServiceArguments) -> None:
        log_json_lines(logging.getLogger("serving"))
        self._measure, self._args = RayMeasures(), args
        self._tokens = find_store(args.tokens)
        self._scheduler = Scheduler(
            most_requests=args.most_waiting_requests,
            most_images=args.most_waiting_images,
            measure=self._measure,
        )
        self._models = RegistryModels(
            args.model_name,
            args.tracking_uri,
            default=args.default_model,
            threads=args.threads,
            engine=args.engine,
            poll_seconds=args.poll_seconds,
            most_versions=args.most_versions,
            measure=self._measure,
        )
        try:
            self._models.get(args.default_model)
        except FastGANAugError as error:
            # Not a replica's fault, and no reason to restart it: readiness tells.
            log.warning("the default model is not loaded: %s", error)
        self._models.follow()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application that Serve puts behind its proxy."""
        return create_app(
            self._models,
            default_model=self._args.default_model,
            most_images=self._args.most_images,
            tokens=self._tokens,
            scheduler=self._scheduler,
            measure=self._measure,
        )

    async def check_health(self) -> None:
        """Runs the models in memory; an exception makes Serve replace the replica."""
        for model in self._models.loaded:
            await try_model(self._scheduler, model)

    def __del__(self) -> None:
        """Ends the threads; Serve has waited for the answers before."""
        self._models.close()
        self._scheduler.close()


def app_builder(args: Mapping[str, Any]) -> serve.Application:
    """The application that ``serve deploy`` builds from the file's ``args``.

    Without tokens it only warns: the address, and the replicas' environment, are not known here.

    Raises:
        ConfigError: an unknown key, a missing one, or a bad value.
    """
    try:
        # Serve itself converts only for annotations that are no text, which they are here.
        checked = ServiceArguments.model_validate(args)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(
            f"args: {told}",
            allowed=", ".join(ServiceArguments.model_fields),
            do="correct the args of the application in the Serve file",
        ) from None
    if checked.tokens is None and not os.environ.get(VARIABLE, "").strip():
        log.warning(
            "no tokens: unless %s is set where the replicas run, whoever reaches the service from "
            "its own machine may call, and so may everyone whom a proxy there lets through; set "
            "`tokens` in the args",
            VARIABLE,
        )
    return build_application(checked)


def build_application(args: ServiceArguments) -> serve.Application:
    """Binds the deployment to its arguments."""
    scale: dict[str, Any] = {"num_replicas": args.replicas}
    if args.most_replicas is not None:
        scale = {
            "autoscaling_config": {
                "min_replicas": args.replicas,
                "max_replicas": args.most_replicas,
                "target_ongoing_requests": TARGET_REQUESTS,
            }
        }
    service = serve.deployment(
        name=DEPLOYMENT,
        ray_actor_options={"num_cpus": args.cpus_per_replica},
        # The replica itself refuses what is too much, and says when to come back; what Serve
        # refuses, it refuses without saying. So Serve lets more through than is taken on.
        max_ongoing_requests=4 * args.most_waiting_requests + 16,
        health_check_period_s=10,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=args.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        **scale,
    )(SynthesisReplica)
    return service.bind(args)


def start_service(
    serving: ServingConfig, tracking_uri: str, model_name: str, default_model: str = DEFAULT_MODEL
) -> str:
    """Starts Serve in the Ray that this process has initialised, and waits until it is ready.

    Args:
        serving: Address, replicas, CPUs and how long to wait.
        tracking_uri: Where the registry is.
        model_name: Name of the registered model.
        default_model: The alias or version that readiness speaks of.

    Returns:
        The service's URL.

    Raises:
        ConfigError: the address is not this machine's own and there are no tokens, or they cannot
            be read.
        PortInUse: another process listens on the port.
        ModelNotFound: the default model does not exist; nothing is left running.
        ServiceUnavailable: it was not ready in time; the message says what was pending.
    """
    if not ray.is_initialized():
        # Serve would start or join a cluster on its own, perhaps another one's.
        raise ServiceUnavailable(
            "Ray is not initialised in this process",
            allowed="a process that has called ray.init",
            do='call ray.init(address="local", include_dashboard=False) first',
        )
    check_exposure(serving)
    if serving.haproxy and os.environ.get(HAPROXY) != "1":
        raise ConfigError(
            f"serving.haproxy is on, but {HAPROXY} was not set before Ray was loaded",
            allowed=f"{HAPROXY}=1 in the environment",
            do="set it, or start with `fastgan-aug serve`, which does",
        )
    check_port(serving.port, serving.host)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    deadline = time.monotonic() + serving.timeout
    named = {"tracking_uri": tracking_uri, "model_name": model_name, "default_model": default_model}
    shared = serving.model_dump(include=set(ReplicaConfig.model_fields))
    arguments = ServiceArguments.model_validate(shared | named)
    shown = f"[{serving.host}]" if ":" in serving.host else serving.host
    url = f"http://{shown}:{serving.port}".replace("//0.0.0.0:", "//127.0.0.1:")
    try:
        address = {"host": serving.host, "port": serving.port}
        serve.start(proxy_location="HeadOnly", http_options=address)
        # `serve.run` waits without end when resources are missing: deploy, then watch.
        target = serve.RunTarget(build_application(arguments), name=APPLICATION, route_prefix="/")
        serve.run_many(
            [target],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        _await_running(deadline, serving.timeout)
        _await_ready(url, deadline, serving.timeout)
    except BaseException:
        stop_service()
        raise
    return url


def check_exposure(serving: ServingConfig) -> None:
    """Refuses to listen to other machines without asking them for a token.

    Raises:
        ConfigError: that was asked for, or the tokens cannot be read.
    """
    exposed = serving.haproxy or not is_loopback(serving.host)
    if exposed and find_store(serving.tokens) is None:
        asked = "haproxy is on" if serving.haproxy else f"host is {serving.host!r}"
        raise ConfigError(
            f"serving.{asked}, and the service has no tokens",
            allowed="without tokens a loopback address (127.0.0.1, ::1, localhost), no HAProxy",
            do="make a token with `fastgan-aug token NAME --file FILE`, and set serving.tokens",
        )


def stop_service() -> None:
    """Ends the service's replicas, and Serve where nothing else is served; Ray itself stays."""
    if set(serve.status().applications) - {APPLICATION}:
        serve.delete(APPLICATION)
    else:
        serve.shutdown()


def _await_running(deadline: float, timeout: float) -> None:
    told = ""
    while True:
        found = serve.status().applications.get(APPLICATION)
        if found is not None and found.status == ApplicationStatus.RUNNING:
            return
        pending = "not deployed yet" if found is None else _pending(found)
        failed = found is not None and found.status == ApplicationStatus.DEPLOY_FAILED
        if failed or time.monotonic() > deadline:
            raise ServiceUnavailable(
                f"the service did not start within {timeout:g} s: {pending}",
                do="free CPUs (`ray status`), lower serving.cpus_per_replica, or raise "
                "serving.timeout",
            )
        if pending != told:
            log.info("waiting for the service: %s", pending)
            told = pending
        time.sleep(0.25)


def _pending(application: Any) -> str:
    parts = [f"application {application.status.value}", application.message]
    parts += [
        f"{name} {state.status.value} {dict(state.replica_states)} {state.message}"
        for name, state in application.deployments.items()
    ]
    return "; ".join(part.strip() for part in parts if part.strip())


def _await_ready(url: str, deadline: float, timeout: float) -> None:
    answer = "no answer"
    with httpx.Client(base_url=url, trust_env=False, timeout=10.0) as http:
        while time.monotonic() < deadline:
            try:
                response = http.get("/v1/health/ready")
            except httpx.TransportError as error:
                answer = str(error) or type(error).__name__
            else:
                if response.status_code == httpx.codes.OK:
                    return
                answer = response.text[:500]
                if response.headers.get("content-type", "").startswith(PROBLEM_TYPE):
                    raise error_of(response.json())
            time.sleep(0.25)
    raise ServiceUnavailable(
        f"the service at {url} was not ready within {timeout:g} s: {answer}",
        do="look into its log in Ray's session folder, or raise serving.timeout",
    )
