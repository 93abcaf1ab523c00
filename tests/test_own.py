"""Laws of a user's own classifiers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from downstream.arms.arm import NEEDS, WEIGHTS
from downstream.arms.catalogue import KNOWN
from downstream.classifiers.catalogue import check_classifiers, classifier_named
from downstream.experiment import tried
from fastgan_aug.errors import ConfigError
from tests.fitting import QUICK, bright_or_dark

HERE = __name__


class Linear(nn.Module):
    """A module that keeps to the contract."""

    def __init__(self, n_classes: int, size: int) -> None:
        super().__init__()
        self.body = nn.Linear(size * size, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.body(images.flatten(1)))


class WrongShape(Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


class OtherArguments(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()


def test_a_torch_module_is_fitted_as_the_built_in_ones() -> None:
    fit, unseen = bright_or_dark(0), bright_or_dark(1)
    kind = classifier_named(f"{HERE}:Linear")
    told = kind.fit(fit, 2, replace(QUICK, steps=200), 0).predict_proba(unseen.images)
    assert (told.argmax(axis=1) == unseen.labels).mean() > 0.9
    assert kind.name == f"{HERE}:Linear"


@pytest.mark.parametrize("path", ["sklearn.linear_model:LogisticRegression",
                                  "sklearn.ensemble:RandomForestClassifier"])  # fmt: skip
def test_an_estimator_is_fitted_on_pixels_and_follows_the_seed(path: str) -> None:
    fit, unseen = bright_or_dark(0), bright_or_dark(1)
    kind = classifier_named(path)
    weighted = replace(fit, class_weights=np.asarray([1, 2, 0], np.float32))
    told = kind.fit(weighted, 3, QUICK, 0).predict_proba(unseen.images)
    assert (told.argmax(axis=1) == unseen.labels).mean() > 0.9
    assert (told[:, 2] == 0).all()
    assert np.array_equal(told, kind.fit(weighted, 3, QUICK, 0).predict_proba(unseen.images))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vgg", "small-cnn, residual, boosting"),
        ("nowhere.at.all:Name", "cannot be imported"),
        (f"{HERE}:Missing", "cannot be imported"),
        (f"{HERE}:HERE", "neither"),
        ("json:JSONDecoder", "neither"),
        (":", "cannot be imported"),
    ],
)
def test_what_is_no_classifier_is_refused(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        classifier_named(name)


@pytest.mark.parametrize("name", ["WrongShape", "OtherArguments"])
def test_a_module_that_does_not_keep_to_the_contract_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="n_classes=C, size=S"):
        classifier_named(f"{HERE}:{name}").fit(bright_or_dark(0), 2, QUICK, 0)


def test_an_estimator_without_weights_is_refused_where_an_arm_has_some() -> None:
    kind = classifier_named("sklearn.neighbors:KNeighborsClassifier")
    assert kind.cannot == NEEDS
    assert classifier_named("sklearn.linear_model:LogisticRegression").cannot == NEEDS - {WEIGHTS}
    weighted = replace(bright_or_dark(0), class_weights=np.ones(2, np.float32))
    with pytest.raises(ConfigError, match="sample_weight"):
        kind.fit(weighted, 2, QUICK, 0)


def test_arms_with_weights_are_not_tried_with_an_estimator_that_takes_none() -> None:
    names = ("sklearn.neighbors:KNeighborsClassifier", "sklearn.linear_model:LogisticRegression")
    pairs = tried(names, list(KNOWN.values()))
    neighbours, regression = ({arm.name for kind, arm in pairs if kind.name == n} for n in names)
    assert regression - neighbours == {"class weights", "oversampling", "moved defects"}
    assert {"real", "SMOTE", "real + synthetic"} <= neighbours
    fit = bright_or_dark(0)
    told = classifier_named(names[0]).fit(fit, 2, QUICK, 0).predict_proba(fit.images)
    assert told.sum(axis=1) == pytest.approx(1)


def test_a_class_whose_instances_give_no_probabilities_is_refused() -> None:
    """The class has the method, and what is made of it has not."""
    fit = bright_or_dark(0)
    fitted = classifier_named("sklearn.svm:SVC").fit(fit, 2, QUICK, 0)
    with pytest.raises(ConfigError, match=r"'sklearn\.svm:SVC' gives no probabilities"):
        fitted.predict_proba(fit.images)


def test_only_arms_that_a_classifier_can_are_tried() -> None:
    forest, names = "sklearn.ensemble:RandomForestClassifier", ("real", "mixup", "focal loss")
    arms = [KNOWN[name] for name in (*names, "oversampling + classical augmentation")]
    pairs = tried(["small-cnn", "boosting", forest], arms)
    by_kind: dict[str, list[str]] = {}
    for kind, arm in pairs:
        by_kind.setdefault(kind.name, []).append(arm.name)
    assert [len(of_kind) for of_kind in by_kind.values()] == [4, 3, 1]
    assert "focal loss" not in by_kind["boosting"]
    with pytest.raises(ConfigError, match="takes no focal loss"):
        classifier_named(forest).fit(replace(bright_or_dark(0), focal_gamma=1.0), 2, QUICK, 0)


def test_a_classifier_is_named_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        check_classifiers(["boosting", "boosting"])
