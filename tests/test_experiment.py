"""Laws of the one-fold experiment: what is fitted on what, where the generator saw everybody."""

from __future__ import annotations

import numpy as np
import pytest
from test_arms import RULES, replayed

from downstream.arms.catalogue import ARMS
from downstream.classifiers import torch_kind
from downstream.experiment import run_experiment
from downstream.report import Judgement
from fastgan_aug.config import DownstreamConfig
from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.pseudonyms import SeenPatients
from fastgan_aug.data.split import split_by_patient
from fastgan_aug.errors import ConfigError, DataError

QUICK = DownstreamConfig(seeds=[0], steps=2, batch=32, width=6, bootstrap=100)


@pytest.fixture(scope="module")
def parts(toy: Dataset) -> tuple[Dataset, Dataset]:
    return split_by_patient(toy, 0.4, seed=0)


def judged(train: Dataset, test: Dataset, config: DownstreamConfig = QUICK) -> Judgement:
    """With a generator that copies its training slices."""
    seen = SeenPatients.of(train)
    copies = replayed(train)
    report = run_experiment(train, test, config, RULES, copies, seen=seen)  # type: ignore[arg-type]
    return report.judgements[0]


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
    found = judged(fewer, test)
    assert "fixed beforehand: there is no validation part" in found.how
    assert {arm.validation for arm in found.arms} == {None}
    assert found.arms[0].n_real == int(fewer.labelled.sum())


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
