"""Tokens: only hashes are kept, two of a name live side by side, a changed file counts at once."""

from __future__ import annotations

import os
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan_aug.errors import AccessRefused, ConfigError
from serving.server.tokens import (
    DAMAGED_SECONDS,
    VARIABLE,
    TokenStore,
    add_to_file,
    entry_text,
    find_store,
    hash_of,
    make_token,
    parse_tokens,
)


def bearer(token: str) -> str:
    return f"Bearer {token}"


def test_a_token_is_found_by_its_hash_and_kept_nowhere(tmp_path: Path) -> None:
    secret, entry = make_token("lab", "generate", images_per_minute=1000)
    add_to_file(entry, tmp_path / "tokens.toml")
    text = (tmp_path / "tokens.toml").read_text()
    assert secret not in text
    assert (tmp_path / "tokens.toml").stat().st_mode & 0o777 == 0o600
    assert TokenStore.of_file(tmp_path / "tokens.toml").find(bearer(secret)) == entry


@given(
    st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True),
    st.sampled_from(["generate", "admin"]),
    st.none() | st.integers(1, 10**6),
)
def test_what_is_written_is_read_back(name: str, role: str, limit: int | None) -> None:
    _, entry = make_token(name, role, requests_per_minute=limit)
    assert parse_tokens(entry_text(entry)) == (entry,)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {}", "{}", "Bearer {}x", "x" * 9999,
               "Bearer \udcff"],
)  # fmt: skip
def test_none_and_wrong_ones_are_refused_without_showing_them(header: str) -> None:
    secret, entry = make_token("lab", "generate")
    store = TokenStore(lambda: entry_text(entry), lambda: None)
    with pytest.raises(AccessRefused) as caught:
        store.find(header.format(secret))
    assert secret not in str(caught.value)
    assert "x" * 99 not in str(caught.value)


def test_rotation_needs_no_restart_and_revoked_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    (old, old_entry), (new, new_entry) = (make_token("lab", "generate") for _ in range(2))
    add_to_file(old_entry, file)
    store = TokenStore.of_file(file)
    add_to_file(new_entry, file)
    assert {store.find(bearer(t)).name for t in (old, new)} == {"lab"}
    with pytest.raises(ConfigError, match="more than two"):
        add_to_file(make_token("lab", "generate")[1], file)
    file.write_text(entry_text(new_entry))
    assert store.find(bearer(new)) == new_entry
    with pytest.raises(AccessRefused):
        store.find(bearer(old))


@pytest.mark.parametrize("how", ["emptied", "a comment", "gone"])
def test_without_its_last_token_the_service_lets_nobody_in(tmp_path: Path, how: str) -> None:
    file = tmp_path / "tokens.toml"
    secret, entry = make_token("lab", "admin")
    add_to_file(entry, file)
    store = TokenStore.of_file(file)
    if how == "gone":
        os.unlink(file)
    else:
        file.write_text("" if how == "emptied" else "# lab was revoked\n")
    for _ in range(2):
        with pytest.raises(AccessRefused):
            store.find(bearer(secret))
    add_to_file(entry, file)
    assert store.find(bearer(secret)) == entry


def test_a_damaged_file_locks_nobody_out_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens.toml"
    secret, entry = make_token("lab", "admin")
    add_to_file(entry, file)
    store = TokenStore.of_file(file)
    file.write_text("[[token")
    assert store.find(bearer(secret)).role == "admin"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + DAMAGED_SECONDS / 2)
    file.write_text("[[token ")  # still damaged: the moment does not begin anew
    assert store.find(bearer(secret)).role == "admin"
    monkeypatch.setattr(time, "monotonic", lambda: now + DAMAGED_SECONDS)
    with pytest.raises(AccessRefused):
        store.find(bearer(secret))
    file.write_text(entry_text(entry))
    assert store.find(bearer(secret)) == entry


def test_text_that_cannot_be_read_once_is_read_at_the_next_call() -> None:
    (old, old_entry), (new, new_entry) = (make_token("lab", "generate") for _ in range(2))
    answers = iter([entry_text(old_entry), OSError("stale handle"), entry_text(new_entry)])

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    stamps = iter([0])
    store = TokenStore(read, lambda: next(stamps, 1))
    assert store.find(bearer(old)) == old_entry
    assert store.find(bearer(new)) == new_entry


@pytest.mark.parametrize(
    "change",
    [{"role": "root"}, {"name": "a b"}, {"name": 3}, {"sha256": "abc"}, {"images_per_minute": 0},
     {"requests_per_minute": True}, {"colour": "red"}],
)  # fmt: skip
def test_bad_entries_are_refused_and_hashes_not_shown(change: dict[str, object]) -> None:
    plain = {"name": "lab", "sha256": hash_of("x"), "role": "generate"} | change
    text = "[[token]]\n" + "".join(
        f"{k} = {str(v).lower() if isinstance(v, bool) else repr(v)}\n" for k, v in plain.items()
    )
    tomllib.loads(text)
    with pytest.raises(ConfigError) as caught:
        parse_tokens(text)
    assert hash_of("x") not in str(caught.value)


def test_no_file_no_variable_no_tokens(tmp_path: Path) -> None:
    assert find_store(None, {}) is None
    secret, entry = make_token("lab", "generate")
    store = find_store(None, {VARIABLE: entry_text(entry)})
    assert store is not None
    assert store.find(bearer(secret)) == entry
    with pytest.raises(ConfigError, match="cannot be read"):
        find_store(str(tmp_path / "missing.toml"), {})
    with pytest.raises(ConfigError):
        find_store(None, {VARIABLE: "token = 3"})
