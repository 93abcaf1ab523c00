"""The application: plan first, then generate and stream; no Ray in here."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from fastgan_aug.errors import (
    CheckpointError,
    FastGANAugError,
    RequestTooLarge,
)
from serving.generating import decide
from serving.models import LoadedModel, ModelSource
from serving.protocol import MEDIA_TYPE, PROBLEM_TYPE, problem
from serving.request import DEFAULT_MODEL, REQUEST_SCHEMA, BatchRequest, checked_model
from serving.server.access import (
    LARGEST_BODY,
    Guard,
    caller_of,
    problem_response,
    told_as_problem,
    too_large,
)
from serving.server.measures import Measure, measure_nothing
from serving.server.places import Place, places
from serving.server.rates import Rates
from serving.server.scheduler import Scheduler
from serving.server.stream import JobResponse, takes_zstd, unless_gone
from serving.server.tokens import TokenStore

MOST_IMAGES = 1_000_000
BODY_SECONDS = 30.0
FRESH_SECONDS = 5.0  # a batch this recent proves that the generator runs
MOST_LOOKUPS = 4  # in the registry, at a time
log = logging.getLogger(__name__)

_BODY = {"required": True, "content": {"application/json": {"schema": REQUEST_SCHEMA}}}
_SECURITY: dict[str, Any] = {"security": [{"bearer": []}, {}]}
_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait"}}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Arrow IPC stream", "content": {MEDIA_TYPE: {}}}
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may answer besides success, for the description."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in (401, 403, 413, 429, 500, *statuses):
        found[status] = {"description": "A problem, RFC 9457", "content": {PROBLEM_TYPE: {}}}
        if status in (429, 503):
            found[status]["headers"] = _RETRY
    return found


def create_app(
    models: ModelSource,
    *,
    default_model: str = DEFAULT_MODEL,
    most_images: int = MOST_IMAGES,
    tokens: TokenStore | None = None,
    scheduler: Scheduler | None = None,
    measure: Measure = measure_nothing,
) -> FastAPI:
    """Builds the application.

    Args:
        models: Where models come from.
        default_model: The model that readiness speaks of.
        most_images: Most images that one request may ask for.
        tokens: Who may call; None is everyone on this machine.
        scheduler: What runs the generator; None makes one.
        measure: Where numbers go.
    """
    # FastAPI's own /docs takes its scripts from a CDN: blank on a machine without the internet.
    app = FastAPIOffline(
        title="FastGAN-Aug",
        summary="Synthetic images that balance a data set",
        redoc_url=None,
        static_url="/docs/static",
    )
    app.add_exception_handler(FastGANAugError, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http_error)
    rates, work = Rates(), scheduler or Scheduler(measure=measure)
    # Their own threads: a registry that hangs must not take those in which plans are made.
    lookups = CapacityLimiter(MOST_LOOKUPS)
    app.add_middleware(Guard, tokens=tokens, rates=rates, measure=measure)
    _describe_tokens(app)

    @app.post(
        "/v1/balanced-batch",
        response_class=StreamingResponse,
        responses=_STREAM | _problems(404, 422, 502, 503),
        openapi_extra={"requestBody": _BODY} | _SECURITY,
    )
    async def balanced_batch(request: Request) -> Response:
        """Generates what fills `counts` up to `target`: an Arrow IPC stream of images."""
        asked = BatchRequest.from_json(await _limited_body(request))
        model = await _found(models, asked.model, lookups)
        header = await to_thread.run_sync(decide, asked, model, most_images)
        start, stop = header.span
        total, caller = stop - start, caller_of(request.scope)
        caller.facts |= {"batch": asked.request_id, "version": model.version, "images": total}
        wanted = places(header.plan, asked.seed, header.span)
        job = work.submit(model, wanted, total, filtered=bool(asked.filter))
        try:
            if caller.token is not None:  # what was not taken on uses nothing up
                rates.take(caller.token, "images", total)
            # The first chunk is made before the answer starts: a failure is still an error.
            first = await unless_gone(request, job.fetch())
        except BaseException:
            job.close()
            raise
        return JobResponse(header, first, job, zstd=takes_zstd(request))

    @app.post(
        "/v1/plan",
        responses=_problems(404, 422, 502, 503),
        openapi_extra={"requestBody": _BODY} | _SECURITY,
    )
    async def planned(request: Request) -> Response:
        """What a request of the same body would be answered with: the plan, before any image."""
        asked = BatchRequest.from_json(await _limited_body(request))
        model = await _found(models, asked.model, lookups)
        header = await to_thread.run_sync(decide, asked, model)
        return Response(header.to_json(), media_type="application/json")

    @app.get("/v1/model", responses=_problems(404, 422, 502, 503), openapi_extra=dict(_SECURITY))
    async def model_facts(model: str = default_model) -> dict[str, Any]:
        """Version, cells, training counts, image size and lineage of a model."""
        return (await _found(models, checked_model(model), lookups)).describe()

    _add_status(app, models, work, default_model, lookups)
    return app


def _add_status(
    app: FastAPI,
    models: ModelSource,
    work: Scheduler,
    default_model: str,
    lookups: CapacityLimiter,
) -> None:
    @app.get("/v1/status", responses=_problems(), openapi_extra=dict(_SECURITY))
    async def status() -> dict[str, Any]:
        """For the role `admin`: versions in memory, what was refused and why, what waits."""
        return {"models": models.status(), "queue": work.status()}

    @app.get("/v1/health/live", responses=_problems())
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/v1/health/ready", responses=_problems(503))
    async def ready() -> Response:
        """The default model is loaded, and the generator has just made an image."""
        try:
            model = await _found(models, default_model, lookups)
            if not work.made_within(FRESH_SECONDS):
                await try_model(work, model)
        except FastGANAugError as error:
            return told_as_problem(problem(error) | {"status": 503})
        return JSONResponse({"status": "ready", "model": model.name, "version": model.version})


async def _found(models: ModelSource, model: str, lookups: CapacityLimiter) -> LoadedModel:
    """The model; only what is not in memory waits for the registry, in a thread."""
    found = models.known(model)
    if found is None:
        found = await to_thread.run_sync(models.get, model, limiter=lookups)
    return found


async def try_model(scheduler: Scheduler, model: LoadedModel) -> None:
    """Generates one image where all are generated, as a health check.

    Raises:
        CheckpointError: the image is not finite.
    """
    cell = str(model.synthesizer.space.cells[0])
    job = scheduler.submit(model, iter([Place(cell, 0, 0)]), 1, always=True)
    try:
        chunk = await job.fetch()
    finally:
        job.close()
    if chunk is None or not np.isfinite(chunk.images).all():
        raise CheckpointError(
            f"version {model.version} of {model.name} generates values that are not finite",
            do="promote another version",
        )


async def _limited_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > LARGEST_BODY:
                    raise too_large()
    except TimeoutError:
        raise RequestTooLarge(
            f"the body did not arrive within {BODY_SECONDS:g} s", do="send it faster"
        ) from None
    return bytes(body)


def _describe_tokens(app: FastAPI) -> None:
    """Names the scheme in the description; the guard, not FastAPI, checks the tokens."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        described = made()
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
        return described

    app.openapi = openapi  # type: ignore[method-assign]


# -- problems --------------------------------------------------------------------------------------


def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, FastGANAugError)
    caller_of(request.scope).facts["code"] = error.code
    if error.http_status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return problem_response(error)


def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, title = f"http-{error.status_code}", str(error.detail)
    detail = f"{request.method} {request.url.path}: {title}"
    members = {"type": code, "code": code, "title": title, "status": error.status_code}
    answer = told_as_problem(members | {"detail": detail, "do": "see /openapi.json"})
    answer.headers.update(error.headers or {})
    return answer
