"""Where the application takes its models from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from serving.protocol import FILTER, Provenance
from serving.request import BatchRequest

if TYPE_CHECKING:  # Only named here: the application itself needs no torch.
    from fastgan_aug.gan.synthesizer import Synthesizer
    from fastgan_aug.quality.sample_filter import SampleFilter


@dataclass(frozen=True)
class LoadedModel:
    """A version of the registered model, ready to generate.

    Attributes:
        synthesizer: Its generator.
        name: Name of the registered model.
        version: The version's number.
        alias: What it was asked by, for example ``champion``, or the number itself.
        run_id: The tracking run that trained it.
        sample_filter: Judges its images; None where the checkpoint has none.
    """

    synthesizer: Synthesizer
    name: str
    version: str
    alias: str
    run_id: str
    sample_filter: SampleFilter | None = None

    def provenance(self, request: BatchRequest) -> Provenance:
        """The provenance of the images that answer ``request``."""
        meta = self.synthesizer.meta
        return Provenance(
            model=self.name,
            version=self.version,
            alias=self.alias,
            run_id=self.run_id,
            checkpoint=meta.digest,
            dataset=meta.lineage.dataset_digest,
            config=meta.lineage.config_digest,
            code_version=meta.lineage.code_version,
            engine=self.synthesizer.engine,
            seed=request.seed,
            request_id=request.request_id,
            filter=meta.files[FILTER] if request.filter else "",
            prior=meta.lineage.prior or "",
        )

    def describe(self) -> dict[str, Any]:
        """What ``GET /v1/model`` tells: cells, training counts, size and lineage, JSON values."""
        meta, synthesizer = self.synthesizer.meta, self.synthesizer
        return {
            "model": self.name,
            "version": self.version,
            "alias": self.alias,
            "run_id": self.run_id,
            "size": synthesizer.size,
            "factors": synthesizer.space.to_dict(),
            "cells": [str(cell) for cell in synthesizer.space.cells],
            "training_counts": {str(c): n for c, n in synthesizer.class_counts.items()},
            "unseen": [str(c) for c, n in synthesizer.class_counts.items() if not n],
            "images_seen": meta.images_seen,
            "checkpoint": meta.digest,
            "dataset": meta.lineage.dataset_digest,
            "config": meta.lineage.config_digest,
            "code_version": meta.lineage.code_version,
            "engine": synthesizer.engine,
            "filter": meta.files.get(FILTER),
            "prior": meta.lineage.prior,
        }


class ModelSource(Protocol):
    """Finds models by alias or version."""

    def known(self, model: str) -> LoadedModel | None:
        """The model if it is in memory; returns at once, whatever the registry does."""
        ...

    def get(self, model: str) -> LoadedModel:
        """The model, loaded if it was not yet; called in a thread.

        Raises:
            ModelNotFound: no such version or alias.
            RegistryError: the registry could not be reached.
            CheckpointError: the checkpoint is damaged.
        """
        ...

    def status(self) -> dict[str, Any]:
        """What ``GET /v1/status`` tells of the models: JSON values."""
        ...
