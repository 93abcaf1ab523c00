"""Balanced data for torch: tensors of a batch, and a data set of real and generated images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fastgan_aug.errors import DataError
from fastgan_aug.target import MAJORITY, key_text
from serving.asking import Asker, Options, Wanted
from serving.batch import BalancedBatch


class BalancedDataset(Dataset[tuple[Tensor, int]]):
    """Real images, then the generated ones that fill their classes; map-style.

    An item is an image, (1, S, S) float32 in [0, 1], and its class, an integer. It holds tensors
    and no connection, so that a DataLoader's workers may share it.

        >>> images, labels = np.zeros((3, 32, 32), np.float32), ["disc", "disc", "ring"]
        >>> data = BalancedDataset.fill(Client.offline(checkpoint), images, labels, seed=7)
        >>> len(data), data.classes, data.synthetic.tolist()
        (4, ('disc', 'ring'), [False, False, False, True])
        >>> loader = torch.utils.data.DataLoader(data, batch_size=4)
        >>> [(tuple(x.shape), y.tolist()) for x, y in loader]
        [((4, 1, 32, 32), [0, 0, 1, 1])]

    Args:
        images: (N, S, S) or (N, 1, S, S) real images, float in [0, 1].
        labels: The label of each, as in ``y``.
        batch: What was generated for them.
        transform: Applied to each image when it is taken, for example an augmentation.

    Attributes:
        images: (N + M, 1, S, S) float32.
        targets: (N + M,) int64, positions in ``classes``.
        classes: The labels as texts, in the order of the request's keys.
        synthetic: (N + M,) bool, which of the images were generated.

    Raises:
        DataError: other shapes or values than generated images have, or labels of other classes.
    """

    def __init__(
        self,
        images: NDArray[Any] | Tensor,
        labels: Sequence[Hashable] | NDArray[Any] | Tensor,
        batch: BalancedBatch,
        *,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        generated, classes = tensors(batch)
        self.classes, self.transform = batch.classes, transform
        real = _real_images(images, batch.header.size)
        known = {name: i for i, name in enumerate(self.classes)}
        plain = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)
        names = [key_text(label) for label in plain]
        if len(names) != len(real) or not known.keys() >= set(names):
            raise DataError(
                f"{len(names)} labels of {sorted(set(names) - known.keys())} besides the batch's "
                f"classes for {len(real)} images",
                allowed="one label per image, each of " + ", ".join(self.classes),
                do="give the labels whose counts were asked with",
            )
        own = torch.tensor([known[name] for name in names], dtype=torch.int64)
        self.images, self.targets = torch.cat([real, generated]), torch.cat([own, classes])
        self.synthetic = torch.arange(len(self.images)) >= len(real)

    @classmethod
    def fill(
        cls,
        client: Asker,
        images: NDArray[Any] | Tensor,
        labels: Sequence[Hashable] | NDArray[Any] | Tensor,
        target: Wanted = MAJORITY,
        *,
        transform: Callable[[Tensor], Tensor] | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """Asks for what the labels lack, and joins both.

        Args:
            client: A `Client` or an `OfflineClient`.
            images: As above.
            labels: As above.
            target: As for ``Client.request_balanced_batch``.
            transform: As above.
            options: As for ``Client.request_balanced_batch``, and its errors.
        """
        batch = client.request_balanced_batch(labels, target, **options)
        return cls(images, labels, batch, transform=transform)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        return (self.transform(image) if self.transform else image), int(self.targets[index])


def tensors(batch: BalancedBatch) -> tuple[Tensor, Tensor]:
    """Images (N, 1, S, S) float32, not copied, and classes (N,) int64 of a batch."""
    numbers = {key: i for i, key in enumerate(batch.classes)}
    classes = torch.tensor([numbers[key] for key in batch.keys], dtype=torch.int64)
    return torch.from_numpy(batch.images)[:, None], classes


def _real_images(images: NDArray[Any] | Tensor, size: int) -> Tensor:
    found = torch.as_tensor(images).to(torch.float32)
    found = found[:, None] if found.ndim == 3 else found
    if found.shape[1:] != (1, size, size) or not bool(((found >= 0) & (found <= 1)).all()):
        raise DataError(
            f"the real images have shape {tuple(found.shape)}, or values outside [0, 1]",
            allowed=f"(N, {size}, {size}) or (N, 1, {size}, {size}) in [0, 1], as generated ones",
            do="scale them as the training data of the model were",
        )
    return found
