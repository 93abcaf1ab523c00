"""What Serve is told, from the configuration; nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgan_aug.config import ReplicaConfig, ServingConfig
from fastgan_aug.errors import ConfigError
from serving.server.deployment import (
    ServiceArguments,
    app_builder,
    build_application,
    check_exposure,
)
from serving.server.tokens import VARIABLE, add_to_file, entry_text, make_token


def options(**changes: object):
    args = ServiceArguments.model_validate({"tracking_uri": "http://127.0.0.1:5000"} | changes)
    return build_application(args)._bound_deployment


def test_a_fixed_number_of_replicas_or_a_range() -> None:
    assert options(replicas=3).num_replicas == 3
    scaled = options(replicas=2, most_replicas=5)._deployment_config.autoscaling_config
    assert (scaled.min_replicas, scaled.max_replicas) == (2, 5)
    with pytest.raises(ValueError, match="most_replicas"):
        ServingConfig(replicas=3, most_replicas=2)


def test_serve_lets_more_through_than_a_replica_takes_on() -> None:
    # What Serve itself refuses, it refuses without Retry-After.
    for most in (1, 64):
        assert options(most_waiting_requests=most).max_ongoing_requests > 2 * most


def test_drain_is_what_was_asked() -> None:
    assert options(drain_seconds=7)._deployment_config.graceful_shutdown_timeout_s == 7


def test_the_arguments_are_those_of_the_configuration() -> None:
    own = {"tracking_uri", "model_name", "default_model"}
    assert set(ServiceArguments.model_fields) == set(ReplicaConfig.model_fields) | own
    with pytest.raises(ConfigError, match="most_imagse"):
        app_builder({"tracking_uri": "x", "most_imagse": 3})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_need_tokens(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="no tokens"):
        check_exposure(ServingConfig(host=host))
    for own in ("127.0.0.1", "::1", "localhost"):
        check_exposure(ServingConfig(host=own))
    _, entry = make_token("lab", "generate")
    add_to_file(entry, tmp_path / "tokens.toml")
    check_exposure(ServingConfig(host=host, tokens=str(tmp_path / "tokens.toml")))
    monkeypatch.setenv(VARIABLE, entry_text(entry))
    check_exposure(ServingConfig(host=host))
    with pytest.raises(ConfigError, match="cannot be read"):
        check_exposure(ServingConfig(host=host, tokens=str(tmp_path / "missing.toml")))


def test_haproxy_needs_tokens_and_is_asked_for_before_ray_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="haproxy"):
        check_exposure(ServingConfig(haproxy=True))  # its ports are open to other machines
    _, entry = make_token("lab", "generate")
    add_to_file(entry, tmp_path / "tokens.toml")
    check_exposure(ServingConfig(haproxy=True, tokens=str(tmp_path / "tokens.toml")))


def test_what_serve_deploy_builds_without_tokens_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    app_builder({"tracking_uri": "x", "tokens": "/etc/tokens.toml"})
    assert not caplog.records
    app_builder({"tracking_uri": "x"})
    assert "no tokens" in caplog.text
    caplog.clear()
    monkeypatch.setenv(VARIABLE, "[[token]]")
    app_builder({"tracking_uri": "x"})
    assert not caplog.records
