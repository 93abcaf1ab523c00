"""The application: plan first, then generate and stream; no Ray in here."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from fastgan_aug.conditions import Cell
from fastgan_aug.errors import BalanceError, FastGANAugError
from serving.generating import chunks, decide
from serving.models import LoadedModel, ModelSource
from serving.protocol import MEDIA_TYPE, PROBLEM_TYPE, encode, problem
from serving.request import DEFAULT_MODEL, REQUEST_SCHEMA, BatchRequest, checked_model

LARGEST_BODY = 1 << 20
MOST_IMAGES = 1_000_000
log = logging.getLogger(__name__)

_BODY = {"required": True, "content": {"application/json": {"schema": REQUEST_SCHEMA}}}
_PROBLEM = {"description": "A problem, RFC 9457", "content": {PROBLEM_TYPE: {}}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "Arrow IPC stream", "content": {MEDIA_TYPE: {}}}
}


def create_app(
    models: ModelSource, *, default_model: str = DEFAULT_MODEL, most_images: int = MOST_IMAGES
) -> FastAPI:
    """Builds the application.

    Args:
        models: Where models come from.
        default_model: The model that readiness speaks of.
        most_images: Most images that one request may ask for.
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
    app.add_exception_handler(Exception, _answer_unexpected)
    # The generator uses all threads it was given: one chunk at a time, requests take turns.
    turn = CapacityLimiter(1)

    @app.post(
        "/v1/balanced-batch",
        response_class=StreamingResponse,
        responses=_STREAM | _PROBLEMS,
        openapi_extra={"requestBody": _BODY},
    )
    async def balanced_batch(request: Request) -> StreamingResponse:
        """Generates what fills `counts` up to `target`: an Arrow IPC stream of images."""
        asked = BatchRequest.from_json(await _limited_body(request))
        model = await to_thread.run_sync(models.get, asked.model)
        header = await to_thread.run_sync(decide, asked, model, most_images)
        pieces = encode(header, chunks(model, header.plan, asked.seed, header.span))
        # The first chunk is made before the answer starts, so that a failure is still an error.
        opening = await to_thread.run_sync(next, pieces, b"", limiter=turn)
        stream = _stream(opening, pieces, turn)
        return StreamingResponse(stream, media_type=MEDIA_TYPE)

    @app.post("/v1/plan", responses=_PROBLEMS, openapi_extra={"requestBody": _BODY})
    async def planned(request: Request) -> Response:
        """What a request of the same body would be answered with: the plan, before any image."""
        asked = BatchRequest.from_json(await _limited_body(request))
        model = await to_thread.run_sync(models.get, asked.model)
        header = await to_thread.run_sync(decide, asked, model)
        return Response(header.to_json(), media_type="application/json")

    @app.get("/v1/model", responses=_PROBLEMS)
    async def model_facts(model: str = default_model) -> dict[str, Any]:
        """Version, cells, training counts, image size and lineage of a model."""
        return (await to_thread.run_sync(models.get, checked_model(model))).describe()

    @app.get("/v1/health/live")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/v1/health/ready", responses={503: _PROBLEM})
    async def ready() -> Response:
        """The default model is loaded and has just generated an image."""
        try:
            model = await to_thread.run_sync(models.get, default_model)
            await to_thread.run_sync(try_model, model)
        except FastGANAugError as error:
            return _problem_response(problem(error) | {"status": 503})
        return JSONResponse({"status": "ready", "model": model.name, "version": model.version})

    return app


def try_model(model: LoadedModel) -> None:
    """Generates one image, as a health check.

    Raises:
        ValueError: the image is not finite.
    """
    cell: Cell = model.synthesizer.space.cells[0]
    image = model.synthesizer.generate([cell], np.zeros(1, np.uint64))
    if not np.isfinite(image).all():
        raise ValueError(f"version {model.version} of {model.name} generates values not finite")


async def _stream(
    opening: bytes, pieces: Iterator[bytes], turn: CapacityLimiter
) -> AsyncIterator[bytes]:
    yield opening
    # An empty piece would be the end of an HTTP body; the encoder makes none.
    while piece := await to_thread.run_sync(next, pieces, b"", limiter=turn):
        yield piece


async def _limited_body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_BODY:
            raise BalanceError(
                f"the body has more than {LARGEST_BODY} bytes",
                allowed=f"a JSON object of at most {LARGEST_BODY} bytes",
                do="give counts per cell, not one entry per image",
            )
    return bytes(body)


# -- problems --------------------------------------------------------------------------------------


def _problem_response(members: dict[str, Any]) -> Response:
    # ASCII: a lone surrogate in a caller's text cannot be written as UTF-8.
    text = json.dumps(members)
    return Response(text, members["status"], media_type=PROBLEM_TYPE)


def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, FastGANAugError)
    if error.http_status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return _problem_response(problem(error))


def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = str(error.detail)
    members = {"type": "about:blank", "title": title, "status": error.status_code}
    detail = f"{request.method} {request.url.path}: {title}"
    return _problem_response(members | {"detail": detail, "do": "see /openapi.json"})


def _answer_unexpected(request: Request, error: Exception) -> Response:
    log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    told = FastGANAugError(
        f"the service failed on its side ({type(error).__name__})",
        do="look into the service's log; the request was not at fault",
    )
    return _problem_response(problem(told))
