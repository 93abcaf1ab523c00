"""`FastGANSampler`: imbalanced-learn's over-sampler whose new samples a generator makes."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_target_type
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from fastgan_aug.errors import BalanceError, DataError
from fastgan_aug.target import key_text
from serving.asking import Asker
from serving.request import DEFAULT_MODEL, LARGEST_SEED

if TYPE_CHECKING:
    from imblearn.utils._tags import Tags


class FastGANSampler(BaseOverSampler):  # type: ignore[misc]  # imbalanced-learn has no types
    """Fills classes with generated images, in any pipeline of imbalanced-learn.

        >>> X, y = np.zeros((7, 32 * 32), np.float32), ["disc"] * 4 + ["ring"] * 3
        >>> sampler = FastGANSampler(Client.offline(checkpoint), random_state=7)
        >>> X_res, y_res = sampler.fit_resample(X, y)
        >>> X_res.shape, y_res[-1]
        ((8, 1024), 'ring')

    ``X`` holds one image a row, (N, S * S), or images (N, S, S), in [0, 1] as the model's training
    data were; the new ones come after it. A label as text is a key of the request: a cell, or a
    value of one factor.

    Args:
        client: A `Client` or an `OfflineClient`.
        sampling_strategy: As that library defines it for over-sampling, so that ``"majority"`` is
            refused.
        model: As for ``Client.request_balanced_batch``.
        allow_unseen: As for ``Client.request_balanced_batch``.
        random_state: The request's seed; None or a `RandomState` draws one.

    Attributes:
        sampling_strategy_: How many images were made of each class.
        seed_: The request's seed: with it the same images can be asked for again.
        provenance_: Where the images come from; None where none was needed.
        n_features_in_: Pixels of an image.

    Raises:
        ValueError: what imbalanced-learn refuses.
        DataError: ``X`` has another size than the model's images, or values outside [0, 1].
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseOverSampler._parameter_constraints,
        "client": [Asker, None],
        "model": [str],
        "allow_unseen": ["boolean"],
    }

    def __init__(
        self,
        client: Asker | None = None,
        *,
        sampling_strategy: Any = "auto",
        model: str = DEFAULT_MODEL,
        allow_unseen: bool = False,
        random_state: Any = 0,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.client, self.model, self.allow_unseen = client, model, allow_unseen
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False  # images are dense
        tags.input_tags.three_d_array = True
        return tags

    def _check_X_y(self, X: Any, y: Any, accept_sparse: Any = None) -> Any:
        y, binarize_y = check_target_type(y, indicate_one_vs_all=True)
        X, y = validate_data(self, X=X, y=y, reset=True, accept_sparse=False, allow_nd=True)
        return X, y, binarize_y

    def _fit_resample(self, X: NDArray[Any], y: NDArray[Any]) -> tuple[Any, Any]:
        if self.client is None:
            raise BalanceError(
                "client is None",
                allowed="a Client or an OfflineClient",
                do="give who generates the images: FastGANSampler(client)",
            )
        if X.size and not (X.min() >= 0 and X.max() <= 1):
            raise DataError(
                f"X has values from {X.min():g} to {X.max():g}",
                allowed="[0, 1], as generated images have",
                do="scale X as the training data of the model were, before the sampler",
            )
        self.seed_, self.provenance_ = self._seed(), None
        labels, counts = np.unique(y, return_counts=True)
        present = {key_text(label): int(n) for label, n in zip(labels, counts, strict=True)}
        wanted = {
            key_text(label): present[key_text(label)] + int(n)
            for label, n in self.sampling_strategy_.items()
            if n
        }
        if not wanted:
            return X.copy(), y.copy()
        batch = self.client.request_balanced_batch(
            present, wanted, model=self.model, seed=self.seed_, allow_unseen=self.allow_unseen
        )
        self.provenance_ = batch.provenance
        _check_size(X, batch.header.size)
        label_of = {key_text(label): label for label in labels}
        made = np.asarray([label_of[key] for key in batch.keys], y.dtype)
        images = batch.images.reshape(-1, *X.shape[1:]).astype(X.dtype)
        return np.concatenate([X, images]), np.concatenate([y, made])

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        random = check_random_state(self.random_state)
        return int(random.randint(0, LARGEST_SEED, dtype=np.uint64))


def _check_size(X: NDArray[Any], size: int) -> None:
    if X.shape[1:] not in ((size**2,), (size, size)):
        raise DataError(
            f"X has shape {X.shape}",
            allowed=f"(N, {size**2}) or (N, {size}, {size}), as the model's images have",
            do="give images of the model's size",
        )
