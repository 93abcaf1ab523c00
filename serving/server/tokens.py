"""Bearer tokens: who may call the service, and how much of it.

    [[token]]
    name = "lab"                  # two entries may share a name: the old and the new token
    sha256 = "9f86d081884c7d65..."
    role = "generate"             # or "admin", who may also see status and metrics
    requests_per_minute = 600     # left out: no limit
    images_per_minute = 100000

The file holds hashes alone. A token is 256 random bits, so that a plain sha256 cannot be guessed
back, and a slow hash would protect nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastgan_aug.errors import AccessRefused, ConfigError
from fastgan_aug.storage import replace_when_complete

VARIABLE = "FASTGAN_AUG_TOKENS"
"""Environment variable that holds the file's text, where there is no file."""
PREFIX = "fga_"
ROLES = ("generate", "admin")
MOST_OF_A_NAME = 2  # the old and the new one, while they are exchanged
LONGEST_HEADER = 200
DAMAGED_SECONDS = 60.0  # for which the former tokens stay valid when their file cannot be read
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Token:
    """One entry of the file.

    Attributes:
        name: Whose it is; limits are counted by name.
        sha256: Of the token, in hexadecimal digits.
        role: ``generate`` or ``admin``.
        requests_per_minute: None has no limit.
        images_per_minute: None has no limit.

    Raises:
        ConfigError: a field has a value of another kind; the hash is not shown.
    """

    name: str
    sha256: str
    role: str = "generate"
    requests_per_minute: float | None = None
    images_per_minute: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise _bad(f"a name is {self.name!r}", "1 to 100 letters, digits, '_', '.', '-'")
        if not isinstance(self.sha256, str) or not _SHA256.match(self.sha256):
            raise _bad(f"sha256 of {self.name!r} is none", "64 hexadecimal digits")
        if self.role not in ROLES:
            raise _bad(f"role of {self.name!r} is {self.role!r}", " or ".join(ROLES))
        for rate in (self.requests_per_minute, self.images_per_minute):
            number = isinstance(rate, int | float) and not isinstance(rate, bool)
            if rate is not None and not (number and rate > 0):
                raise _bad(f"a limit of {self.name!r} is {rate!r}", "a number above 0")


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Reads the text of a token file.

    Raises:
        ConfigError: no TOML, an unknown key, a bad value, no token, or a name more than twice.
    """
    tokens = _entries(text)
    if not tokens:
        raise _bad("there is no token", "at least one [[token]]")
    return tokens


def _entries(text: str) -> tuple[Token, ...]:
    """As ``parse_tokens``, but no token at all is a file whose last one was removed."""
    try:
        entries = tomllib.loads(text).get("token", [])
        tokens = tuple(Token(**entry) for entry in entries)
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise _bad(f"the tokens cannot be read: {type(error).__name__}", "[[token]] tables") from (
            error
        )
    names = Counter(token.name for token in tokens)
    often = sorted(name for name, n in names.items() if n > MOST_OF_A_NAME)
    if often:
        raise _bad(f"{often} have more than two tokens", "the old and the new token of a name")
    return tokens


def _bad(what: str, allowed: str) -> ConfigError:
    return ConfigError(what, allowed=allowed, do="make entries with `fastgan-aug token NAME`")


class TokenStore:
    """The tokens that are valid now: none, where the text has none any more or its file is gone.

    Args:
        read: Gives the file's text; called again whenever ``stamp`` changes.
        stamp: What changes when the text does.

    Raises:
        ConfigError: the tokens cannot be read.
    """

    def __init__(self, read: Callable[[], str], stamp: Callable[[], object]) -> None:
        self._read, self._stamp = read, stamp
        self._seen = stamp()
        self._tokens = parse_tokens(read())
        self._until: float | None = None  # when damaged: the end of the former tokens, monotonic s

    @classmethod
    def of_file(cls, path: Path) -> TokenStore:
        """The tokens of a file, read again when it changes.

        Raises:
            ConfigError: no such file, or it cannot be read.
        """
        try:
            return cls(lambda: path.read_text(encoding="utf-8"), lambda: _stamp(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the token file {path} cannot be read: {error}",
                allowed="a file that this user may read",
                do="make one with `fastgan-aug token NAME --file FILE`",
            ) from error

    def find(self, authorization: str) -> Token:
        """The token of an ``Authorization`` header.

        Every stored hash is compared, each in constant time: the answer's time tells nothing.

        Raises:
            AccessRefused: no bearer token, or none of these.
        """
        self._refresh()
        scheme, _, sent = authorization.partition(" ")
        digest = hash_of(sent.strip()) if len(authorization) <= LONGEST_HEADER else ""
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        if found is None or scheme.lower() != "bearer":
            raise AccessRefused(
                "the token is none of this service's" if authorization else "no token was sent",
                allowed="the header `Authorization: Bearer TOKEN`",
                do="ask whoever runs the service for a token",
            )
        return found

    def _refresh(self) -> None:
        if (stamp := self._stamp()) != self._seen:
            self._read_again(stamp)
        if self._until is not None and time.monotonic() >= self._until:
            self._tokens = ()  # a revoked token must not live on behind a mistake in the file

    def _read_again(self, stamp: object) -> None:
        try:
            text = self._read()
            self._seen = stamp
            self._tokens, self._until = _entries(text), None
            log.info("tokens read again: %d", len(self._tokens))
        except FileNotFoundError:
            self._seen, self._tokens, self._until = stamp, (), None
            log.error("the file of tokens is gone: nobody is let in")
        except (OSError, ValueError, ConfigError) as error:
            # A file that is just being written must not lock everyone out.
            if self._until is None:
                self._until = time.monotonic() + DAMAGED_SECONDS
            log.error(
                "the tokens changed, but cannot be read; the former are valid for %g s more: %s",
                max(0.0, self._until - time.monotonic()), error,
            )  # fmt: skip


def find_store(path: str | None, environment: Mapping[str, str] | None = None) -> TokenStore | None:
    """The tokens of a file, else of the environment, else None: everyone on this machine may call.

    Raises:
        ConfigError: they are given, but cannot be read.
    """
    if path:
        return TokenStore.of_file(Path(path))
    text = (os.environ if environment is None else environment).get(VARIABLE, "")
    return TokenStore(lambda: text, lambda: None) if text.strip() else None


def hash_of(token: str) -> str:
    """Sha256 of a token, in hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def make_token(name: str, role: str, **limits: float | None) -> tuple[str, Token]:
    """A new token and its entry; the token itself is kept nowhere.

    Raises:
        ConfigError: the name, role or a limit is not allowed.
    """
    token = PREFIX + secrets.token_urlsafe(32)
    return token, Token(name, hash_of(token), role, **limits)


def entry_text(token: Token) -> str:
    """The entry as it stands in the file."""
    values: dict[str, Any] = {"name": token.name, "sha256": token.sha256, "role": token.role}
    lines = [f'{key} = "{value}"' for key, value in values.items()]
    limits = {
        "requests_per_minute": token.requests_per_minute,
        "images_per_minute": token.images_per_minute,
    }
    lines += [f"{key} = {value:g}" for key, value in limits.items() if value is not None]
    return "\n".join(["[[token]]", *lines, ""])


def add_to_file(token: Token, path: Path) -> None:
    """Appends an entry; the file is replaced at once, and only this user may read it.

    Raises:
        ConfigError: the file holds no tokens, or the name would have more than two.
        StorageError: it cannot be written.
    """
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    text = (old.rstrip() + "\n\n" if old.strip() else "") + entry_text(token)
    parse_tokens(text)
    with replace_when_complete(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text, encoding="utf-8")


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    # st_ctime: a change of the permissions alone may make it readable, or not.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
