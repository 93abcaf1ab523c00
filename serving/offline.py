"""Images from a checkpoint folder, without any service: the client's calls on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from serving.asking import Asker
from serving.extras import require
from serving.generating import chunks, decide, filter_of
from serving.models import LoadedModel
from serving.protocol import Answer, Header
from serving.request import DEFAULT_MODEL, BatchRequest

OFFLINE = "offline"


class OfflineClient(Asker):
    """A checkpoint that answers like the service, with byte-identical images for the same seeds.

    It generates in this process, on the same kind of machine with the same torch as the service:
    then not one byte differs. ``model`` of a request is ignored: there is one.

        >>> client = OfflineClient(checkpoint)
        >>> batch = client.request_balanced_batch(["disc", "disc", "ring"], "not majority", seed=7)
        >>> batch.cells, batch.images.shape, batch.provenance.model
        (['ring'], (1, 32, 32), 'offline')

    Args:
        checkpoint: The folder.
        threads: torch threads of this process; None leaves them.
        name: Of the registered model that it is; provenance tells it.
        version: Its version; by default the first characters of the checkpoint's digest.
        alias: What the version was found by.
        run_id: The run that trained it.

    Attributes:
        folder: The checkpoint.

    Raises:
        CheckpointError: missing, damaged, or of another format.
        ConfigError: torch is not installed.
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        threads: int | None = None,
        name: str = OFFLINE,
        version: str | None = None,
        alias: str | None = None,
        run_id: str = "",
    ) -> None:
        require("torch", "method")
        from fastgan_aug.gan.synthesizer import Synthesizer

        self.folder = Path(checkpoint)
        synthesizer = Synthesizer.load(self.folder, threads=threads)
        version = version or synthesizer.meta.digest[:12]
        self._loaded = LoadedModel(
            synthesizer, name, version, alias or version, run_id,
            filter_of(self.folder, synthesizer),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open; here for those who close every client."""

    def planned(self, request: BatchRequest) -> Header:
        """See `Asker.planned`."""
        return decide(request, self._loaded)

    def answer(self, request: BatchRequest) -> Answer:
        """See `Asker.answer`."""
        header = decide(request, self._loaded)
        made = chunks(
            self._loaded, header.plan, request.seed, header.span, filtered=bool(request.filter)
        )
        return Answer(header, made)

    def model(self, model: str = DEFAULT_MODEL) -> dict[str, Any]:
        """What the service would tell of the checkpoint: cells, training counts, size, digests."""
        return self._loaded.describe()

    def ready(self) -> bool:
        """Always: the checkpoint was loaded and verified."""
        return True
