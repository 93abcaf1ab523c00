"""The phantom sets of `benchmarks.proof`: training sets of their own, fresh patients for the rest.

A replicate of a setting has a training set with few slices of the rarest pattern, and fresh
patients who are the oracle of what real data would give. Validation and test are fresh too, and
the same for all settings of a replicate, so that the settings can be compared. The same test
patients can be measured on a second scanner, which nothing else has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from downstream.fold import Fold
from downstream.service import oracle_source
from fastgan_aug.cli.nested import with_generator
from fastgan_aug.config import load_config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import TABLE_1, PhantomConfig, make_phantom
from fastgan_aug.data.phantom.spect import Scanner
from fastgan_aug.data.schema import OWN_COLUMNS
from fastgan_aug.data.split import check_disjoint

FACTOR = "pattern"
RAREST = "bilateral"
# A setting's place gives the seeds of its phantoms: further ones stand at the end.
SETTINGS: Mapping[str, int | None] = {"8": 8, "16": 16, "table1": None, "32": 32, "52": 52}
PATIENTS_OF_TABLE_1 = 250
TEST_SIZE = 2  # of Table 1: the replicates differ by more than their test patients do
FIRST_SEED = 700  # of the phantoms; none of them is used elsewhere
POOL = {"normal": 560, "unilateral": 560, "bilateral": 640}  # what the largest ratio asks for
Run = Callable[..., Iterator[Any]]


def scarce_counts(rarest: int | None) -> dict[str, int]:
    """Table 1 with so many slices of the rarest pattern in all; None leaves them as they are.

    They are shared among the levels in Table 1's proportion.

        >>> {c: n for c, n in scarce_counts(8).items() if c.endswith(RAREST)}
        {'CER/bilateral': 0, 'BG/bilateral': 4, 'COR/bilateral': 4}
    """
    counts = dict(TABLE_1)
    if rarest is None:
        return counts
    rare = [cell for cell in counts if cell.endswith("/" + RAREST)]
    total, left = sum(counts[cell] for cell in rare), rarest
    for cell in rare[:-1]:
        counts[cell] = round(rarest * TABLE_1[cell] / total)
        left -= counts[cell]
    counts[rare[-1]] = left
    return counts


def pool_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Fresh slices of the cells of ``counts``, in their proportion within each pattern."""
    found: dict[str, int] = {}
    for value, needed in POOL.items():
        cells = [cell for cell in counts if cell.endswith("/" + value)]
        total = sum(counts[cell] for cell in cells)
        found |= {cell: ceil(needed * counts[cell] / total) for cell in cells if counts[cell]}
    return found


@dataclass(frozen=True)
class Replicate:
    """One replicate of one setting; small enough to be sent to another process.

    Attributes:
        setting: One of ``SETTINGS``.
        number: Of the replicate.
        out: Folder of everything.
        second_scanner: Whether the test patients are measured on another scanner than all others.
    """

    setting: str
    number: int
    out: Path
    second_scanner: bool = False

    @property
    def name(self) -> str:
        """Names its files."""
        return f"{self.setting}-{self.number}"

    @property
    def train_path(self) -> Path:
        """Of the training set."""
        return self.out / "data" / f"train-{self.name}.parquet"

    @property
    def oracle_path(self) -> Path:
        """Of the fresh patients that the oracle takes."""
        return self.out / "data" / f"oracle-{self.name}.parquet"

    @property
    def validation_path(self) -> Path:
        """Of the validation set."""
        return self.out / "data" / f"validation-{self.number}.parquet"

    @property
    def test_path(self) -> Path:
        """Of the test set."""
        scanner = "second-scanner-" if self.second_scanner else ""
        return self.out / "data" / f"test-{scanner}{self.number}.parquet"

    @property
    def judged(self) -> Path:
        """Folder of the fits' predictions and of the pages."""
        return self.out / "second-scanner" if self.second_scanner else self.out

    def __call__(self) -> tuple[Dataset, Dataset]:
        """Training and validation set, as the generator's piece reads them."""
        return Dataset.read(self.train_path), Dataset.read(self.validation_path)

    def draw(self, run: Run, *, fresh: bool) -> None:
        """Draws what is not there yet.

        Args:
            run: Does the patients.
            fresh: Whether test and oracle are drawn too; the generator needs neither.
        """
        counts = scarce_counts(SETTINGS[self.setting])
        shared = FIRST_SEED + 1000 * (self.number // 10) + self.number % 10
        own = shared + 100 + 10 * list(SETTINGS).index(self.setting)
        drawn(self.train_path, _phantom(counts, own), run, whole=True)
        drawn(self.validation_path, _phantom(TABLE_1, shared + 10), run)
        if fresh:
            many = {cell: TEST_SIZE * n for cell, n in TABLE_1.items()}
            test = _phantom(many, shared + 20)
            if self.second_scanner:
                test = replace(test, scanner=second_scanner())
            drawn(self.test_path, test, run)
            drawn(self.oracle_path, _phantom(pool_counts(counts), own + 200), run)


@dataclass(frozen=True)
class OpenReplicate:
    """Opens a replicate with its generator and its oracle.

    Attributes:
        replicate: Which.
        checkpoint: Of its generator.
        order: Number of the fold that it is.
    """

    replicate: Replicate
    checkpoint: Path
    order: int

    def __call__(self) -> Fold:
        """The replicate as a fold, checked.

        Raises:
            LeakageError: see ``Fold.check``.
        """
        train, validation = self.replicate()
        test, fresh = (
            Dataset.read(path) for path in (self.replicate.test_path, self.replicate.oracle_path)
        )
        fold = with_generator(Fold(self.order, train, validation, test), self.checkpoint)
        fold = replace(fold, oracle=oracle_source(fresh, train))
        fold.check()
        for part in (validation, test):
            check_disjoint(fresh, part)
        return fold


def _phantom(counts: Mapping[str, int], seed: int) -> PhantomConfig:
    """As many slices of each patient as Table 1's have."""
    patients = round(PATIENTS_OF_TABLE_1 * sum(counts.values()) / sum(TABLE_1.values()))
    return PhantomConfig(seed, counts=dict(counts), patients=patients)


def second_scanner() -> Scanner:
    """That of ``configs/phantom-second-scanner.toml``."""
    config = load_config("phantom-second-scanner").phantom
    assert config is not None
    return config.scanner


def drawn(path: Path, config: PhantomConfig, run: Run, *, whole: bool = False) -> None:
    """Draws a phantom where it is not there yet; without ``whole`` its labelled slices alone."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = make_phantom(config, run)
    if not whole:
        names = [c for c in dataset.table.column_names
                 if c in OWN_COLUMNS | set(dataset.meta.space.names)]  # fmt: skip
        dataset = Dataset(dataset.table.select(names), dataset.meta).take(dataset.labelled)
    dataset.write(path)
