from __future__ import annotations

from pathlib import Path

import pytest

from fastgan_aug.config import load_config, shipped_configs
from fastgan_aug.errors import ConfigError
from fastgan_aug.variants import read_ablation

HEAD = 'base = "demo"\nimages = 64\nseeds = [0]\n'


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "table.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_shipped_one_is_checked_and_says_what_it_costs() -> None:
    shipped = read_ablation("ablation")
    assert {v.name for v in shipped.variants} >= {"default", "no-average", "full-sampling"}
    assert shipped.variants[0].overrides == {}
    text = (shipped_configs() / "ablation.toml").read_text(encoding="utf-8")
    for word in ("# Gives:", "# Costs:", "# Command: fastgan-aug ablate"):
        assert word in text


def test_each_of_the_discriminators_techniques_is_a_variant() -> None:
    plain, *others = read_ablation("ablation-discriminator").variants
    assert plain.overrides == {}
    techniques = {"network.projection", "network.minibatch_sd", "training.relativistic",
                  "training.gradient_penalty", "training.transition"}  # fmt: skip
    assert {name for other in others for name in other.overrides} == techniques
    of_demo = load_config("demo").to_dict()
    on = {t for t in techniques for s, _, f in [t.partition(".")] if of_demo[s][f]}
    assert on == {"training.relativistic"}
    assert not plain.config.training.relativistic  # each is compared with the paper's losses


def test_overrides_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    found = read_ablation(
        written(
            tmp_path,
            HEAD + '[shared]\n"selection.samples" = 0\n[variants.default]\n'
            '[variants.other]\n"training.ema_half_life" = 0\n"augment.flip" = { pattern = ["x"] }\n'
            "[variants.plain]\ntraining.ema_half_life = 7\n",
        )
    )
    default, other, plain = found.variants
    base = load_config("demo").to_dict()
    assert default.config.to_dict() == base | {"selection": base["selection"] | {"samples": 0}}
    changed = other.config.to_dict()
    assert changed["augment"]["flip"] == {"pattern": ["x"]}
    changed["augment"]["flip"] = base["augment"]["flip"]
    assert changed["training"].pop("ema_half_life") == 0
    assert changed["training"] == {
        k: v for k, v in base["training"].items() if k != "ema_half_life"
    }
    assert plain.overrides == {"training.ema_half_life": 7}


def test_a_base_beside_the_file_is_found(tmp_path: Path) -> None:
    text = (shipped_configs() / "demo.toml").read_text(encoding="utf-8")
    (tmp_path / "own.toml").write_text(text.replace("batch = 32", "batch = 8"), encoding="utf-8")
    found = read_ablation(written(tmp_path, 'base = "own.toml"\n[variants.default]\n'))
    assert found.variants[0].config.training.batch == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[variants.a]\n"training.emma" = 0', "variant 'a' of table.toml: unknown key"),
        ('[variants.a]\n"training.batch" = 0', "variant 'a' .*batch is 0"),
        ('[variants.a]\n"training.batch" = "many"', "variant 'a' .*training.batch"),
        ('[variants.a]\n"training.images" = 5', "budget and seeds"),
        ('[variants.a]\n"quality.steps" = 5', "the same for all"),
        ('[variants.a]\n"nowhere.steps" = 5', "variant 'a' .*nowhere"),
        ("[variants.a]\nbatch = 5", "variant 'a' .*batch"),
        ('[shared]\n"training.seed" = 5\n[variants.a]', r"\[shared\]"),
        ('[shared]\n"nowhere.steps" = 5\n[variants.a]', "nowhere"),
        ("[shared]\nname = 5\n[variants.a]", "name"),
        ("[variants.a]\n[variants.b]", "the same configuration"),
        ('[variants."a/b"]', "no name for a file"),
        ("", "variants"),
        ("colour = 1\n[variants.a]", "colour"),
        ("[variants", "no readable TOML"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_ablation(written(tmp_path, HEAD + text))


@pytest.mark.parametrize("seeds", ["[]", "[0, 0]", "[-1]", '["a"]'])
def test_bad_seeds_are_refused(tmp_path: Path, seeds: str) -> None:
    with pytest.raises(ConfigError, match="seeds"):
        read_ablation(written(tmp_path, f'base = "demo"\nseeds = {seeds}\n[variants.a]'))


def test_one_that_is_not_there_says_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"variants.NAME"):
        read_ablation(str(tmp_path / "none.toml"))


def test_only_the_named_ones_in_the_files_order() -> None:
    shipped = read_ablation("ablation")
    chosen = shipped.only(["no-average", "default"])
    assert [v.name for v in chosen.variants] == ["default", "no-average"]
    assert shipped.only([]) == shipped
    with pytest.raises(ConfigError, match=r"no variant nothing.*default"):
        shipped.only(["default", "nothing"])
