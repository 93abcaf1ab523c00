"""Laws of the one-fold experiment: what is fitted on what, where the generator saw everybody."""

from __future__ import annotations

import numpy as np
import pytest
from test_arms import RULES, replayed

from downstream import experiment
from downstream.arms.catalogue import ARMS, KNOWN, arms_named
from downstream.classifiers import torch_kind
from downstream.classifiers.kind import Kind
from downstream.experiment import check_arms, fit_and_predict, run_experiment, try_classifiers
from downstream.material import Material
from downstream.outcome import Outcome
from downstream.report import Judgement, UsefulnessReport
from downstream.service import zeros_source
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.augment import AugmentConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.errors import ConfigError, DataError

QUICK = DownstreamConfig(seeds=[0], steps=2, batch=32, width=6, bootstrap=100)


@pytest.fixture(scope="module")
def parts(toy: Dataset) -> tuple[Dataset, Dataset]:
    return split_by_patient(toy, 0.4, seed=0)


def found(
    train: Dataset, test: Dataset, config: DownstreamConfig = QUICK, rules: AugmentConfig = RULES
) -> UsefulnessReport:
    """With a generator that copies its training slices."""
    seen = SeenPatients.of(train)
    copies = replayed(train)
    return run_experiment(train, test, config, rules, copies, seen=seen)  # type: ignore[arg-type]


def judged(train: Dataset, test: Dataset, config: DownstreamConfig = QUICK) -> Judgement:
    """The one classifier's."""
    return found(train, test, config).judgements[0]


