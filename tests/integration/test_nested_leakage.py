"""Nothing leaks through the nested proof, and these tests would see it if something did.

Labels are dealt at random to donors, so that nothing can be learnt of donors who were not seen.
A fault is planted that the same questions find: otherwise they might hold whatever happens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_arms import replayed
from toy import shape_image

from downstream.arms.catalogue import arms_named
from downstream.classifier_pieces import Experiment, run_pieces, truths_of
from downstream.fold import Fold
from downstream.judging import JudgeSettings, judge
from downstream.report import Judgement
from downstream.verdict import MINIMUM_PATIENTS
from fastgan_aug.cli.nested import NestedParts
from fastgan_aug.cli.nested_command import Nested, run_nested
from fastgan_aug.conditions import ConditionSpace
from fastgan_aug.config import Config
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.data.schema import BY_PATIENT, FICTION, UNVERIFIED, DatasetMeta
from fastgan_aug.errors import LeakageError

pytestmark = pytest.mark.integration
DONORS = {"disc": 16, "ring": 12, "bar": 8, "cross": 8}  # enough of each class for a verdict
CHANCE = 1 / len(DONORS)
FOLDS = 4
ARMS = ("real", "oversampling", "real + synthetic")
CONFIG = Config.of(
    {
        "name": "leakage",
        "network": {
            "size": 32, "latent": 8, "embedding": 8,
            "generator_width": 4, "discriminator_width": 4,
        },
        "training": {"images": 64, "batch": 16, "log_every": 32, "checkpoint_every": 64},
        "quality": {"resplits": 20, "classifier": False},
        "downstream": {
            "folds": FOLDS, "seeds": [0, 1, 2], "steps": 45, "batch": 32, "width": 6,
            "bootstrap": 200, "arms": list(ARMS),
        },
    }
)  # fmt: skip


def made(random_labels: bool) -> Dataset:
    """Three slices of each donor, alike in place and size; a donor has one shape or one label."""
    random = np.random.default_rng(5)
    shapes = [shape for shape, n in DONORS.items() for _ in range(n)]
    labels = random.permutation(shapes).tolist() if random_labels else shapes
    images, owners, values = [], [], []
    for donor, (shape, label) in enumerate(zip(shapes, labels, strict=True)):
        centre, size = random.uniform(-4, 4, 2), random.uniform(5, 10)
        for _ in range(3):
            image = shape_image(shape, centre, size, random).astype(np.float32)
            images.append(image / image.max())
            owners.append(f"D{donor:03d}")
            values.append(label)
    n = len(images)
    meta = DatasetMeta(
        space=ConditionSpace.of({"shape": list(DONORS)}), size=32, source="toy shapes",
        normalisation="maximum", laterality=UNVERIFIED, grouping=BY_PATIENT, pseudonym_key=FICTION,
    )  # fmt: skip
    return Dataset.build(
        meta, images=np.stack(images), labels={"shape": values}, patient_id=owners,
        scan_id=owners, z=[0.0] * n, scale=[1.0] * n, unit="counts", synthetic=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "noise.parquet"
    made(random_labels=True).write(path)
    return path


@dataclass(frozen=True)
class Opened:
    """A fold whose generator copies slices.

    Attributes:
        parts: The fold.
        tested: Whether it copies the test's: what a generator would do that saw it. Nothing tells
            so, as if its lineage were wrong.
    """

    parts: NestedParts
    tested: bool = False

    def __call__(self) -> Fold:
        fold = self.parts.fold()
        return replace(fold, synthetic=replayed(fold.test if self.tested else fold.train))


def judged(data: Path, out: Path, *arms: str, tested: bool = False) -> Judgement:
    """What the experiment says of generators that copy."""
    out.mkdir()
    folds = [Opened(NestedParts(data, k, CONFIG), tested) for k in range(FOLDS)]
    experiment = Experiment(folds, arms_named(arms), CONFIG.downstream, CONFIG.augment, out)
    assert run_pieces(experiment) == 0
    report = judge(
        experiment.outcomes, truths_of(experiment), experiment.arms, list(DONORS),
        JudgeSettings(bootstrap=200),
    )  # fmt: skip
    return report.judgements[0]


def at_chance(judgement: Judgement) -> dict[str, bool]:
    """Whether each arm's interval holds chance."""
    scores = {arm.name: arm.balanced_accuracy for arm in judgement.arms}
    return {name: score.low <= CHANCE <= score.high for name, score in scores.items()}


def test_random_labels_give_chance_with_and_without_synthetic_slices(
    noise: Path, tmp_path: Path
) -> None:
    asked = Nested(noise, CONFIG, tmp_path.resolve())
    with (tmp_path / "log").open("w") as log:
        found = run_nested(asked, Console(file=log))
    assert found is not None
    assert found.report.folds == FOLDS
    assert min(found.report.test_patients) >= MINIMUM_PATIENTS, "few patients are not the reason"
    (judgement,) = found.report.judgements
    assert at_chance(judgement) == dict.fromkeys(ARMS, True)
    for arm in judgement.arms:  # an interval that holds everything would say nothing
        assert arm.balanced_accuracy.high - arm.balanced_accuracy.low < 0.45
    assert {c.verdict for c in judgement.comparisons} == {"NO EVIDENCE"}


def test_a_copier_never_helps(tmp_path: Path) -> None:
    made(random_labels=False).write(tmp_path / "shapes.parquet")
    found = judged(tmp_path / "shapes.parquet", tmp_path / "out", *ARMS)
    assert max(arm.balanced_accuracy.value for arm in found.arms) > 0.5, "it does learn"
    assert all(c.verdict != "HELPS" for c in found.comparisons)


def test_both_laws_would_see_a_generator_that_saw_the_test(noise: Path, tmp_path: Path) -> None:
    found = judged(noise, tmp_path / "out", "real", "synthetic alone", tested=True)
    assert at_chance(found) == {"real": True, "synthetic alone": False}
    assert [c.verdict for c in found.comparisons] == ["HELPS"]


def test_a_planted_overlap_is_refused(noise: Path) -> None:
    fold = NestedParts(noise, 0, CONFIG).fold()
    everyone = Dataset.read(noise)
    with pytest.raises(LeakageError, match="training and test"):
        replace(fold, train=everyone).check()
    seen = SeenPatients.of(everyone)
    with pytest.raises(LeakageError, match="test patients") as refused:
        replace(fold, seen=seen).check()
    assert all(patient in refused.value.what for patient in fold.test.patients)
