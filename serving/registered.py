"""Models from the registry: found by alias or version, verified, loaded, kept."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fastgan_aug.engines.mlflow_registry import RegisteredVersion, fetch, find
from fastgan_aug.errors import ModelNotFound, RegistryError
from fastgan_aug.gan.synthesizer import Synthesizer
from serving.models import LoadedModel

# How long an alias may lag behind the registry, and how many versions stay in memory.
ALIAS_SECONDS = 5.0
MOST_VERSIONS = 3
log = logging.getLogger(__name__)


class RegistryModels:
    """A `ModelSource` on a registered model.

    Args:
        name: Name of the registered model.
        tracking_uri: Where the registry is.
        threads: torch threads of this process.
    """

    def __init__(self, name: str, tracking_uri: str, *, threads: int = 1) -> None:
        self._name, self._uri, self._threads = name, tracking_uri, threads
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._aliases: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def get(self, model: str) -> LoadedModel:
        """The version that an alias or a number means, loaded if it was not yet.

        While the registry is away, what was known last goes on being served.

        Raises:
            ModelNotFound: no such version or alias.
            RegistryError: the registry could not be reached, and nothing was known.
            CheckpointError: the checkpoint is damaged.
        """
        with self._lock:
            version = self._version(model)
            if version not in self._loaded:
                self._loaded[version] = self._load(version)
                if len(self._loaded) > MOST_VERSIONS:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(version)
            return replace(self._loaded[version], alias=model)

    @property
    def loaded(self) -> list[LoadedModel]:
        """The versions in memory."""
        return list(self._loaded.values())

    def _version(self, model: str) -> str:
        if model in self._loaded:
            return model
        version, known_at = self._aliases.get(model, ("", 0.0))
        if version and time.monotonic() - known_at < ALIAS_SECONDS:
            return version
        try:
            version = find(self._name, model, self._uri).version
        except ModelNotFound:
            raise
        except RegistryError as error:
            if version not in self._loaded:
                raise
            log.warning("%r stays version %s: %s", model, version, error)
        self._aliases[model] = version, time.monotonic()
        return version

    def _load(self, version: str) -> LoadedModel:
        # The weights are in memory afterwards: the files need not stay.
        with TemporaryDirectory(prefix="fastgan-aug-") as folder:
            found: RegisteredVersion = fetch(self._name, version, self._uri, Path(folder))
            assert found.folder is not None
            synthesizer = Synthesizer.load(found.folder, threads=self._threads)
        log.info("loaded version %s of %s", version, self._name)
        return LoadedModel(synthesizer, found.name, found.version, version, found.run_id or "")
