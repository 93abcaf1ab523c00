from __future__ import annotations

from pathlib import Path

import pytest

from fastgan_aug.config import Config, load_config, shipped_configs
from fastgan_aug.data.phantom.population import SPACE, TABLE_1
from fastgan_aug.errors import ConfigError

VARIANTS = {
    "ablation",
    "ablation-discriminator",
}  # overrides of a configuration, not one themselves
SHIPPED = sorted({p.stem for p in shipped_configs().glob("*.toml")} - VARIANTS)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_load_and_open_with_what_they_cost(name: str) -> None:
    assert load_config(name).name == name
    text = (shipped_configs() / f"{name}.toml").read_text()
    for word in ("# Gives:", "# Costs:", "# Command: fastgan-aug"):
        assert word in text


@pytest.mark.parametrize("name", SHIPPED)
def test_plain_values_round_trip(name: str) -> None:
    config = load_config(name)
    assert Config.of(config.to_dict()) == config
    assert Config.of(config.to_dict()).digest == config.digest


def test_the_papers_presets_are_the_papers() -> None:
    a, b = load_config("werner2022-a"), load_config("werner2022-b")
    assert a.training.images == 1000 * sum(TABLE_1.values())
    assert b.training.images == 1000 * sum(n for c, n in TABLE_1.items() if c.startswith("COR"))
    for config in (a, b):
        assert (config.network.latent, config.network.embedding, config.network.size) == (
            256,
            64,
            64,
        )
        assert config.training.batch == 4
        assert config.training.generator_learning_rate == 2e-4
        assert config.training.discriminator_learning_rate == 2e-4
        assert (config.training.beta1, config.training.beta2) == (0.9, 0.999)
        assert config.training.ema_half_life == 0
        assert config.augment.flip == {"pattern": ["normal", "bilateral"]}
        assert (config.augment.shift, config.augment.neighbour_mean) == (2, True)
    assert SPACE.restrict(a.data.keep).dimension == 6
    assert SPACE.restrict(b.data.keep).dimension == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[training]\nimgs = 3", "unknown key 'training.imgs'.*images, batch"),
        ("colour = 1", "unknown key 'colour'.*training"),
        ("[training]\nbatch = 0", "batch is 0"),
        ("[training]\nprecision = 'fp8'", "training.precision"),
        ("[training]\nimages = 9\ntransition = 10", "transition is 10.*0 to images, 9"),
        ("[training]\ngradient_penalty = -1", "gradient_penalty is -1"),
        ("[network]\nminibatch_sd = true\n[training]\nbatch = 1", "training.batch of at least 2"),
        ("[serving]\nport = 99999", "serving.port"),
        ("[data]\ntest_fraction = 1.5", "data.test_fraction"),
        ("[engine]\nworkers = 'two'", "engine.workers"),
        ("training = 3", "training"),
        ("[phantom]\nsed = 1", "unknown key 'phantom.sed'.*seed"),
        ("[downstream]\nseeds = [0, -1]", "downstream.seeds.1 = -1.*or equal to 0"),
        (f"[downstream]\nseeds = [{2**32}]", "downstream.seeds.0 = 4294967296"),
        ("[downstream]\nseeds = [0, 1, 0]", "downstream.seeds.*twice; allowed: each once"),
        ("[training", "no readable TOML"),
    ],
)
def test_a_bad_configuration_says_what_and_what_is_allowed(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config(str(path))


@pytest.mark.parametrize("path", ["/no/such/folder/demo.toml", "configs/other/demo.toml"])
def test_a_mistyped_path_is_not_taken_for_a_shipped_name(path: str) -> None:
    with pytest.raises(ConfigError, match="no configuration"):
        load_config(path)


def test_a_password_in_the_tracking_address_is_not_written_down() -> None:
    values = {"name": "x", "tracking": {"uri": "http://user:secret@mlflow:5000"}}
    config = Config.of(values)
    assert "secret" not in str(config.record())
    assert config.digest == Config.of({"name": "x"}).digest


def test_the_phantom_is_recorded_only_where_it_is_drawn() -> None:
    config = load_config("demo")
    assert config.for_data(given=True).phantom is None
    assert config.for_data(given=False).phantom is not None


def test_a_missing_configuration_names_the_shipped_ones() -> None:
    names = "demo, generic, gpu, phantom-second-scanner, reproduce-a, reproduce-b, werner2022-a"
    with pytest.raises(ConfigError, match=names):
        load_config("nowhere")
