"""The one classifier: a small CNN, used downstream, for faithfulness, and as feature extractor.

Nothing in it knows what it looks at: any square size from 16 up, any number of classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fastgan_aug.errors import DataError

if TYPE_CHECKING:
    from fastgan_aug.config import DownstreamConfig, QualityConfig

CHUNK = 256
"""Slices per forward pass when predicting."""

Augment = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(images (B, 1, S, S) in [0, 1], rows (B,) they were taken from, random) to images."""
Network = TypeVar("Network", bound=nn.Module)


class SmallCNN(nn.Module):
    """Four convolutions with stride 2, then a coarse grid of means and the global maxima.

    The 4 x 4 grid keeps *where* something was seen: one-sided against two-sided cannot be told
    from a global mean. The global maxima keep the small and strong.

    Args:
        n_classes: Logits.
        size: Rows and columns of a slice.
        width: Feature maps of the first layer.
        mean: Of the training images' pixels, for standardisation.
        std: As ``mean``.
    """

    def __init__(self, n_classes: int, size: int, width: int, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        widths = [1, width, 2 * width, 4 * width, 4 * width]
        blocks: list[nn.Module] = []
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            # From 64 pixels on, the first layer brings every size to 32 x 32: cost stays level.
            stride = max(2, size // 32) if i == 0 else 2
            kernel = 5 if i == 0 else 3
            conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
            blocks += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*blocks)
        self.embed = nn.Linear(17 * widths[-1], 64)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(64, n_classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster

    def features(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) in [0, 1] to (B, 64), the penultimate layer."""
        standard = (images - self.mean) / self.std
        maps = self.body(standard.contiguous(memory_format=torch.channels_last))
        grid = functional.adaptive_avg_pool2d(maps, 4).flatten(1)
        pooled = torch.cat([grid, maps.amax(dim=(2, 3))], dim=1)
        return functional.relu(self.embed(self.drop(pooled)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) in [0, 1] to (B, n_classes) logits."""
        return torch.as_tensor(self.head(self.drop(self.features(images))))


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier.

    Attributes:
        network: In evaluation mode.
        size: Rows and columns of the slices it was fitted on.
    """

    network: SmallCNN
    size: int

    def predict_proba(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities.

        Args:
            images: (N, S, S) float32 in [0, 1].

        Returns:
            (N, C) float32, rows sum to 1.

        Raises:
            DataError: images of another shape.
        """
        return in_chunks(lambda x: self.network(x).softmax(dim=1), images, self.size)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.int64]:
        """(N,) the likeliest class of each slice."""
        return np.asarray(self.predict_proba(images).argmax(axis=1), np.int64)

    def features(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 64) float32, the penultimate layer.

        Raises:
            DataError: images of another shape.
        """
        return in_chunks(self.network.features, images, self.size)


def in_chunks(
    function: Callable[[Tensor], Tensor], images: NDArray[np.float32], size: int
) -> NDArray[np.float32]:
    """What a network says of many slices, ``CHUNK`` at a time, without gradients.

    Args:
        function: (B, 1, S, S) in [0, 1] to (B, D).
        images: (N, S, S) float32 in [0, 1].
        size: The S that it was fitted on.

    Returns:
        (N, D) float32.

    Raises:
        DataError: images of another shape.
    """
    if images.ndim != 3 or images.shape[1:] != (size, size) or not len(images):
        raise DataError(
            f"the images have shape {images.shape}",
            allowed=f"(N, {size}, {size}) with N of 1 or more",
            do="give slices of the size the classifier was fitted on",
        )
    with torch.inference_mode():
        parts = [function(x) for x in torch.split(_tensor(images), CHUNK)]
    return np.asarray(torch.cat(parts).numpy(), np.float32)


@dataclass(frozen=True)
class FitSettings:
    """How long and how wide the classifier is fitted.

    Attributes:
        steps: Optimiser steps.
        batch: Slices per step.
        learning_rate: Peak of the one-cycle schedule.
        width: Feature maps of the first layer.
    """

    steps: int = 400
    batch: int = 64
    learning_rate: float = 3e-3
    width: int = 16

    @classmethod
    def of(cls, section: DownstreamConfig | QualityConfig) -> Self:
        """Those of a configuration's section."""
        return cls(section.steps, section.batch, section.learning_rate, section.width)


def fit_classifier(
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    settings: FitSettings,
    *,
    seed: int,
    sampling: NDArray[np.float64] | None = None,
) -> Classifier:
    """Fits the small CNN as the gate does, without changes to slices; see ``fit_network``.

    Raises:
        DataError: images or labels do not fit each other, or a label is out of range.
    """
    network = fit_network(
        small_cnn, images, labels, n_classes, settings, seed=seed, sampling=sampling
    )
    return Classifier(network, images.shape[1])


def small_cnn(images: NDArray[np.float32], n_classes: int, settings: FitSettings) -> SmallCNN:
    """A new one that standardises as these images, (N, S, S) in [0, 1], need it."""
    mean, std = float(images.mean()), float(images.std()) + 1e-6
    return SmallCNN(n_classes, images.shape[1], settings.width, mean, std)


def fit_network(
    make: Callable[[NDArray[np.float32], int, FitSettings], Network],
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    settings: FitSettings,
    *,
    seed: int,
    class_weights: NDArray[np.float32] | None = None,
    augment: Augment | None = None,
    sampling: NDArray[np.float64] | None = None,
    focal_gamma: float = 0.0,
    mixup_alpha: float = 0.0,
) -> Network:
    """Fits a network by cross-entropy; the same arguments give the same weights.

    AdamW with a one-cycle learning rate (Smith and Topin 2018), so that the last steps settle
    whatever the number of steps.

    Args:
        make: (images, n_classes, settings) to the network that is fitted: new, its weights drawn
            from torch's global stream, or an earlier one to go on with. It takes (B, 1, S, S) in
            [0, 1] to (B, n_classes) logits.
        images: (N, S, S) float32 in [0, 1].
        labels: (N,) in 0 .. n_classes - 1.
        n_classes: Classes, of which some may be missing from ``labels``.
        settings: Length and width.
        seed: Of initial weights, batches, augmentation and dropout.
        class_weights: (n_classes,) weight of each class in the loss.
        augment: Applied to each batch.
        sampling: (N,) chances to be drawn, with replacement; by default each once per pass.
        focal_gamma: Exponent of the focal loss (Lin et al. 2017, Eq. 4); 0 is cross-entropy.
        mixup_alpha: Of the Beta distribution of mixtures of two slices of a batch and of their
            labels (Zhang et al. 2018); 0 mixes nothing.

    Returns:
        In evaluation mode, after exactly ``settings.steps`` optimiser steps.

    Raises:
        DataError: images or labels do not fit each other, or a label is out of range.
    """
    _check(images, labels, n_classes, sampling)
    pixels = _tensor(images)
    targets = torch.from_numpy(np.ascontiguousarray(labels, np.int64))
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    random = torch.Generator().manual_seed(seed)
    rows = _batches(len(images), settings.steps, settings.batch, sampling, random)

    def loss_of(row: Tensor) -> Tensor:
        taken = pixels[row] if augment is None else augment(pixels[row], row, random)
        if mixup_alpha:
            return _mixed_loss(network, taken, targets[row], weights, mixup_alpha, random)
        return _loss(network(taken), targets[row], weights, focal_gamma)

    with torch.random.fork_rng(devices=[]):
        # Initial weights and dropout draw from torch's global stream: fixed here, given back after.
        torch.manual_seed(seed)
        network = make(images, n_classes, settings)
        _descend(network, rows, loss_of, settings)
    return network.eval()


def _descend(
    network: nn.Module, rows: Tensor, loss_of: Callable[[Tensor], Tensor], settings: FitSettings
) -> None:
    """One optimiser step for each batch of rows."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=1e-2, foreach=True)
    rate = _one_cycle(settings.steps, settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    network.train()
    for row in rows:
        loss = loss_of(row)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _loss(logits: Tensor, targets: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    """Cross-entropy, or the focal loss: each slice's times (1 - p)^gamma."""
    if not gamma:
        return functional.cross_entropy(logits, targets, weights)
    each = functional.cross_entropy(logits, targets, weights, reduction="none")
    sure = logits.softmax(dim=1).gather(1, targets[:, None])[:, 0]
    return ((1 - sure) ** gamma * each).mean()


def _mixed_loss(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    alpha: float,
    random: torch.Generator,
) -> Tensor:
    """Of mixtures of each slice with another of its batch, by both labels."""
    # A Beta(a, a) draw is the share of one of two Gamma(a) draws.
    gammas = torch._standard_gamma(torch.full((2,), alpha), generator=random)
    share = float(gammas[0] / gammas.sum().clamp_min(1e-12))
    other = torch.randperm(len(images), generator=random)
    logits = network(share * images + (1 - share) * images[other])
    own = functional.cross_entropy(logits, targets, weights)
    return share * own + (1 - share) * functional.cross_entropy(logits, targets[other], weights)


def _tensor(images: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]


def _one_cycle(steps: int, peak: float) -> Callable[[int], float]:
    """Learning rate of each step: up over the first tenth, then down along a cosine."""
    warm = max(1, steps // 10)

    def rate(step: int) -> float:
        if step < warm:
            return peak * (step + 1) / warm
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return rate


def _batches(
    n: int,
    steps: int,
    batch: int,
    sampling: NDArray[np.float64] | None,
    random: torch.Generator,
) -> Tensor:
    """(steps, batch) rows of the data."""
    total = steps * batch
    if sampling is not None:
        chances = torch.from_numpy(np.ascontiguousarray(sampling, np.float64))
        return torch.multinomial(chances, total, True, generator=random).reshape(steps, batch)
    passes = [torch.randperm(n, generator=random) for _ in range(math.ceil(total / n))]
    return torch.cat(passes)[:total].reshape(steps, batch)


def _check(
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_classes: int,
    sampling: NDArray[np.float64] | None,
) -> None:
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.shape[1] < 16:
        raise DataError(
            f"the images have shape {images.shape}", allowed="(N, S, S), S of 16 or more"
        )
    if len(labels) != len(images) or not len(images):
        raise DataError(
            f"{len(images)} images and {len(labels)} labels", allowed="one label for each image"
        )
    if labels.min() < 0 or labels.max() >= n_classes:
        raise DataError(
            f"labels run from {labels.min()} to {labels.max()}", allowed=f"0 to {n_classes - 1}"
        )
    if sampling is not None and (sampling.shape != labels.shape or (sampling < 0).any()):
        raise DataError(
            f"sampling has shape {sampling.shape}", allowed="one probability for each image"
        )
