"""`FastGANSampler` under imbalanced-learn's own estimator checks, and its own laws.

The checks bring data of their own: random numbers of 2 or 20 features. What applies to images is
run on images: the checks' own data set is replaced by one of 32 x 32 pixels. What remains fails
for the reason that stands in ``NOT_FOR_IMAGES``.
"""

from __future__ import annotations

from collections import Counter

import imblearn.utils.estimator_checks as checks
import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
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


EVERY_CHECK = checks.estimator_checks_generator(
    FastGANSampler(), expected_failed_checks=NOT_FOR_IMAGES, mark="xfail"
)


@pytest.mark.parametrize(("estimator", "check"), list(EVERY_CHECK))
def test_the_estimator_checks_of_imbalanced_learn(estimator, check, client, monkeypatch):
    monkeypatch.setattr(checks, "sample_dataset_generator", images_and_labels)
    check(clone(estimator).set_params(client=client))


def test_the_checks_that_are_left_out_hold_on_images(client):
    X, y = images_and_labels()
    sampler = FastGANSampler(client).fit(X, y)
    assert sampler.sampling_strategy_ == {0: 30, 1: 20}
    names = [f"pixel{i}" for i in range(PIXELS)]
    assert sampler.get_feature_names_out(names).tolist() == names
    with pytest.raises(ValueError, match="input_features should have length equal"):
        sampler.get_feature_names_out(names[::2])
    frame = pd.DataFrame(X, columns=names)
    made, _ = sampler.fit_resample(frame, y)
    assert made.columns.tolist() == sampler.get_feature_names_out().tolist() == names
    with pytest.raises(ValueError, match="is not equal to feature_names_in_"):
        sampler.get_feature_names_out([f"bad{i}" for i in range(PIXELS)])


def test_it_appends_the_very_images_of_the_client(client):
    X, y = images_and_labels()
    sampler = FastGANSampler(client, random_state=7)
    made, labels = sampler.fit_resample(X.astype(np.float32), y)
    batch = client.request_balanced_batch(y, "auto", seed=7)
    assert made[:100].tobytes() == X.astype(np.float32).tobytes()
    assert made[100:].tobytes() == batch.images.tobytes()
    assert [str(label) for label in labels[100:]] == batch.cells
    assert Counter(labels.tolist()) == dict.fromkeys((0, 1, 2), 50)
    assert sampler.provenance_.checkpoint == batch.provenance.checkpoint
    again, _ = FastGANSampler(client, random_state=sampler.seed_).fit_resample(X, y)
    np.testing.assert_array_equal(again[100:].astype(np.float32), made[100:])


def test_images_of_two_dimensions_stay_images(client):
    X, y = images_and_labels()
    flat, _ = FastGANSampler(client).fit_resample(X, y)
    square, _ = FastGANSampler(client).fit_resample(X.reshape(-1, 32, 32), y)
    assert square.shape == (150, 32, 32)
    assert square.tobytes() == flat.tobytes()


@pytest.mark.parametrize(
    ("strategy", "made"),
    [("minority", {0: 30}), ("not minority", {1: 20}), ("all", {0: 30, 1: 20}),
     ({0: 21}, {0: 1}), (lambda y: {1: 33}, {1: 3}), ({0: 20}, {})],
)  # fmt: skip
def test_strategies(client, strategy, made):
    X, y = images_and_labels()
    found, labels = FastGANSampler(client, sampling_strategy=strategy).fit_resample(X, y)
    assert Counter(labels[100:].tolist()) == made
    assert len(found) == len(labels)


def test_what_it_refuses(client):
    X, y = images_and_labels()
    with pytest.raises(ValueError, match="sampling_strategy"):
        FastGANSampler(client, sampling_strategy="majority").fit_resample(X, y)
    with pytest.raises(ValueError, match="Originally, there is 50 samples and 3 samples are asked"):
        FastGANSampler(client, sampling_strategy={2: 3}).fit_resample(X, y)
    with pytest.raises(DataError, match=r"\[0, 1\]|from 0"):
        FastGANSampler(client).fit_resample(X * 255, y)
    with pytest.raises(DataError, match="shape"):
        FastGANSampler(client).fit_resample(X[:, :-1], y)
    with pytest.raises(UnknownCell):
        FastGANSampler(client).fit_resample(X, y + 1)
    with pytest.raises(BalanceError, match="client"):
        FastGANSampler().fit_resample(X, y)


def test_only_the_training_folds_of_a_pipeline_are_filled(client):
    X, y = images_and_labels()
    model = make_pipeline(FastGANSampler(client), LogisticRegression())
    assert clone(model).steps[0][1].client is client
    assert cross_val_score(model, X, y, cv=2).shape == (2,)
