"""`fastgan-aug token`: the token on stdout once, its hash in the file."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from fastgan_aug.cli.main import app
from fastgan_aug.errors import ConfigError
from serving.server.tokens import TokenStore, parse_tokens


def test_a_token_is_printed_once_and_opens_the_service(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    arguments = ["token", "lab", "--role", "admin", "--images-per-minute", "500"]
    told = CliRunner().invoke(app, [*arguments, "--file", str(file)])
    secret = told.stdout.strip()
    assert told.exit_code == 0
    assert secret not in file.read_text()
    found = TokenStore.of_file(file).find(f"Bearer {secret}")
    assert (found.name, found.role, found.images_per_minute) == ("lab", "admin", 500)


def test_without_a_file_the_entry_is_printed() -> None:
    told = CliRunner().invoke(app, ["token", "lab"])
    assert told.stdout.strip().startswith("fga_")
    (entry,) = parse_tokens(told.stderr[told.stderr.index("[[token]]") :].partition("\n\n")[0])
    assert entry.role == "generate"


def test_a_role_that_is_none_is_refused(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["token", "lab", "--role", "root"])
    assert isinstance(told.exception, ConfigError)
