"""LitServe as its documentation shows it, a process of `benchmarks.comparison`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve

from benchmarks.comparison import images_of


class Api(litserve.LitAPI):  # type: ignore[misc]
    """Seeds in, images out, both JSON."""

    def setup(self, device: str) -> None:
        """Loads the checkpoint, in LitServe's worker."""
        self.generate = images_of(Path(sys.argv[1]))

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads its types
        """The seeds of a request."""
        return list(request["seeds"])

    def predict(self, seeds: list[int]) -> list[Any]:
        """The images."""
        return self.generate(seeds)

    def encode_response(self, images: list[Any]) -> dict[str, Any]:
        """The answer."""
        return {"images": images}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", timeout=300)
    server.run(port=int(sys.argv[2]), generate_client_file=False, log_level="warning")
