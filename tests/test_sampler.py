"""`FastGANSampler` under imbalanced-learn's own estimator checks, and its own laws.

The checks bring data of their own: random numbers of 2 or 20 features. What applies to images is run
on images: the checks' own data set is replaced by one of 32 x 32 pixels. What remains fails for
the reason that stands in ``NOT_FOR_IMAGES``.
"""

from __future__ import annotations

from collections import Counter

import imblearn.utils.estimator_checks as checks
import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from fastgan_aug.errors import BalanceError, DataError, UnknownCell
from serving.offline import OfflineClient
from serving.sampler import FastGANSampler
from tests.served import lineage, tiny_checkpoint

PIXELS = 32 * 32
SHAPES = {"shape": ["0", "1", "2"]}
TWO_FEATURES = "the check brings its own 2 or 3 features, and an image of the model has 1,024"
NOT_FOR_IMAGES = {
    "check_samplers_fit": TWO_FEATURES,
    "check_sampler_get_feature_names_out": TWO_FEATURES,
    "check_sampler_get_feature_names_out_pandas": TWO_FEATURES,
    "check_samplers_pandas_sparse": "an image is dense: sparse data frames are refused",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> OfflineClient:
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    counts = {"0": 20, "1": 20, "2": 20}
    return OfflineClient(tiny_checkpoint(folder, lineage(SHAPES, counts)))


def images_and_labels():
    """As ``sample_dataset_generator``, fewer and as images."""
    y = np.repeat([0, 1, 2], [20, 30, 50])
    return np.random.default_rng(0).random((len(y), PIXELS)), y


class Shared(FastGANSampler):
    """Keeps its client when it is cloned, as the checks clone it before they call it."""

    holder: dict[str, OfflineClient] = {}  # noqa: RUF012

    def _fit_resample(self, X, y):
        self.client = self.holder["client"]
        return super()._fit_resample(X, y)


@parametrize_with_checks([Shared()], expected_failed_checks=lambda _: NOT_FOR_IMAGES)
def test_the_estimator_checks_of_imbalanced_learn(estimator, check, client, monkeypatch):
    Shared.holder["client"] = client
    monkeypatch.setattr(checks, "sample_dataset_generator", images_and_labels)
    check(estimator)
