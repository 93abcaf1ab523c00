"""Where the service is, and what may be sent there: address, token, time limits."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from fastgan_aug.errors import ConfigError, ServiceUnavailable
from serving.protocol import MEDIA_TYPE

DEFAULT_URL = "http://127.0.0.1:8000"
TOKEN_VARIABLE = "FASTGAN_AUG_TOKEN"
CONNECT_SECONDS = 10.0
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z", re.ASCII)  # RFC 6750, section 2.1


@dataclass(frozen=True)
class Address:
    """A service as a client reaches it.

    Attributes:
        url: Where it listens, without a slash at the end.
        timeout: Seconds without a byte after which it counts as not answering.
        deadline: Seconds that a whole call may take; None as long as images keep coming.
        token: Sent with every request; never shown.
    """

    url: str
    timeout: float
    deadline: float | None = None
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, timeout: float, deadline: float | None, token: str | None) -> Self:
        """Checks an address and its token.

        Args:
            url: As ``Client`` takes it.
            timeout: Seconds.
            deadline: Seconds, or None.
            token: None takes that of the environment variable FASTGAN_AUG_TOKEN, if there is one.

        Raises:
            ServiceUnavailable: no address.
            ConfigError: no token, or one that would travel unencrypted to another machine.
        """
        found = cls(url.rstrip("/"), timeout, deadline, token or os.environ.get(TOKEN_VARIABLE))
        try:
            parsed = httpx.URL(found.url)
        except httpx.InvalidURL as error:
            raise found.unavailable(error) from error
        found._check_token(parsed)
        return found

    def _check_token(self, parsed: httpx.URL) -> None:
        if self.token is None:
            return
        if not _TOKEN.match(self.token):
            raise ConfigError(
                "the token has characters that no bearer token has",
                allowed="letters, digits, '-', '.', '_', '~', '+', '/', and '=' at its end",
                do=f"correct token=, or the environment variable {TOKEN_VARIABLE}",
            )
        if parsed.scheme != "https" and not is_loopback(parsed.host):
            raise ConfigError(
                f"a token would travel unencrypted to {parsed.host or 'another machine'}",
                allowed="https://, or http:// to this machine itself (127.0.0.1, ::1, localhost)",
                do="reach the service by HTTPS; deploy/README.md tells how to put TLS before it",
            )

    @property
    def is_here(self) -> bool:
        """Whether it is this machine's own loopback address."""
        return is_loopback(httpx.URL(self.url).host)

    @property
    def options(self) -> dict[str, Any]:
        """What the sync and the async connection of httpx are made with."""
        headers = {"accept-encoding": "identity"} if self.is_here else {}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        # A proxy of the environment cannot reach this machine's own loopback addresses.
        return {"base_url": self.url, "headers": headers, "trust_env": not self.is_here}

    @property
    def batch_headers(self) -> Mapping[str, str]:
        """Of a request for images."""
        return {"content-type": "application/json", "accept": f"{MEDIA_TYPE}, application/json"}

    def unavailable(self, why: Exception | str) -> ServiceUnavailable:
        """The error for a service that did not answer, or not in time."""
        late = isinstance(why, httpx.TimeoutException)
        what = f"sent nothing for {self.timeout:g} s" if late else f"did not answer: {why}"
        return ServiceUnavailable(
            f"the service at {self.url} {what}",
            allowed="the address of a running service",
            do="start it with `fastgan-aug serve`, or give its address with url=",
        )

    def overdue(self, why: Exception | str) -> ServiceUnavailable:
        """The error for a call that would take longer than its deadline."""
        return ServiceUnavailable(
            f"the call to {self.url} was not done within {self.deadline:g} s: {why}",
            allowed="what the service can do in that time",
            do="raise deadline=, or ask for fewer images",
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its name or number."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
