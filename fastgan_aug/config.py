"""Typed configuration, read from ``configs/*.toml``."""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.data.phantom.population import PhantomConfig
from fastgan_aug.errors import ConfigError
from fastgan_aug.gan.settings import NetworkConfig, TrainingConfig
from fastgan_aug.quality.gate import Rule
from fastgan_aug.quality.metric import OVERALL


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which slices are trained on, and how test patients are set apart.

    Attributes:
        keep: ``{factor: values}``; labelled slices of other values are not trained on.
        test_fraction: Share of labelled slices whose patients are kept for the test; 0 keeps none.
        split_seed: Of the split.
    """

    keep: dict[str, list[str]] = Field(default_factory=dict)
    test_fraction: float = Field(0.0, ge=0, lt=1)
    split_seed: int = 0


class EngineConfig(_Section):
    """Where the training runs.

    Attributes:
        kind: ``local`` is torch alone; ``ray`` is Ray Train.
        workers: Ray Train workers; the batch is shared among them.
        cpus_per_worker: Ray CPUs reserved by each; a fraction leaves room on a laptop.
        threads: torch threads of each worker.
        use_gpu: One GPU for each worker.
        max_failures: How often a lost worker is replaced.
        timeout: Seconds after which a start that made no progress is given up.
    """

    kind: Literal["local", "ray"] = "local"
    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(1.0, gt=0)
    threads: int = Field(1, ge=1)
    use_gpu: bool = False
    max_failures: int = Field(2, ge=0)
    timeout: float = Field(180.0, gt=0)


class SelectionConfig(_Section):
    """Choosing the checkpoint by a score of the served generator.

    Attributes:
        samples: Images made per cell each time a checkpoint is scored; 0 scores none.
        validation_fraction: Share of the training slices whose patients are not trained on: the
            score is held against them. With 0 it is held against the training slices, which
            favours copying.
        best: How many of the best checkpoints stay on disk beside the newest.
        patience: The run ends after so many scorings without a better one; 0 never ends it.
        filter: Whether a filter of generated slices is fitted on the training slices and kept in
            every checkpoint, so that a request may ask for it. It tells the values of
            `downstream.factor` apart.
    """

    samples: int = Field(32, ge=0)
    validation_fraction: float = Field(0.0, ge=0, lt=1)
    best: int = Field(1, ge=0)
    patience: int = Field(0, ge=0)
    filter: bool = False

    @field_validator("samples")
    @classmethod
    def _several(cls, samples: int) -> int:
        if samples == 1:
            raise ValueError("one image has no distance to another; allowed: 0, or 2 or more")
        return samples


class TrackingConfig(_Section):
    """MLflow: where runs and versions are kept.

    Attributes:
        uri: A server's or database's URI; None is SQLite in the run's folder.
        experiment: Name of the experiment.
        model: Name of the registered model.
    """

    uri: str | None = None
    experiment: str = "fastgan-aug"
    model: str = "fastgan-aug"


class ReplicaConfig(_Section):
    """What each replica of the service is, and how much of it there is.

    Attributes:
        replicas: How many replicas hold the model; with ``most_replicas`` the least.
        most_replicas: Ray Serve adds replicas up to this many while requests wait; None adds none.
        cpus_per_replica: Ray CPUs reserved by each.
        threads: Threads of each replica's generator.
        engine: What computes the images: ``torch`` is the reference, ``openvino`` is faster on a
            CPU and within 1e-5 of it. Either repeats its own images byte by byte.
        tokens: File of the tokens of those who may call, read again when it changes; None takes
            the variable FASTGAN_AUG_TOKENS, and without that serves this machine alone.
        poll_seconds: How often the registry is asked whether an alias means another version.
        most_versions: Versions in a replica's memory; the least recently used one goes.
        most_images: Images of one answer; the client asks page by page for more. As much of an
            answer that is read slowly lies in Ray's object store at most.
        most_waiting_requests: Of a replica; more are answered 503 and when to ask again.
        most_waiting_images: Of a replica; a larger request is taken on where nothing else waits.
        drain_seconds: How long a replica that ends may take to finish its answers.
    """

    replicas: int = Field(1, ge=1)
    most_replicas: int | None = Field(None, ge=1)
    cpus_per_replica: float = Field(0.5, gt=0)
    threads: int = Field(1, ge=1)
    engine: Literal["torch", "openvino"] = "torch"
    tokens: str | None = None
    poll_seconds: float = Field(5.0, gt=0)
    most_versions: int = Field(3, ge=1)
    most_images: int = Field(16_384, ge=1)
    most_waiting_requests: int = Field(64, ge=1)
    most_waiting_images: int = Field(1_000_000, ge=1)
    drain_seconds: float = Field(20.0, ge=0)

    @model_validator(mode="after")
    def _most_is_not_the_least(self) -> Self:
        if self.most_replicas is not None and self.most_replicas < self.replicas:
            raise ValueError(
                f"serving.most_replicas = {self.most_replicas} is below serving.replicas = "
                f"{self.replicas}"
            )
        return self


class ServingConfig(ReplicaConfig):
    """The Ray Serve application.

    Attributes:
        host: Address to listen on; any but loopback needs tokens.
        port: HTTP port.
        timeout: Seconds for a deployment to become healthy.
        haproxy: Serve's HAProxy instead of its Python proxy: faster, Linux only, and it listens on
            all addresses, so that it needs tokens.
    """

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    timeout: float = Field(180.0, gt=0)
    haproxy: bool = False


class DownstreamConfig(_Section):
    """The classifier with and without synthetic slices.

    Attributes:
        factor: The factor to predict; None is the last one.
        balance: The factor whose values the arms bring to equal counts; None is the predicted one.
        folds: Outer folds, each with test patients and a generator of its own; never more than
            the rarest class has patients, so that with a large number each tests one of these.
        seeds: One fit per arm and seed, each once; up to the largest that scikit-learn takes.
        steps: Optimiser steps of every fit, the same for all arms.
        batch: Slices per step.
        learning_rate: Peak of the one-cycle schedule.
        width: Feature maps of the classifier's first layer.
        bootstrap: Resamplings of folds, seeds and test patients for the intervals.
        arms: Names of the arms that are compared (`downstream.arms`); none names the usual six.
        classifiers: Each arm is fitted with each of these: `small-cnn`, `residual`, `boosting`, or
            the import path of one's own torch module or scikit-learn estimator.
    """

    factor: str | None = None
    balance: str | None = None
    folds: int = Field(4, ge=2)
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(default=[0, 1, 2], min_length=1)
    steps: int = Field(400, ge=1)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    width: int = Field(16, ge=1)
    bootstrap: int = Field(1000, ge=100)
    arms: list[str] = []
    classifiers: list[str] = Field(default=["small-cnn"], min_length=1)

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands there twice; allowed: each once")
        return seeds


def _gate() -> list[Rule]:
    """The default table: one line per question that a generator must answer.

    How often it fails generators that are wrong in a known way, and real slices of other patients:
    docs/gate.md, at the counts of Table 1.
    """
    return [
        Rule("mc_ratio", at_least=0.93, at_most=1.07),
        Rule("log_lr_difference", at_least=-0.1, at_most=0.1),
        Rule("abs_log_lr_ratio", at_least=0.6, at_most=1.7),
        Rule("sd_map_ratio", at_least=0.85, at_most=1.18),
        Rule("kid", cells=OVERALL),
        Rule("kid"),
        Rule("coverage_ratio", cells=OVERALL, at_least=0.9),
        Rule("coverage_ratio", at_least=0.7),
        Rule("pairwise_ratio", cells=OVERALL, at_least=0.9),
        Rule("modes_ratio", cells=OVERALL, at_least=0.7),
        Rule("duplicate_rate", cells=OVERALL, at_most=0.02),
        Rule("nn_share", cells=OVERALL),
        Rule("copy_rate", cells=OVERALL, at_most=0.01),
        Rule("membership_auc", cells=OVERALL),
        Rule("real_on_synthetic", cells=OVERALL),
        Rule("synthetic_on_real", cells=OVERALL),
    ]


def _fresh_gate() -> list[Rule]:
    return [Rule(f"{name}_equivalence") for name in ("mc", "log_lr", "abs_log_lr")]


class QualityConfig(_Section):
    """How a generator is judged, and what it must reach.

    Attributes:
        seed: Of samples, fits, resamples and every choice of slices.
        resplits: Halvings of the real patients that a KID's floor rests on.
        kid_delta: KID beyond that floor that still passes.
        privacy_delta: Share of nearest neighbours, and AUC of the membership attack, beyond what
            chance gives that still pass.
        classifier: Whether the classifier is fitted. Without it a report is a quick look: rules
            on what it measures fail.
        steps: Optimiser steps of each of the classifier's fits.
        batch: Slices per step.
        learning_rate: Peak of the one-cycle schedule.
        width: Feature maps of the classifier's first layer.
        recognition_delta: Share of slices recognised less than among real ones that still passes.
        gate: The table; one list entry per rule.
        fresh_gate: Added to it where fresh patients are given to compare with.
    """

    seed: int = Field(0, ge=0)
    resplits: int = Field(200, ge=20)
    kid_delta: float = Field(0.25, ge=0)
    privacy_delta: float = Field(0.03, ge=0)
    classifier: bool = True
    steps: int = Field(400, ge=1)
    batch: int = Field(64, ge=2)
    learning_rate: float = Field(3e-3, gt=0)
    width: int = Field(16, ge=1)
    recognition_delta: float = Field(0.1, ge=0, le=1)
    gate: list[Rule] = Field(default_factory=_gate, min_length=1)
    fresh_gate: list[Rule] = Field(default_factory=_fresh_gate)


class Config(_Section):
    """Everything a run is decided by.

    Attributes:
        name: Of the run.
        phantom: The phantom to draw where no data set is given; None for data of one's own.
    """

    name: str
    data: DataConfig = DataConfig()
    phantom: PhantomConfig | None = None
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    engine: EngineConfig = EngineConfig()
    selection: SelectionConfig = SelectionConfig()
    tracking: TrackingConfig = TrackingConfig()
    serving: ServingConfig = ServingConfig()
    downstream: DownstreamConfig = DownstreamConfig()
    quality: QualityConfig = QualityConfig()

    @model_validator(mode="after")
    def _weights_have_what_they_need(self) -> Self:
        weights = self.training.appearance_weight, self.training.energy_weight
        if any(weights) and not self.network.appearance:
            raise ValueError(
                "training.appearance_weight and energy_weight need network.appearance = true"
            )
        return self

    @model_validator(mode="after")
    def _a_deviation_needs_two(self) -> Self:
        each = self.training.batch // self.engine.workers
        if self.network.minibatch_sd and each < 2:
            raise ValueError(
                f"network.minibatch_sd needs training.batch of at least {2 * self.engine.workers}: "
                f"two slices for each of the workers, and it is {self.training.batch}"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``Config.of`` reads them back."""
        return self.model_dump(mode="json")

    def record(self) -> dict[str, Any]:
        """What is written down of it: all but the tracking address, which may hold a password."""
        values = self.to_dict()
        del values["tracking"]["uri"]
        return values

    @property
    def digest(self) -> str:
        """Sha256 of ``record``; 64 hex digits."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()

    def for_data(self, given: bool) -> Config:
        """The configuration of a run on a data set of one's own, or on the phantom."""
        return self.model_copy(
            update={"phantom": None if given else self.phantom or PhantomConfig()}
        )

    @classmethod
    def of(cls, values: dict[str, Any], source: str = "the configuration") -> Config:
        """Checks plain values.

        Raises:
            ConfigError: an unknown key or a bad value; the message names each.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(
                f"{source}: " + "; ".join(_explain(e) for e in error.errors()),
                allowed=_allowed(error),
                do="correct the file; `fastgan-aug train --dry-run` prints the resolved values",
            ) from None


def shipped_configs() -> Path:
    """The folder of the shipped configurations: in a checkout, or in the installed package."""
    installed = Path(str(files("fastgan_aug"))) / "configs"
    return installed if installed.is_dir() else installed.parent.parent / "configs"


def load_config(name_or_path: str) -> Config:
    """Reads a TOML file, or a shipped configuration by its name (``demo``, ``werner2022-a``).

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a bad value.
    """
    path = Path(name_or_path)
    if not path.is_file() and str(path.parent) in (".", "configs"):
        path = shipped_configs() / f"{path.stem}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration {name_or_path!r}",
            allowed="a TOML file, or one of "
            + ", ".join(sorted(p.stem for p in shipped_configs().glob("*.toml"))),
            do="check the path",
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no readable TOML: {error}", do="correct the file") from error
    return Config.of({"name": path.stem} | values, str(path))


def _explain(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if not where:  # of several fields together
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {where!r}"
    return f"{where} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def _allowed(error: ValidationError) -> str:
    """The keys that the sections with an unknown key do have."""
    known: list[str] = []
    for item in error.errors():
        if item["type"] not in ("extra_forbidden", "unexpected_keyword_argument"):
            continue
        section = item["loc"][:-1]
        if not section:
            known.append(", ".join(Config.model_fields))
        else:
            kind = Config.model_fields[str(section[0])].annotation
            kind = next((k for k in get_args(kind) if k is not NoneType), kind)
            names = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
            known.append(f"in [{section[0]}]: " + ", ".join(names))
    return "; ".join(dict.fromkeys(known))