def test_a_generator_that_copies_gives_nothing_that_real_arms_lack(
    parts: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It copies the validation patients too: whoever is judged is fitted on them as well."""
    train, test = parts
    known: list[set[bytes]] = []
    original = torch_kind.fit_network

    def watched(make, images, *arguments, **more):  # type: ignore[no-untyped-def]
        known.append({image.tobytes() for image in images})
        return original(make, images, *arguments, **more)

    monkeypatch.setattr(torch_kind, "fit_network", watched)
    arms = judged(train, test).arms
    everything = {image.tobytes() for image in train.images[train.labelled]}
    assert known[-len(ARMS) :] == [everything] * len(ARMS)
    assert [arm.n_real for arm in arms] == [int(train.labelled.sum())] * len(ARMS)
    assert all(len(slices) < len(everything) for slices in known[: -len(ARMS)])
    assert [arm.validation is None for arm in arms] == [arm.synthetic for arm in arms]


def test_a_class_of_one_patient_leaves_no_validation_part(parts: tuple[Dataset, Dataset]) -> None:
    """Else the rival would be chosen by the other classes alone."""
    train, test = parts
    cross = sorted(set(train.column("patient_id")[train.column("shape") == "cross"].astype(str)))
    fewer = train.take(~np.isin(train.column("patient_id").astype(str), cross[1:]))
    judgement = judged(fewer, test)
    assert "fixed beforehand: there is no validation part" in judgement.how
    assert {arm.validation for arm in judgement.arms} == {None}
    assert judgement.arms[0].n_real == int(fewer.labelled.sum())


def test_an_arm_that_the_data_cannot_bear_is_refused_before_any_fit(
    parts: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = parts
    cross = np.flatnonzero(train.column("shape") == "cross")
    fewer = train.take(~np.isin(np.arange(len(train)), cross[1:]))
    monkeypatch.setattr(torch_kind, "fit_network", lambda *_, **__: pytest.fail("a fit was begun"))
    with pytest.raises(DataError, match=r"SMOTE mixes .* cross has 1 slice"):
        judged(fewer, test, QUICK.model_copy(update={"arms": ["real", "SMOTE"]}))


def test_a_factor_that_the_data_do_not_have_is_refused(parts: tuple[Dataset, Dataset]) -> None:
    with pytest.raises(ConfigError, match=r"downstream\.factor is 'nope'"):
        judged(*parts, QUICK.model_copy(update={"factor": "nope"}))


NEIGHBOURS, SVC = "sklearn.neighbors:KNeighborsClassifier", "sklearn.svm:SVC"
HALF_MOVED = "moved defects, half synthetic in every class + classical augmentation"


@pytest.mark.parametrize(
    ("changes", "rules", "error", "why"),
    [
        ({"arms": ["real", "oracle"]}, RULES, DataError, "no oracle source"),
        ({"arms": ["real", "real + filtered synthetic"]}, RULES, DataError, "no filtered source"),
        ({"arms": ["real", HALF_MOVED]}, AugmentConfig(), DataError, "no defect can be moved"),
        ({"classifiers": ["small-cnn", SVC]}, RULES, ConfigError, "SVC' gives no probabilities"),
        ({"classifiers": [NEIGHBOURS], "arms": ["class weights", "real + synthetic"]}, RULES,
         ConfigError, "can none of the arms without synthetic slices"),
    ],
)  # fmt: skip
def test_what_can_never_work_is_refused_before_any_fit(
    parts: tuple[Dataset, Dataset],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
    rules: AugmentConfig,
    error: type[Exception],
    why: str,
) -> None:
    monkeypatch.setattr(torch_kind, "fit_network", lambda *_, **__: pytest.fail("a fit was begun"))
    with pytest.raises(error, match=why):
        found(*parts, QUICK.model_copy(update=changes), rules)


def test_arms_are_tried_without_asking_a_source(toy: Dataset) -> None:
    def never(*_: object) -> None:
        pytest.fail("a source was asked")

    material = Material.of(toy, "shape", RULES, never, oracle=never)  # type: ignore[arg-type]
    check_arms(list(KNOWN.values()), material, filtered=True)
    with pytest.raises(DataError, match="no filtered source"):
        check_arms(arms_named(["real", "real + filtered synthetic"]), material)


def test_zeros_stand_in_for_the_cells_that_are_asked_for(toy: Dataset) -> None:
    material = Material.of(toy, "shape", RULES, replayed(toy))  # type: ignore[arg-type]
    batch = zeros_source(material)({"disc": 60, "cross": 12}, {"disc": 61, "cross": 15}, 0)
    assert list(batch.cells) == ["disc"] + ["cross"] * 3
    assert batch.images.shape == (4, *toy.images.shape[1:])
    assert not batch.images.any()


def test_classifiers_of_ones_own_are_tried_and_those_that_work_not_refused(
    toy: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []

    def fit(kind: Kind, *told: object) -> Outcome:
        outcome = fit_and_predict(kind, *told)  # type: ignore[arg-type]
        fitted.append(outcome.classifier)
        return outcome

    monkeypatch.setattr(experiment, "fit_and_predict", fit)
    material = Material.of(toy, "shape", RULES, replayed(toy))  # type: ignore[arg-type]
    names = ["small-cnn", NEIGHBOURS, "sklearn.naive_bayes:GaussianNB", "tests.test_own:Linear"]
    try_classifiers(QUICK.model_copy(update={"classifiers": names}), ARMS, material)
    assert fitted == names[1:], "the built-in one needs no trial"


def test_what_a_classifier_is_not_tried_with_is_told_once(parts: tuple[Dataset, Dataset]) -> None:
    asked = {"classifiers": ["small-cnn", NEIGHBOURS], "seeds": [0, 1],
             "arms": ["real", "class weights", "focal loss", "real + synthetic"]}  # fmt: skip
    report = found(*parts, QUICK.model_copy(update=asked))
    told = [note for note in report.notes if "not tried" in note]
    assert told == [
        f"{NEIGHBOURS} is not tried with 'class weights', 'focal loss': it takes no focal loss, "
        "weights of slices (sample_weight)."
    ]
    assert [len(judgement.arms) for judgement in report.judgements] == [4, 2]
