"""The folds of `fastgan-aug downstream` with their generators, opened where a piece is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downstream.fold import Fold
    from fastgan_aug.config import Config
    from fastgan_aug.data.dataset import Dataset
    from fastgan_aug.engines.fold_generator import GeneratorPiece


@dataclass(frozen=True)
class NestedParts:
    """A fold of a data set, small enough to be sent to another process.

    Attributes:
        data: The data set's file.
        number: Of the fold.
        config: Its ``data`` and ``downstream`` sections decide the folds.
        unsafe_no_groups: Takes data without patients.
        rare_slices: About so many training slices of the rarest class; None: all there are.
    """

    data: Path
    number: int
    config: Config = field(compare=False)
    unsafe_no_groups: bool = False
    rare_slices: int | None = None

    @property
    def dataset(self) -> Dataset:
        """All of the rows that are kept."""
        return read_kept(self.data, self.config)

    def fold(self) -> Fold:
        """The fold, checked, without a generator.

        Raises:
            ConfigError: the data have no such factor as is to be predicted.
            DataError: too few patients or slices, or data without patients.
            LeakageError: see ``Fold.check``.
        """
        from downstream.fold import deal_patients, factor_of, nested_fold, rarest_value, thinned

        dataset, seed = self.dataset, self.config.data.split_seed
        factor = factor_of(dataset, self.config.downstream)
        dealt = deal_patients(dataset, factor, self.config.downstream.folds, seed)
        tested = dealt[self.number].tolist()
        fold = nested_fold(
            dataset, tested, self.number, seed, factor, unsafe_no_groups=self.unsafe_no_groups
        )
        if self.rare_slices is not None:
            rarest = rarest_value(dataset, factor)
            fewer = thinned(fold.train, factor, rarest, self.rare_slices, seed)
            fold = replace(fold, train=fewer)
        fold.check(unsafe_no_groups=self.unsafe_no_groups)
        return fold

    def __call__(self) -> tuple[Dataset, Dataset]:
        """Training and validation part, as the generator's piece reads them."""
        fold = self.fold()
        return fold.train, fold.validation


@dataclass(frozen=True)
class OpenNested:
    """Opens a fold with its generator.

    Attributes:
        parts: The fold.
        checkpoint: Of its generator.
    """

    parts: NestedParts
    checkpoint: Path

    def __call__(self) -> Fold:
        """The fold with its sources, after the lineage was held against validation and test.

        Raises:
            CheckpointError: the checkpoint is damaged.
            LeakageError: see ``Fold.check``.
        """
        fold = with_generator(self.parts.fold(), self.checkpoint)
        fold.check(unsafe_no_groups=self.parts.unsafe_no_groups)
        return fold


def read_kept(data: Path, config: Config) -> Dataset:
    """The data set's rows that the configuration keeps."""
    dataset = _read(data, data.stat().st_mtime_ns if data.is_file() else 0)
    return dataset.restrict(config.data.keep) if config.data.keep else dataset


@lru_cache(maxsize=1)
def _read(data: Path, written: int) -> Dataset:
    """Read once: every fold that a process opens is a part of it."""
    from fastgan_aug.data.dataset import Dataset

    return Dataset.read(data)


def with_generator(fold: Fold, checkpoint: Path) -> Fold:
    """The fold with slices of a checkpoint, made in this process, and whom it saw.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    from downstream.service import service_source
    from fastgan_aug.cli.downstream import seen_by
    from fastgan_aug.gan.checkpoint import FILTER, read_meta
    from serving.offline import OfflineClient

    meta, client = read_meta(checkpoint), OfflineClient(checkpoint)
    filtered = FILTER in meta.files
    return replace(
        fold,
        seen=seen_by(meta.lineage),
        synthetic=service_source(client, checkpoint.name),
        filtered=service_source(client, checkpoint.name, filtered=True) if filtered else None,
    )


def generator_pieces(
    parts: Sequence[NestedParts], out: Path, tracking_uri: str | None
) -> list[GeneratorPiece]:
    """One fit for each fold, in one process each, so that the folds share the cores."""
    from fastgan_aug.engines.fold_generator import GeneratorPiece
    from fastgan_aug.engines.pieces import with_seed

    found = []
    for part in parts:
        config = part.config
        engine = config.engine.model_copy(update={"kind": "local", "workers": 1})
        rows = config.data.model_copy(update={"test_fraction": 0.0})
        alone = with_seed(config.model_copy(update={"engine": engine, "data": rows}), part.number)
        name = "fold" if part.rare_slices is None else f"rare-{part.rare_slices}-fold"
        found.append(GeneratorPiece(name, part.number, alone, part.data, out, part, tracking_uri))
    return found
