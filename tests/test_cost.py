from __future__ import annotations

from dataclasses import replace

import pytest
from gan_toy import CELLS, NETWORK, TRAINING

from fastgan_aug.gan.batch import PENALTY_EVERY
from fastgan_aug.gan.cost import FitCost, measure_cost
from fastgan_aug.gan.settings import TrainingConfig


def cost(training: TrainingConfig = TRAINING, **network: bool) -> FitCost:
    return measure_cost(replace(NETWORK, **network), training, CELLS, steps=1)


def test_a_switch_that_computes_more_is_counted() -> None:
    plain, deviation, projection = cost(), cost(minibatch_sd=True), cost(projection=True)
    assert deviation.operations_per_image > plain.operations_per_image
    last = 8 * NETWORK.discriminator_width
    assert deviation.discriminator_parameters - plain.discriminator_parameters == 2 * last
    # A vector for each element of the condition, in place of a channel of it at the input.
    channels = CELLS * NETWORK.discriminator_width * 9
    assert (
        projection.discriminator_parameters - plain.discriminator_parameters
        == CELLS * last - channels
    )
    assert projection.operations_per_image < plain.operations_per_image
    pairs = cost(replace(TRAINING, relativistic=True, transition=8))
    assert pairs.operations_per_image == plain.operations_per_image


def test_the_penalty_is_counted_as_often_as_it_is_asked() -> None:
    """Two more discriminator passes and their backward, in one of PENALTY_EVERY steps."""
    plain, steep = cost(), cost(replace(TRAINING, gradient_penalty=1.0))
    added = (steep.operations_per_image - plain.operations_per_image) * PENALTY_EVERY
    assert 0 < added < plain.operations_per_image
    assert steep.seconds == pytest.approx(steep.seconds_per_step * TRAINING.images / TRAINING.batch)
