"""Models from the registry: found by alias or version, verified, loaded, tried, kept, followed."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fastgan_aug.engines.mlflow_registry import RegisteredVersion, fetch, find
from fastgan_aug.errors import CheckpointError, FastGANAugError, ModelNotFound, RegistryError
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer
from serving.generating import filter_of
from serving.models import LoadedModel
from serving.server.measures import REFUSED_VERSIONS, SERVED_VERSION, Measure, measure_nothing

POLL_SECONDS = 5.0
MOST_VERSIONS = 3
MOST_ALIASES = 16
AGAIN_SECONDS = 60.0  # after which a version is tried again that failed for want of files or memory
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusal:
    """Why a version is not served.

    Attributes:
        content: The version's tags: what else they say is tried again.
        error: Told to whoever asks for it.
        until: When it is tried again all the same, in seconds of ``time.monotonic``.
    """

    content: str
    error: FastGANAugError
    until: float = math.inf


class RegistryModels:
    """A `ModelSource` on a registered model, which follows its aliases.

    A version that is loaded is served whether the registry answers or not. A new version is
    fetched, verified, loaded and tried beside the old one, and takes the alias over at once and
    whole; one that fails is refused, and the old one stays. An alias whose version had to make room
    is followed again once somebody asks for it. A request keeps the version that it began with.

    Args:
        name: Name of the registered model.
        tracking_uri: Where the registry is.
        default: The alias or version that is never dropped from memory.
        threads: Of the generator.
        engine: ``torch`` or ``openvino``.
        poll_seconds: How often the registry is asked what the aliases mean.
        most_versions: Versions in memory; the least recently used goes.
        measure: Where numbers go.
    """

    def __init__(
        self,
        name: str,
        tracking_uri: str,
        *,
        default: str = "",
        threads: int = 1,
        engine: str = "torch",
        poll_seconds: float = POLL_SECONDS,
        most_versions: int = MOST_VERSIONS,
        measure: Measure = measure_nothing,
    ) -> None:
        self._name, self._uri, self._default, self._threads = name, tracking_uri, default, threads
        self._engine = engine
        self._poll_seconds, self._most = poll_seconds, most_versions
        self._measure = measure
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        self._aliases: dict[str, str] = {}
        self._refused: dict[str, Refusal] = {}
        self._outage: str | None = None
        self._lock = threading.Lock()  # of the fields above: never held for long
        self._loading = threading.Lock()  # one version is loaded at a time
        self._ended = threading.Event()
        self._poller: threading.Thread | None = None

    def known(self, model: str) -> LoadedModel | None:
        """The version in memory that an alias or a number means; None where there is none."""
        with self._lock:
            version = self._aliases.get(model, model)
            if version not in self._loaded:
                return None
            self._loaded.move_to_end(version)
            return replace(self._loaded[version], alias=model)

    def get(self, model: str) -> LoadedModel:
        """The version that an alias or a number means, loaded if it was not yet.

        Raises:
            ModelNotFound: no such version or alias.
            RegistryError: the registry could not be reached, and nothing was known; or it does not
                give the version's files.
            CheckpointError: the version is damaged, or does not generate; it is refused.
            StorageError: there is no room for its files.
        """
        found = self.known(model)
        if found is None:
            self._adopt(model, find(self._name, model, self._uri))
            found = self.known(model)
        if found is None:  # pushed out of memory in between
            raise RegistryError(
                f"{model!r} was pushed out of memory by other versions",
                do="ask again; raise serving.most_versions",
            )
        return found

    @property
    def loaded(self) -> list[LoadedModel]:
        """The versions in memory."""
        with self._lock:
            return list(self._loaded.values())

    def status(self) -> dict[str, Any]:
        """Versions in memory, what aliases mean, what was refused: JSON values."""
        with self._lock:
            return {
                "model": self._name,
                "aliases": dict(self._aliases),
                "loaded": list(self._loaded),
                "refused": {version: str(r.error) for version, r in self._refused.items()},
                "registry": self._outage or "reached",
            }

    # -- following the aliases -------------------------------------------------------------------

    def follow(self) -> None:
        """From now on asks the registry again and again, in a thread of its own."""
        self._poller = threading.Thread(target=self._poll, name="registry", daemon=True)
        self._poller.start()

    def close(self) -> None:
        """Ends the thread after what it is doing."""
        self._ended.set()

    def _poll(self) -> None:
        while not self._ended.wait(self._poll_seconds):
            self.look()

    def look(self) -> None:
        """Asks the registry once what every alias means, and takes over what is new and good.

        One bad alias keeps nobody from following the others; a registry that is away does, until
        the next look.
        """
        with self._lock:
            aliases = [alias for alias in self._aliases if alias != self._default]
        if self._default:
            aliases.insert(0, self._default)
        for alias in aliases:
            try:
                found = find(self._name, alias, self._uri)
            except ModelNotFound:
                self._forget(alias)
                continue
            except FastGANAugError as error:
                self._away(error)
                return
            except Exception:  # whatever it is, the next look has to come
                log.exception("looking at the registry failed")
                continue
            try:
                self._adopt(alias, found)
            except FastGANAugError:
                pass  # told when it was refused
            except Exception:
                log.exception("following %r failed", alias)

    def _forget(self, alias: str) -> None:
        with self._lock:
            gone = self._aliases.pop(alias, None)
        if gone is not None:
            log.warning("%r is no alias any more; it meant version %s", alias, gone)

    def _away(self, error: FastGANAugError) -> None:
        with self._lock:
            first, self._outage = self._outage is None, str(error)
        if first:
            log.warning("the registry is away; what is loaded stays: %s", error)

    def _adopt(self, model: str, found: RegisteredVersion) -> None:
        """Makes an alias mean what the registry says, once that version has proved itself."""
        with self._lock:
            self._outage = None
            before = self._aliases.get(model)
        self._have(found)
        if model == found.version:
            return
        with self._lock:
            self._aliases.pop(model, None)
            self._aliases[model] = found.version
            while len(self._aliases) > MOST_ALIASES:
                del self._aliases[next(iter(self._aliases))]
        if before != found.version:
            log.info("alias", extra={"facts": {"alias": model, "version": found.version}})
            self._measure(SERVED_VERSION, float(found.version), {"alias": model})

    # -- one version -------------------------------------------------------------------------------

    def _have(self, found: RegisteredVersion) -> None:
        """Loads a version, if it is not in memory.

        Raises:
            FastGANAugError: it is refused, now or by an earlier try.
        """
        with self._loading:
            with self._lock:  # not `known`: to follow a version is not to use it
                if found.version in self._loaded:
                    return
                before = self._refused.get(found.version)
            content = str(sorted(found.tags.items()))
            if before and before.content == content and time.monotonic() < before.until:
                raise copy(before.error)
            try:
                model = self._load(found.version)
                score = try_out(model)
            except CheckpointError as error:
                self._refuse(found.version, content, error)
                raise
            except Exception as error:
                # Its files are missing or cannot be fetched, or this machine's memory was full:
                # that may pass, but not from one look to the next.
                told = _not_loaded(found, error)
                self._refuse(found.version, content, told, time.monotonic() + AGAIN_SECONDS)
                raise told from error
            with self._lock:
                self._loaded[found.version] = model
                self._refused.pop(found.version, None)
                self._make_room(found.version)
        facts = {"version": found.version, "spread": round(score, 6)}
        log.info("loaded", extra={"facts": facts})

    def _load(self, version: str) -> LoadedModel:
        # The weights are in memory afterwards: the files need not stay.
        with TemporaryDirectory(prefix="fastgan-aug-") as folder:
            found = fetch(self._name, version, self._uri, Path(folder))
            assert found.folder is not None
            synthesizer = Synthesizer.load(found.folder, threads=self._threads)
            sample_filter = filter_of(found.folder, synthesizer)
        if self._engine == "openvino":
            from serving.server.openvino_engine import use_openvino

            use_openvino(synthesizer, self._threads)
        return LoadedModel(
            synthesizer, found.name, found.version, version, found.run_id or "", sample_filter
        )

    def _refuse(
        self, version: str, content: str, error: FastGANAugError, until: float = math.inf
    ) -> None:
        with self._lock:
            # A copy: the error's own traceback holds the model, and grows when it is raised again.
            self._refused[version] = Refusal(content, copy(error), until)
            while len(self._refused) > MOST_ALIASES:
                del self._refused[next(iter(self._refused))]
        self._measure(REFUSED_VERSIONS, 1, {"reason": error.code})
        log.error("version %s is refused: %s", version, error)

    def _make_room(self, newest: str) -> None:
        stays = {newest, self._aliases.get(self._default, self._default)}
        for version in [v for v in self._loaded if v not in stays]:
            if len(self._loaded) <= self._most:
                return
            del self._loaded[version]
            # Nor are its aliases followed, or the next look would load it again, and so on in
            # turn; who asks for one of them has it loaded and followed.
            self._aliases = {a: v for a, v in self._aliases.items() if v != version}


def _not_loaded(found: RegisteredVersion, error: Exception) -> FastGANAugError:
    if isinstance(error, FastGANAugError):
        return error
    log.exception("loading failed", extra={"facts": {"version": found.version}})
    return CheckpointError(
        f"version {found.version} of {found.name} could not be loaded ({type(error).__name__})",
        do="look into the service's log, or promote another version",
    )


def try_out(model: LoadedModel) -> float:
    """Generates one batch over all cells with fixed seeds, and looks at it; also warms the model.

    Returns:
        The spread: the standard deviation over the images, mean over pixels and cells, of [0, 1].

    Raises:
        CheckpointError: images of another shape, not finite, out of [0, 1], without any contrast,
            or two that are the same.
    """
    synthesizer = model.synthesizer
    cells = [synthesizer.space.cells[i % len(synthesizer.space.cells)] for i in range(CHUNK)]
    images = synthesizer.generate(cells, np.arange(CHUNK, dtype=np.uint64))
    flat = images.reshape(len(images), -1)
    wrong = {
        f"of shape {images.shape}": images.shape != (CHUNK, synthesizer.size, synthesizer.size),
        "that are not finite": not np.isfinite(flat).all(),
        "out of [0, 1]": bool((flat < 0).any() or (flat > 1).any()),
        "without any contrast": bool((np.ptp(flat, axis=1) == 0).any()),
        "that are the same for other seeds": len(np.unique(flat, axis=0)) < CHUNK,
    }
    found = [what for what, is_so in wrong.items() if is_so]
    if found:
        raise CheckpointError(
            f"version {model.version} of {model.name} generates images {' and '.join(found)}",
            allowed="finite images in [0, 1] that differ from seed to seed",
            do="promote another version",
        )
    return float(flat.std(0).mean())
