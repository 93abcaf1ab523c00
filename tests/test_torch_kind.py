"""Laws of the networks that arms are fitted with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from downstream.classifiers.catalogue import KINDS
from downstream.classifiers.residual import residual_net
from downstream.classifiers.torch_kind import TorchKind
from fastgan_aug.errors import DataError
from fastgan_aug.quality.likeness.classifier import FitSettings, fit_classifier, small_cnn
from tests.fitting import QUICK, bright_or_dark

NETWORKS = ["small-cnn", "residual"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_learns_follows_its_seed_and_leaves_the_global_stream(name: str) -> None:
    fit, unseen = bright_or_dark(0), bright_or_dark(1)
    before = torch.get_rng_state()
    first = KINDS[name].fit(fit, 3, QUICK, 0).predict_proba(unseen.images)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (len(unseen.labels), 3)
    assert first.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (first.argmax(axis=1) == unseen.labels).mean() > 0.9
    assert np.array_equal(first, KINDS[name].fit(fit, 3, QUICK, 0).predict_proba(unseen.images))
    other = KINDS[name].fit(fit, 3, QUICK, 1).predict_proba(unseen.images)
    assert not np.array_equal(first, other)


def test_the_small_network_is_that_of_the_gate() -> None:
    fit = bright_or_dark(0)
    one = fit_classifier(fit.images, fit.labels, 3, QUICK, seed=2)
    same = KINDS["small-cnn"].fit(fit, 3, QUICK, 2)
    assert np.array_equal(one.predict_proba(fit.images), same.predict_proba(fit.images))


def test_a_pre_training_is_gone_on_with_and_takes_no_further_step() -> None:
    """What the first phase learnt is there after the second, and steps are as many in all."""
    taken = []

    class Counted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Linear(256, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training:
                taken.append(len(images))
            return torch.as_tensor(self.body(images.flatten(1)))

    fit = bright_or_dark(0)
    both = replace(fit, pretraining=fit)
    TorchKind("counted", lambda *_: Counted()).fit(both, 2, QUICK, 0)
    assert len(taken) == QUICK.steps
    wrong = replace(fit, labels=1 - fit.labels)
    told = [
        KINDS["small-cnn"].fit(replace(wrong, pretraining=p), 2, replace(QUICK, steps=n), 0)
        .predict_proba(fit.images)
        for p, n in ((fit, 4), (None, 4))
    ]  # fmt: skip
    assert not np.array_equal(*told)


@pytest.mark.parametrize("size", [16, 64, 96])
def test_the_residual_network_takes_any_size(size: int) -> None:
    images = np.random.default_rng(0).random((3, size, size), np.float32)
    torch.manual_seed(0)
    network = residual_net(images, 4, FitSettings(width=4)).eval()
    logits = network(torch.from_numpy(images)[:, None])
    assert logits.shape == (3, 4)
    assert torch.isfinite(logits).all()


def test_the_residual_network_is_the_stronger() -> None:
    count = {
        make: sum(p.numel() for p in make(np.zeros((1, 64, 64), np.float32), 3, FitSettings())
                  .parameters())
        for make in (small_cnn, residual_net)
    }  # fmt: skip
    assert count[residual_net] > 2 * count[small_cnn]


def test_slices_of_another_size_are_refused() -> None:
    fit = bright_or_dark(0)
    fitted = KINDS["small-cnn"].fit(fit, 2, QUICK, 0)
    with pytest.raises(DataError, match="shape"):
        fitted.predict_proba(np.zeros((2, 8, 8), np.float32))
