"""Champions on a real MLflow server: on a PASS, or by a named person."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow_toy import artefacts, champion_of, checkpoint, promoted, record

from fastgan_aug.engines import mlflow_promotion as promotion
from fastgan_aug.engines import mlflow_registry as registry
from fastgan_aug.engines.mlflow_client import connect
from fastgan_aug.errors import GateRefused, RegistryError

pytestmark = pytest.mark.integration


@pytest.fixture
def fresh(
    mlflow_uri: str, mlflow_run: tuple[Path, str], tmp_path: Path
) -> registry.RegisteredVersion:
    """A version of a model of its own, without a report."""
    name = f"gate {tmp_path.name}"
    return registry.register(
        checkpoint(tmp_path / "c", 5), uri=mlflow_uri, model_name=name, run_id=mlflow_run[1]
    )


def test_a_new_champion_names_the_one_before(
    mlflow_uri: str, mlflow_run: tuple[Path, str], tmp_path: Path
) -> None:
    first, second = (
        registry.register(
            checkpoint(tmp_path / str(seed), seed),
            uri=mlflow_uri,
            model_name="two",
            run_id=mlflow_run[1],
        )
        for seed in (2, 3)
    )
    for number, version in enumerate((first, second)):
        record(version, mlflow_uri, tmp_path / f"quality {number}", 0.01)
    promotion.promote("two", first.version, mlflow_uri, by="A", reason="only one", expect="none")
    now = promotion.promote(
        "two", second.version, mlflow_uri, by="B", reason="better", expect=first.version
    )
    assert now.tags["promoted_over"] == first.version
    assert registry.find("two", "champion", mlflow_uri).version == second.version
    assert registry.find("two", first.version, mlflow_uri).aliases == ()


def test_without_a_report_nothing_is_promoted(
    mlflow_uri: str, fresh: registry.RegisteredVersion
) -> None:
    with pytest.raises(GateRefused, match="no quality report"):
        promoted(fresh, mlflow_uri)
    assert champion_of(fresh, mlflow_uri) is None
    assert "promoted_by" not in registry.find(fresh.name, fresh.version, mlflow_uri).tags


def test_a_fail_is_promoted_by_a_named_override_alone_and_that_is_recorded(
    mlflow_uri: str, fresh: registry.RegisteredVersion, tmp_path: Path
) -> None:
    record(fresh, mlflow_uri, tmp_path / "bad", 0.5)
    assert registry.find(fresh.name, fresh.version, mlflow_uri).tags["quality"] == "FAIL"
    with pytest.raises(GateRefused, match=r"kid of disc is 0\.5"):
        promoted(fresh, mlflow_uri)
    assert champion_of(fresh, mlflow_uri) is None
    with pytest.raises(RegistryError, match="name and a reason"):
        promoted(fresh, mlflow_uri, by="", override=True)
    tags = promoted(fresh, mlflow_uri, override=True).tags
    assert champion_of(fresh, mlflow_uri) == fresh.version
    assert (tags["promoted_by"], tags["promoted_reason"]) == ("A. Person", "a reason")
    assert "says FAIL" in tags["promoted_override"]
    origin = registry.lineage(fresh.name, fresh.version, mlflow_uri)
    assert "says FAIL" in origin["promoted"]["promoted_override"]
    # A better report later, and the next promotion overrides nothing.
    record(fresh, mlflow_uri, tmp_path / "good", 0.01)
    assert promoted(fresh, mlflow_uri).tags["promoted_override"] == "no"


def test_reports_are_kept_side_by_side_and_verified(
    mlflow_uri: str, mlflow_folder: Path, fresh: registry.RegisteredVersion, tmp_path: Path
) -> None:
    record(fresh, mlflow_uri, tmp_path / "bad", 0.5)
    made = record(fresh, mlflow_uri, tmp_path / "good", 0.01)
    version = registry.find(fresh.name, fresh.version, mlflow_uri)
    read = promotion.recorded_report(version, mlflow_uri)
    assert read is not None
    assert read.digest == made.digest == version.tags["quality_report_sha256"]
    place = f"quality/version-{version.version}"
    kept = artefacts(connect(mlflow_uri), version.run_id, place)
    assert {
        f"{version.tags['quality_report']}/{name}" for name in ("report.json", "report.html")
    } <= kept
    assert len(kept) >= 4
    # A tag alone opens nothing: the report itself is read again.
    stored = next(
        (mlflow_folder / "mlartifacts").rglob(f"{version.tags['quality_report']}/report.json")
    )
    stored.write_text(stored.read_text().replace("0.01", "0.02"))
    with pytest.raises(GateRefused, match="sha256"):
        promoted(fresh, mlflow_uri)
    stored.unlink()
    with pytest.raises(GateRefused, match="gone"):
        promoted(fresh, mlflow_uri)
    assert champion_of(fresh, mlflow_uri) is None


def test_the_report_of_another_checkpoint_is_refused(
    mlflow_uri: str,
    fresh: registry.RegisteredVersion,
    mlflow_run: tuple[Path, str],
    tmp_path: Path,
) -> None:
    other = registry.register(
        checkpoint(tmp_path / "d", 6), uri=mlflow_uri, model_name=fresh.name, run_id=mlflow_run[1]
    )
    record(other, mlflow_uri, tmp_path / "quality", 0.01)
    with pytest.raises(RegistryError, match="of the checkpoint"):
        promotion.record_report(fresh, tmp_path / "quality", mlflow_uri)
    theirs = registry.find(other.name, other.version, mlflow_uri).tags
    for key in ("quality", "quality_report", "quality_report_sha256"):
        connect(mlflow_uri).set_model_version_tag(fresh.name, fresh.version, key, theirs[key])
    with pytest.raises(GateRefused, match="cannot be trusted"):
        promoted(fresh, mlflow_uri)


def test_the_expected_champion_must_be_the_champion(
    mlflow_uri: str, fresh: registry.RegisteredVersion, tmp_path: Path
) -> None:
    record(fresh, mlflow_uri, tmp_path / "quality", 0.01)
    with pytest.raises(RegistryError, match="is nobody, not version 7"):
        promoted(fresh, mlflow_uri, expect="7")
    assert champion_of(fresh, mlflow_uri) is None
    promoted(fresh, mlflow_uri, expect="none")
    with pytest.raises(RegistryError, match=f"is version {fresh.version}, not nobody"):
        promoted(fresh, mlflow_uri, expect="none")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_promotion_overtaken_by_another_takes_itself_back(
    moment: str,
    mlflow_uri: str,
    fresh: registry.RegisteredVersion,
    mlflow_run: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one promotes for real, at the moment that a slow network would give it."""
    rival = registry.register(
        checkpoint(tmp_path / "d", 6), uri=mlflow_uri, model_name=fresh.name, run_id=mlflow_run[1]
    )
    for number, version in enumerate((fresh, rival)):
        record(version, mlflow_uri, tmp_path / f"quality {number}", 0.01)
    move = promotion._move

    def overtaken(client: object, model: str, version: str, previous: str) -> None:
        monkeypatch.setattr(promotion, "_move", move)
        if moment == "before":
            promoted(rival, mlflow_uri)
        else:
            after_setting(client, lambda: promoted(rival, mlflow_uri))
        move(client, model, version, previous)

    monkeypatch.setattr(promotion, "_move", overtaken)
    with pytest.raises(RegistryError, match="somebody else moved the champion"):
        promoted(fresh, mlflow_uri)
    assert champion_of(fresh, mlflow_uri) == rival.version
    assert "promoted_by" not in registry.find(fresh.name, fresh.version, mlflow_uri).tags


def after_setting(client: object, then: object) -> None:
    """Lets something happen right after the client has set an alias."""
    set_alias = client.set_registered_model_alias  # type: ignore[attr-defined]

    def slow(*arguments: object) -> None:
        set_alias(*arguments)
        then()  # type: ignore[operator]

    client.set_registered_model_alias = slow  # type: ignore[attr-defined]
