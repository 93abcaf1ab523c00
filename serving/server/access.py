"""`Guard`: the first thing that a request meets.

Token, role, rate and length are judged before the application reads the body (Serve's own Python
proxy takes it in meanwhile, whatever is judged). Afterwards a line in the log and a number in the
metrics tell what came of it.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastgan_aug.errors import AccessRefused, FastGANAugError, RequestTooLarge, RoleRefused
from serving.address import is_loopback
from serving.protocol import PROBLEM_TYPE, problem
from serving.server.measures import LATENCY, REJECTED, REQUESTS, Measure
from serving.server.rates import Rates
from serving.server.tokens import Token, TokenStore

LARGEST_BODY = 1 << 20
ADMIN = frozenset({"/v1/status"})
# What a load balancer or a reader of the description calls without a token.
OPEN = ("/v1/health/", "/openapi.json", "/docs")
UNANSWERED = 499  # nginx's number for a caller who went away
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}\Z")
log = logging.getLogger(__name__)


@dataclass
class Caller:
    """Who calls, and what is told of the call in the log.

    Attributes:
        request_id: Of the header ``X-Request-Id``, else a new one; answered in the same header.
        token: None on open paths, and where the service has no tokens.
        facts: Added to the log's line.
    """

    request_id: str
    token: Token | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """The caller that the guard has let through."""
    caller: Caller = scope["state"]["caller"]
    return caller


class Guard:
    """ASGI middleware.

    Args:
        app: What it guards.
        tokens: None: calls from this machine alone, without a token.
        rates: The limits of the tokens.
        measure: Where numbers go.
    """

    def __init__(
        self, app: ASGIApp, tokens: TokenStore | None, rates: Rates, measure: Measure
    ) -> None:
        self._app, self._tokens, self._rates, self._measure = app, tokens, rates, measure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with a problem, or lets the application answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        caller = Caller(sent if _REQUEST_ID.match(sent) else uuid4().hex)
        scope.setdefault("state", {})["caller"] = caller
        began, status = time.perf_counter(), UNANSWERED

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = caller.request_id
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        try:
            refusal = self._refusal(scope, caller)
            handler = self._app if refusal is None else problem_response(refusal)
            await handler(scope, receive, answer)
        except ClientDisconnect:
            pass  # the line in the log tells
        except Exception as error:
            log.exception("failed", extra={"facts": {"request_id": caller.request_id}})
            if status != UNANSWERED:
                raise  # the answer has begun: the broken stream tells the caller
            await problem_response(unexpected(error))(scope, receive, answer)
        finally:
            self._told(scope, caller, status, time.perf_counter() - began)

    def _refusal(self, scope: Scope, caller: Caller) -> FastGANAugError | None:
        try:
            self._admit(scope, caller)
        except FastGANAugError as error:
            return error
        return None

    def _admit(self, scope: Scope, caller: Caller) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._tokens is None:
            # No address at all is a Unix socket's.
            if not is_loopback((scope.get("client") or ("localhost",))[0]):
                raise AccessRefused(
                    "the service has no tokens, and the call comes from another machine",
                    allowed="calls from the machine that the service runs on",
                    do="give the service tokens: `fastgan-aug token NAME`",
                )
        elif not path.startswith(OPEN):
            caller.token = self._tokens.find(headers.get("authorization", ""))
            if path in ADMIN and caller.token.role != "admin":
                raise RoleRefused(
                    f"the role of {caller.token.name!r} is {caller.token.role!r}",
                    allowed=f"{path} is for the role 'admin'",
                    do="use an admin's token",
                )
            self._rates.take(caller.token, "requests", 1)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > LARGEST_BODY:
            raise too_large()

    def _told(self, scope: Scope, caller: Caller, status: int, seconds: float) -> None:
        # The route, not the path: a caller's own text makes no series and no line of the log.
        route = getattr(scope.get("route"), "path", "other")
        labels = {"route": route, "status": str(status)}
        self._measure(REQUESTS, 1, labels)
        self._measure(LATENCY, seconds, {"route": route})
        if status in (401, 403, 413, 429, 503):
            self._measure(REJECTED, 1, {"status": str(status)})
        quiet = route.startswith("/v1/health/") and status < 400
        facts = {
            "request_id": caller.request_id,
            "token": caller.token.name if caller.token else None,
            "method": scope["method"],
            "seconds": round(seconds, 4),
        }
        log.log(
            logging.DEBUG if quiet else logging.INFO,
            "request",
            extra={"facts": facts | labels | caller.facts},
        )


def too_large() -> RequestTooLarge:
    """What a body of more than ``LARGEST_BODY`` is answered."""
    return RequestTooLarge(
        f"the body has more than {LARGEST_BODY} bytes",
        allowed=f"a JSON object of at most {LARGEST_BODY} bytes, with its length told",
        do="give counts per cell, not one entry per image",
    )


def problem_response(error: FastGANAugError) -> Response:
    """The answer that tells an error."""
    return told_as_problem(problem(error), error.retry_after)


def unexpected(error: Exception) -> FastGANAugError:
    """What a failure of our own is answered: its kind, and nothing from the inside."""
    return FastGANAugError(
        f"the service failed on its side ({type(error).__name__})",
        do="look into the service's log; the request was not at fault",
    )


def told_as_problem(members: dict[str, Any], retry_after: float = 1.0) -> Response:
    """The answer of a problem's members; 401, 429 and 503 carry the header that belongs to them."""
    headers = {}
    if members["status"] in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(retry_after)))
    if members["status"] == 401:
        headers["www-authenticate"] = "Bearer"
    # ASCII: a lone surrogate in a caller's text cannot be written as UTF-8.
    return Response(json.dumps(members), members["status"], headers, PROBLEM_TYPE)
