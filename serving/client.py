"""The client: ask a running service for the images that a data set lacks.

    >>> counts = {"COR/normal": 129, "COR/unilateral": 109, "COR/bilateral": 52}
    >>> batch = request_balanced_batch(counts, seed=7)      # doctest: +SKIP
    >>> batch.images.shape, batch.provenance.version        # doctest: +SKIP
    ((97, 64, 64), '3')

It needs numpy, pyarrow and httpx: no torch, Ray or MLflow.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import pyarrow as pa

from fastgan_aug.errors import BalanceError, FastGANAugError, ServiceUnavailable
from fastgan_aug.target import MAJORITY, Target, count_labels, key_text
from serving.batch import BalancedBatch
from serving.protocol import MEDIA_TYPE, PROBLEM_TYPE, decode, error_of
from serving.request import DEFAULT_MODEL, BatchRequest

__all__ = ["BalancedBatch", "Client", "request_balanced_batch"]

DEFAULT_URL = "http://127.0.0.1:8000"
ATTEMPTS = 4
FIRST_PAUSE = 0.25
# Waiting again would not help: nobody listens there, or the time is up already.
_AT_ONCE = (httpx.ConnectError, httpx.TimeoutException, httpx.UnsupportedProtocol)

Counts = Mapping[Any, int] | Iterable[Hashable]
T = TypeVar("T")
log = logging.getLogger(__name__)


class _Retry(Exception):
    """The attempt was lost on the way; the same request may be sent again."""


class Client:
    """A connection to the service, to be used with ``with`` or closed.

    Args:
        url: Where the service listens.
        timeout: Seconds without a byte after which the service counts as not answering.
        transport: How requests travel; given by tests to call an application in process.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        limits = httpx.Timeout(timeout, connect=min(timeout, 10.0))
        try:
            host = httpx.URL(self.url).host
        except httpx.InvalidURL as error:
            raise self._unavailable(error) from error
        # A proxy of the environment cannot reach this machine's own loopback addresses.
        outside = host not in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(
            base_url=self.url, timeout=limits, transport=transport, trust_env=outside
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def request_balanced_batch(
        self,
        counts: Counts,
        target: Target = MAJORITY,
        *,
        model: str = DEFAULT_MODEL,
        seed: int = 0,
        max_ratio: float | None = None,
        filter: None = None,
        allow_unseen: bool = False,
    ) -> BalancedBatch:
        """Asks for the images that fill every cell of ``counts`` up to ``target``.

        Args:
            counts: Real images there are: a mapping by cell (or by the values of one factor), or
                a sequence of labels, as in ``y``.
            target: Desired count after filling, real and synthetic together: ``"majority"``, an
                integer, or a mapping (keys left out stay as they are).
            model: An alias (``champion``, ``candidate``) or a version's number.
            seed: The same request with the same seed, answered by the same version, gives the
                same images.
            max_ratio: Most synthetic per real image over the whole request; None fills exactly.
            filter: None; samples are not filtered by quality.
            allow_unseen: Whether cells without training images may be generated.

        Raises:
            BalanceError: counts and target cannot be met, or a value is not accepted.
            UnknownCell: the model has no such cell.
            UnseenCell: the model never saw such an image.
            ModelNotFound: no such version or alias.
            ServiceUnavailable: the service is not up, or did not answer in time.
        """
        if filter is not None:
            raise BalanceError(
                f"filter is {filter!r}",
                allowed="None: every generated image is returned",
                do="leave filter out",
            )
        request = BatchRequest(
            _plain(counts) if isinstance(counts, Mapping) else count_labels(counts),
            _plain(target) if isinstance(target, Mapping) else _number(target),
            model,
            _number(seed),
            max_ratio,
            allow_unseen,
        )
        return self._repeated(lambda: self._batch(request))

    def model(self, model: str = DEFAULT_MODEL) -> dict[str, Any]:
        """What the service knows of a model: version, cells, training counts, size, digests.

        Raises:
            ModelNotFound: no such version or alias.
            ServiceUnavailable: the service is not up, or did not answer in time.
        """
        return self._repeated(lambda: self._model(model))

    def ready(self) -> bool:
        """Whether the service is up and its default model generates."""
        try:
            return self._http.get("/v1/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    # -- one attempt ---------------------------------------------------------------------------

    def _batch(self, request: BatchRequest) -> BalancedBatch:
        headers = {"content-type": "application/json", "accept": MEDIA_TYPE}
        body = request.to_json()
        with self._http.stream(
            "POST", "/v1/balanced-batch", content=body, headers=headers
        ) as response:
            _raise_for_problem(response)
            try:
                with io.BufferedReader(_Body(response)) as stream:
                    return BalancedBatch.collect(*decode(stream))
            except (ValueError, OSError, pa.ArrowException) as error:
                raise _Retry(f"the answer broke off: {error}") from error

    def _model(self, model: str) -> dict[str, Any]:
        response = self._http.get("/v1/model", params={"model": model})
        _raise_for_problem(response)
        try:
            return dict(response.json())
        except ValueError as error:
            raise _Retry(f"the answer is no JSON: {error}") from error

    def _repeated(self, attempt: Callable[[], T]) -> T:
        """Repeats an attempt that was lost on the way; the same request gives the same answer."""
        for number in range(ATTEMPTS):
            try:
                return attempt()
            except _AT_ONCE as error:
                raise self._unavailable(error) from error
            except (_Retry, httpx.TransportError) as error:
                if number + 1 == ATTEMPTS:
                    if isinstance(error.__cause__, FastGANAugError):
                        raise error.__cause__ from None
                    raise self._unavailable(error) from error
                log.warning("attempt %d was lost (%s); trying again", number + 1, error)
                time.sleep(FIRST_PAUSE * 2**number)
        raise AssertionError("unreachable")

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        late = isinstance(error, httpx.TimeoutException)
        what = f"sent nothing for {self.timeout:g} s" if late else f"did not answer: {error}"
        return ServiceUnavailable(
            f"the service at {self.url} {what}",
            allowed="the address of a running service",
            do="start it with `fastgan-aug serve`, or give its address with url=",
        )


def request_balanced_batch(
    counts: Counts,
    target: Target = MAJORITY,
    *,
    model: str = DEFAULT_MODEL,
    seed: int = 0,
    max_ratio: float | None = None,
    filter: None = None,
    allow_unseen: bool = False,
    url: str = DEFAULT_URL,
) -> BalancedBatch:
    """Opens a `Client`, asks once and closes it; see `Client.request_balanced_batch`."""
    with Client(url) as client:
        return client.request_balanced_batch(
            counts,
            target,
            model=model,
            seed=seed,
            max_ratio=max_ratio,
            filter=filter,
            allow_unseen=allow_unseen,
        )


class _Body(io.RawIOBase):
    """A response's body as a file, so that it is decoded while it arrives."""

    def __init__(self, response: httpx.Response) -> None:
        self._pieces, self._rest = response.iter_bytes(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        n = min(len(target), len(self._rest))
        target[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n


def _raise_for_problem(response: httpx.Response) -> None:
    if response.is_success:
        return
    body = response.read()
    told = _problem_of(response, body)
    lost = _Retry(f"status {response.status_code}: {body[:200].decode(errors='replace')}")
    # A replica that dies is told as 500 in plain text by the proxy: the next one may answer.
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise lost from told
    if told is None and response.is_server_error:
        raise lost
    if told is None:
        raise ServiceUnavailable(
            f"{response.url} answered {response.status_code} without a problem description",
            allowed="the address of this project's service",
            do="check the address: another service may listen there",
        )
    raise told


def _problem_of(response: httpx.Response, body: bytes) -> FastGANAugError | None:
    if not response.headers.get("content-type", "").startswith(PROBLEM_TYPE):
        return None
    try:
        return error_of(json.loads(body))
    except (ValueError, AttributeError):
        return None


def _plain(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {key_text(key): _number(n) for key, n in mapping.items()}


def _number(value: Any) -> Any:
    """Numpy's integers as Python's; anything else stays, for the request to judge."""
    is_index = hasattr(value, "__index__") and not isinstance(value, bool)
    return int(value) if is_index else value
